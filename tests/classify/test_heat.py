"""The map is the network's own, of the same forward pass, and lies where the network looked."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from router.classify.demo import SIDE, DemoClassifier
from router.classify.drawing import LABELS, draw
from router.classify.heat import above_operating_point, look_of, spread
from router.classify.network import BLOCKS, CELL_STEP, DEMO, DENSENET, FIRST_CELL, RESNET
from router.classify.phantom import phantom_dicom
from router.classify.pixels import central_square, to_input
from router.classify.scoring import OperatingPoints, findings_of, logit_of
from router.core.findings import ClassifierIdentity, Prediction
from router.core.sight import Heat, Sight

#: Seeds that no phantom of training or of another exam has.
FRESH = 5_000_000
SIDES = {DEMO: 112, DENSENET: 96, RESNET: 96}


@cache
def demo() -> DemoClassifier:
    made = DemoClassifier(name="demo", settings=DemoClassifier.Settings())
    made.load()
    return made


# ---- the map is the network's


@pytest.mark.parametrize("architecture", [DEMO, DENSENET, RESNET])
def test_maps_of_both_runtimes_are_the_classifier_at_every_place_of_upstreams_last_features(architecture: str) -> None:
    torch = pytest.importorskip("torch")
    from router.classify.onnx_network import OnnxNetwork
    from router.classify.torch_network import TorchNetwork, build

    torch.manual_seed(3)
    tensors = {name: value.numpy() for name, value in build(architecture, 18).state_dict().items()}
    side = SIDES[architecture]
    images = np.random.default_rng(4).uniform(-1, 1, (2, 1, side, side)).astype(np.float32)
    ours = TorchNetwork(architecture, 18, tensors)
    module = ours.module
    with torch.inference_mode():
        x = torch.from_numpy(images)
        if architecture == RESNET:
            x = module.maxpool(module.relu(module.bn1(module.conv1(x))))
            features = module.layer4(module.layer3(module.layer2(module.layer1(x))))
            head = module.fc
        else:
            features = torch.nn.functional.relu(module.features(x))
            head = module.classifier
        expected = torch.nn.functional.conv2d(features, head.weight[:, :, None, None]).numpy()
        scores = module(torch.from_numpy(images)).numpy()
        bias = head.bias.numpy().copy()
    assert np.ptp(expected) > 0.01, "all alike: nothing was compared"
    for network in (ours, OnnxNetwork(architecture, 18, tensors)):
        logits, maps = network.logits_and_maps(images)
        np.testing.assert_allclose(maps, expected, atol=1e-4 * max(1, np.abs(expected).max()))
        np.testing.assert_allclose(logits, scores, atol=1e-4 * max(1, np.abs(scores).max()))
        np.testing.assert_allclose(maps.mean((2, 3)) + bias, logits, atol=1e-4 * max(1, np.abs(scores).max()))
    np.testing.assert_array_equal(ours.logits(images), scores)


@pytest.mark.parametrize("architecture", [DEMO, RESNET])
def test_cells_lie_where_their_receptive_fields_do(architecture: str) -> None:
    """By a network that only adds up: then the gradient of one cell is its receptive field, and its middle is known."""
    torch = pytest.importorskip("torch")
    from router.classify.torch_network import build

    module = build(architecture, 1).eval()
    for name, part in list(module.named_modules()):
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.constant_(part.weight, 1 / part.weight[0].numel())
        elif isinstance(part, torch.nn.MaxPool2d):
            pool = torch.nn.AvgPool2d(part.kernel_size, part.stride, part.padding)
            owner = module.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], pool)
    features = torch.nn.Sequential(*list(module.children())[:-2]) if architecture == RESNET else module.features
    image = torch.ones(1, 1, 32, 1024, requires_grad=True)
    cell = 16
    (field,) = torch.autograd.grad(features(image)[0, :, 0, cell].sum(), image)
    weights = field.abs().sum((0, 1, 2)).double().numpy()
    middle = (weights * np.arange(1024)).sum() / weights.sum()
    assert middle == pytest.approx(FIRST_CELL[architecture] + cell * CELL_STEP, abs=0.5)
    assert FIRST_CELL[DENSENET] == FIRST_CELL[DEMO], "the same transitions"
    assert len(BLOCKS[DENSENET]) == len(BLOCKS[DEMO])


def test_zero_is_the_operating_point_whatever_the_networks_own_zero_is() -> None:
    cells = np.array([[-9.0, -8.0], [-7.0, -4.0]], np.float32)
    moved = above_operating_point(cells, logit=-4.0, threshold=0.01)  # a positive finding of a published network
    assert moved.mean() == pytest.approx(-4.0 - logit_of(0.01), abs=1e-5)
    assert moved.max() > 0
    np.testing.assert_allclose(np.diff(moved.ravel()), np.diff(cells.ravel()), atol=1e-6)
    on_the_point = above_operating_point(cells, logit=logit_of(0.3), threshold=0.3)
    assert on_the_point.mean() == pytest.approx(0, abs=1e-5)


# ---- and lies where the network looked


class BrightnessNetwork:
    """Its map is how bright the input is in each cell: so where it is hottest is known."""

    def logits_and_maps(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        side = image.shape[-1]
        starts = [round(FIRST_CELL[DENSENET] + CELL_STEP * n) for n in range(side // 32)]
        cells = [[image[0, max(0, y - 15) : y + 17, max(0, x - 15) : x + 17].mean() for x in starts] for y in starts]
        maps = np.asarray(cells, np.float32)[None] / 100
        return maps.mean((1, 2)) + 20, maps


def bright_spot(rows: int, columns: int, x: float, y: float) -> Sight:
    """What the network above says of a dark image with one bright spot, through crop, resize and back."""
    ds = phantom_dicom(1, rows=rows, columns=columns)
    v, u = np.indices((rows, columns))
    radius = 0.04 * min(rows, columns)
    ds.PixelData = np.where((u - x) ** 2 + (v - y) ** 2 < radius**2, 4000, 40).astype(np.uint16).tobytes()
    values = ds.pixel_array
    logits, maps = BrightnessNetwork().logits_and_maps(to_input(ds, 224, values))
    points = OperatingPoints(labels=("Spot",), thresholds=(0.5,))
    findings, _ = findings_of(logits.tolist(), points)
    who = ClassifierIdentity(name="n", algorithm="a", version="1", manufacturer="m", weights_sha256="0", parameters={})
    look = look_of(
        ds,
        values,
        Prediction(classifier=who, findings=findings),
        logits=logits,
        maps=maps,
        points=points,
        architecture=DENSENET,
        side=224,
    )
    return look.sight()


@pytest.mark.parametrize(
    ("rows", "columns", "x", "y"),
    [
        (500, 500, 60, 90),
        (400, 1000, 320, 60),  # at the left edge of what was seen
        (400, 1000, 685, 350),  # at the right one
        (1100, 500, 440, 320),  # at the upper one
        (1100, 500, 70, 780),  # at the lower one
        (301, 450, 100, 250),
    ],
)
def test_the_map_is_hottest_over_a_spot_in_an_image_of_any_shape(rows: int, columns: int, x: float, y: float) -> None:
    sight = bright_spot(rows, columns, x, y)
    (heat,) = sight.heats
    height, width = sight.grey.shape
    assert width / height == pytest.approx(columns / rows, rel=0.01), "the aspect ratio is kept"
    cell = min(rows, columns) / 7  # in pixels of the image
    at_x, at_y = heat.hottest[0] * columns / width, heat.hottest[1] * rows / height
    assert abs(at_x - x) <= cell * 0.75
    assert abs(at_y - y) <= cell * 0.75
    # The picture is hottest there, too, and so is the spot in the picture.
    assert heat.values[round(heat.hottest[1]), round(heat.hottest[0])] == pytest.approx(heat.values.max(), rel=0.02)
    drawn_y, drawn_x = np.argwhere(sight.grey > 200).mean(axis=0)
    assert (drawn_x * columns / width, drawn_y * rows / height) == pytest.approx((x, y), abs=4)


def test_nothing_is_hot_or_cold_where_the_network_did_not_look() -> None:
    sight = bright_spot(400, 1000, 500, 200)
    seen = central_square(400, 1000)
    assert sight.seen == seen
    scale = sight.grey.shape[1] / 1000
    left, right = round(seen.left * scale), round((seen.left + seen.side) * scale)
    values = sight.heats[0].values
    assert not values[:, : left - 1].any()
    assert not values[:, right + 1 :].any()
    assert values[:, left + 2 : right - 2].any(axis=0).all()


def test_between_the_centres_of_cells_the_map_is_linear_and_beyond_them_it_ends() -> None:
    cells = np.arange(1, 8, dtype=np.float32)[None].repeat(7, 0)
    seen = central_square(224, 224)
    row = spread(cells, shape=(224, 224), image=(224, 224), seen=seen, side=224, first=14.0)[100]
    assert row[14] == pytest.approx(1)
    assert row[14 + 32 * 6] == pytest.approx(7)
    np.testing.assert_allclose(np.diff(row[14 : 14 + 32 * 6]), 1 / 32, atol=1e-5)
    np.testing.assert_allclose(row[:14], 1)
    # The demonstration's 3 cells leave the last quarter of their input to nobody.
    three = spread(
        np.ones((3, 3), np.float32),
        shape=(112, 112),
        image=(112, 112),
        seen=central_square(112, 112),
        side=112,
        first=14.0,
    )
    assert three[50, 78 + 15] == pytest.approx(1)
    assert three[50, 78 + 33] == 0


def _heat(sight: Sight, label: str) -> Heat | None:
    return next((heat for heat in sight.heats if heat.finding.label == label), None)


def _lesion(seed: int, drawn: list[bool]) -> np.ndarray:
    """Where a phantom differs from the same one without the finding: 256 x 256, in blocks of 8, clear of noise."""
    difference = draw(seed, 256, drawn).pixels - draw(seed, 256, [False] * 4).pixels
    blocks = np.abs(difference - np.median(difference)).reshape(32, 8, 32, 8).mean((1, 3))
    return np.kron(blocks >= blocks.max() / 2, np.ones((8, 8), bool))


@pytest.mark.parametrize(("label", "reach_cells"), [(label, 1.0 if label == "Nodule" else 0.5) for label in LABELS])
def test_the_demonstrations_map_is_hottest_over_what_was_drawn(label: str, reach_cells: float) -> None:
    """Its cells are as wide as a lung: a nodule between two of them may be ascribed to the neighbour."""
    drawn = [name == label for name in LABELS]
    over, mirrored = 0, 0
    for seed in range(FRESH, FRESH + 8):
        heat = _heat(demo().look(phantom_dicom(seed, rows=256, columns=256, findings=drawn)).sight(), label)
        assert heat is not None
        x, y = (place / 4 for place in heat.hottest)
        reach = reach_cells * CELL_STEP * 256 / SIDE
        rows = slice(max(0, int(y - reach)), int(y + reach))
        lesion = _lesion(seed, drawn)
        over += lesion[rows, max(0, int(x - reach)) : int(x + reach)].any()
        mirrored += lesion[rows, max(0, int(256 - x - reach)) : int(256 - x + reach)].any()
    assert over == 8
    # A heart is in the middle, whichever way round.
    assert mirrored <= 2 or label == "Cardiomegaly", "any place would do: nothing was compared"


# ---- what it costs and what it leaves out


def test_only_what_is_present_has_heat_and_the_strongest_comes_first() -> None:
    nothing = demo().look(phantom_dicom(101, rows=256, columns=256, findings=[False] * 4))
    assert [f for f in nothing.prediction.findings if f.present] == []
    assert nothing.sight().heats == ()
    two = demo().look(phantom_dicom(106, rows=256, columns=256, findings=[True, False, True, False]))
    present = sorted((f for f in two.prediction.findings if f.present), key=lambda f: -f.score)
    assert [heat.finding for heat in two.sight().heats] == present[:3]


def test_a_look_is_the_same_prediction_and_no_second_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = demo()._ready()
    passes = []
    run = network.logits_and_maps
    monkeypatch.setattr(network, "logits_and_maps", lambda images: passes.append(1) or run(images))
    ds = phantom_dicom(104, rows=256, columns=300)
    look = demo().look(ds)
    monkeypatch.setattr("router.classify.examine.stored_values", lambda _: pytest.fail("decoded a second time"))
    assert look.sight().heats
    assert len(passes) == 1
    monkeypatch.undo()
    assert demo().predict_dataset(ds) == look.prediction
