"""The networks in ONNX Runtime are torchxrayvision's own, run without torch, and refuse weights that are not theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from router.classify import network
from router.classify.demo import DemoClassifier
from router.classify.network import DEMO, DENSENET, RESNET, open_network
from router.classify.onnx_file import encode
from router.classify.onnx_graph import graph_of
from router.classify.onnx_network import OnnxNetwork
from router.classify.phantom import phantom_dicom
from router.classify.scoring import sigmoid
from router.classify.tensor_file import read_safetensors
from router.classify.xrv import XrvClassifier
from router.core.childproto import Request, encode_request
from router.core.instance import SopInstance
from router.errors import WeightsUnavailable

LABELS = 18
#: Sides that give class activation maps of 3 x 3 pixels and more, and are quick.
SIDES = {DEMO: 112, DENSENET: 112, RESNET: 96}


@cache
def _tensors(architecture: str) -> Mapping[str, np.ndarray]:
    """Random weights with batch statistics as if trained, and outputs of the size that trained networks have."""
    torch = pytest.importorskip("torch")
    from router.classify.torch_network import build

    torch.manual_seed(5)
    module = build(architecture, LABELS)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.2)
                part.running_mean.normal_(0, 0.2)
                part.running_var.uniform_(0.5, 1.5)
        (module.conv1 if architecture == RESNET else module.features.conv0).weight.mul_(1 / 512)
        (module.fc if architecture == RESNET else module.classifier).bias.normal_()
    tensors = {name: value.numpy() for name, value in module.state_dict().items()}
    from router.classify.torch_network import TorchNetwork

    head = "fc" if architecture == RESNET else "classifier"
    spread = np.abs(TorchNetwork(architecture, LABELS, tensors).logits(_images(architecture))).max()
    return {name: value * (4 / spread) if name.startswith(head) else value for name, value in tensors.items()}


def _images(architecture: str) -> np.ndarray:
    side = SIDES[architecture]
    return np.random.default_rng(6).uniform(-1024, 1024, (3, 1, side, side)).astype(np.float32)


@pytest.fixture(scope="module", params=[DEMO, DENSENET, RESNET])
def pair(request):
    """Architecture, its tensors, and the network in ONNX Runtime."""
    tensors = _tensors(request.param)
    return request.param, tensors, OnnxNetwork(request.param, LABELS, tensors)


def test_scores_are_those_of_upstreams_network_in_torch(pair) -> None:
    from router.classify.torch_network import TorchNetwork

    architecture, tensors, ours = pair
    images = _images(architecture)
    theirs = TorchNetwork(architecture, LABELS, tensors).logits(images)
    assert np.ptp(theirs) > 1, "all alike: nothing was compared"
    np.testing.assert_allclose(ours.logits(images), theirs, atol=1e-4)
    each = np.concatenate([ours.logits(image[None]) for image in images])
    np.testing.assert_allclose(each, theirs, atol=1e-4)


def test_class_activation_maps_give_the_logits_back(pair) -> None:
    architecture, tensors, ours = pair
    bias = tensors["fc.bias" if architecture == RESNET else "classifier.bias"]
    logits, maps = ours.logits_and_maps(_images(architecture))
    assert maps.shape[:2] == (3, LABELS)
    assert min(maps.shape[2:]) >= 3
    np.testing.assert_allclose(maps.mean((2, 3)) + bias, logits, atol=1e-5)
    np.testing.assert_array_equal(logits, ours.logits(_images(architecture)))


def test_class_activation_maps_are_the_classifier_at_every_place_of_upstreams_features() -> None:
    torch = pytest.importorskip("torch")
    from router.classify.torch_network import TorchNetwork

    tensors, images = _tensors(DENSENET), _images(DENSENET)
    module = TorchNetwork(DENSENET, LABELS, tensors).module
    with torch.inference_mode():
        features = torch.relu(module.features(torch.from_numpy(images)))
        expected = torch.einsum("kc,nchw->nkhw", module.classifier.weight, features).numpy()
    _, maps = OnnxNetwork(DENSENET, LABELS, tensors).logits_and_maps(images)
    np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())


def test_the_graph_is_valid_onnx_and_always_the_same(pair) -> None:
    onnx = pytest.importorskip("onnx")
    architecture, tensors, _ = pair
    graph = graph_of(architecture, LABELS, tensors)
    written = encode(graph)
    assert written == encode(graph_of(architecture, LABELS, dict(reversed(tensors.items()))))
    model = onnx.load_model_from_string(written)
    for place, (name, values) in zip(model.graph.initializer, graph.constants.items(), strict=True):
        assert (place.name, tuple(place.dims)) == (name, values.shape)
        place.CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(model, full_check=True)
    assert {value.name for value in model.graph.output} == {"logits", "maps"}


def test_normalisations_are_folded_and_transitions_pool_first(pair) -> None:
    architecture, tensors, _ = pair
    operators = [node.operator for node in graph_of(architecture, LABELS, tensors).nodes]
    norms = sum(name.endswith("running_var") for name in tensors)
    layers = sum(network.BLOCKS[architecture])
    # What stands before a convolution cannot be folded into it: one in every layer, the transitions', the last.
    assert operators.count("BatchNormalization") == (0 if architecture == RESNET else layers + 3 + 1)
    assert norms > operators.count("BatchNormalization")
    for at in (n for n, operator in enumerate(operators) if operator == "AveragePool"):
        assert operators[at - 1 : at + 2] == ["Relu", "AveragePool", "Conv"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.pop("features.transition1.conv.weight"), "no tensor features.transition1.conv.weight"),
        (lambda t: t.update({"features.more": np.zeros(3)}), "1 tensors too many, such as features.more"),
        (lambda t: t.update({"features.norm5.weight": np.zeros(3)}), "features.norm5 does not fit"),
        (lambda t: t.update({"features.conv0.weight": np.zeros((24, 3, 7, 7))}), "behind 1 channels"),
        (lambda t: t.update({"classifier.bias": np.zeros(4)}), "outputs for 18 labels"),
    ],
    ids=["missing", "extra", "norm", "convolution", "outputs"],
)
def test_tensors_of_another_network_are_refused_in_words(change, why: str) -> None:
    tensors = dict(_tensors(DEMO))
    change(tensors)
    with pytest.raises(WeightsUnavailable, match=f"not those of a densenet-demo: .*{why}"):
        OnnxNetwork(DEMO, LABELS, tensors)


# ---- which runtime


@pytest.mark.parametrize(
    ("asked", "here", "used"),
    [
        ("auto", {"onnxruntime", "torchxrayvision"}, "onnx"),
        ("auto", {"onnxruntime"}, "onnx"),
        ("auto", {"torchxrayvision"}, "torch"),
        ("torch", {"onnxruntime", "torchxrayvision"}, "torch"),
    ],
)
def test_the_runtime_is_what_was_asked_for_or_onnx_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, asked: network.Runtime, here: set[str], used: str
) -> None:
    monkeypatch.setattr(network, "find_spec", lambda name: name if name in here else None)
    assert network.installed(asked) == used


@pytest.mark.parametrize("classifier", [XrvClassifier, DemoClassifier])
@pytest.mark.parametrize(
    ("asked", "told"), [("onnx", "needs onnxruntime,"), ("auto", "onnxruntime or torchxrayvision")]
)
def test_a_runtime_that_is_not_installed_is_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, classifier, asked: str, told: str
) -> None:
    monkeypatch.setattr(network, "find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=told):
        classifier.Settings.model_validate({} if asked == "auto" else {"runtime": asked})


def test_both_runtimes_give_the_demonstrations_scores_and_one_identity() -> None:
    pytest.importorskip("torchxrayvision")
    ds = phantom_dicom(31, rows=128, columns=128)
    onnx, torch = (_loaded(runtime).predict_dataset(ds) for runtime in ("onnx", "torch"))
    assert onnx.classifier == torch.classifier
    assert [f.score for f in onnx.findings] == pytest.approx([f.score for f in torch.findings], abs=1e-4)
    assert type(_loaded("auto")._ready()[0]) is OnnxNetwork


def test_the_demonstrations_weights_need_no_torch_to_be_read() -> None:
    tensors = read_safetensors(Path(network.__file__).with_name("demo.safetensors"))
    image = np.zeros((1, 1, 112, 112), np.float32)
    assert all(
        0 <= sigmoid(float(x)) <= 1
        for x in open_network(DEMO, 4, tensors, network.Computing(runtime="onnx")).logits(image)[0]
    )


def _loaded(runtime: str) -> DemoClassifier:
    settings = DemoClassifier.Settings.model_validate({"runtime": runtime})
    classifier = DemoClassifier(name="demo", settings=settings)
    classifier.load()
    return classifier


# ---- what the child process brings into memory

#: Talks to `router.child` over its socket from another thread of the same process, then says what that has loaded.
_CHILD = """
import json, socket, sys, threading
from multiprocessing.connection import Connection

image, request, table = sys.argv[1:]
ours, theirs = socket.socketpair()
connection = Connection(ours.detach())
told = []

def talk():
    told.append(json.loads(connection.recv_bytes()))
    connection.send_bytes(request.encode())
    told.append(json.loads(connection.recv_bytes()))
    told.append(connection.recv_bytes()[128:132].decode())
    connection.close()

thread = threading.Thread(target=talk)
thread.start()
from router import child
child.main([str(theirs.detach()), table])
thread.join()
print(json.dumps([told, [name for name in sys.modules if "." not in name]]))
"""


@pytest.fixture(scope="module")
def loaded_by_the_child(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Packages in memory after a child with ONNX Runtime has classified an image and made its SR."""
    path = tmp_path_factory.mktemp("child") / "image.dcm"
    ds = phantom_dicom(32, rows=128, columns=128)
    ds.save_as(path, enforce_file_format=True)
    instance = SopInstance(
        sop_instance_uid=ds.SOPInstanceUID,
        sop_class_uid=ds.SOPClassUID,
        study_instance_uid=ds.StudyInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        digest="0" * 64,
        byte_count=path.stat().st_size,
        spool_key="key",
        received_at=datetime.now(UTC),
    )
    request = encode_request(Request(classifier="demo", instance=instance, path=path, results=("sr",))).decode()
    table = {"name": "demo", "type": "demo", "options": {"runtime": "onnx"}, "memory_byte_count_max": 2**32}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, path, request, json.dumps(table)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told, modules = json.loads(done.stdout)
    assert told[0]["ready"] is True
    assert told[2] == "DICM", told[1]
    return set(modules)


def test_a_child_with_onnx_runtime_holds_no_torch(loaded_by_the_child: set[str]) -> None:
    heavy = {
        "torch",
        "torchvision",
        "torchxrayvision",
        "skimage",
        "scipy",
        "pandas",
        "onnx",
        "sqlalchemy",
        "pynetdicom",
    }
    assert heavy & loaded_by_the_child == set()
    assert "onnxruntime" in loaded_by_the_child


def test_a_child_with_onnx_runtime_holds_no_highdicom(loaded_by_the_child: set[str]) -> None:
    assert "highdicom" not in loaded_by_the_child
