"""TorchXRayVision's classifier gives upstream's numbers from upstream's files, or says in words why it cannot."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import pytest
from pydantic import ValidationError

from router.classify.network import RESNET
from router.classify.phantom import phantom_dicom
from router.classify.published import PUBLISHED
from router.classify.torch_network import build
from router.classify.xrv import XrvClassifier
from router.core.findings import outcome_from_json, outcome_to_json
from router.errors import NotForThisClassifier, UnreadablePixels, WeightsUnavailable

torch = pytest.importorskip("torch")

ALL = PUBLISHED["densenet121-res224-all"]


@pytest.fixture(scope="module")
def upstream():
    """Upstream's own network with random weights whose outputs lie around the operating points, as trained ones do."""
    xrv = pytest.importorskip("torchxrayvision")
    torch.manual_seed(3)
    network = xrv.models.DenseNet(num_classes=18)
    with torch.no_grad():
        network.features.conv0.weight.mul_(1 / 512)
        network.classifier.weight.mul_(3)
        network.classifier.bias.copy_(torch.logit(torch.tensor(ALL.op_threshs)))
    return network.eval()


@pytest.fixture(scope="module", params=[("zip", "onnx"), ("legacy", "torch")], ids="-".join)
def loaded(request, upstream, tmp_path_factory: pytest.TempPathFactory) -> XrvClassifier:
    kind, runtime = request.param
    folder = tmp_path_factory.mktemp("weights")
    path = folder / ALL.file_name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(upstream, path, _use_new_zipfile_serialization=kind == "zip")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    settings = XrvClassifier.Settings(weights=ALL.name, folder=folder, fetch=False, sha256=digest, runtime=runtime)
    made = XrvClassifier(name="cxr", settings=settings)
    made.check()
    made.load()
    return made


def _theirs(upstream, path: Path) -> dict[str, float]:
    import torchxrayvision as xrv

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        x = xrv.utils.read_xray_dcm(path)[None]
        x = xrv.datasets.XRayResizer(224)(xrv.datasets.XRayCenterCrop()(x))
        raw = torch.sigmoid(upstream(torch.from_numpy(x)[None]))
        scores = xrv.models.op_norm(raw, torch.tensor(ALL.op_threshs))[0]
    return dict(zip(ALL.labels, scores.tolist(), strict=True))


@pytest.mark.parametrize(("rows", "columns", "photometric"), [(300, 301, "MONOCHROME2"), (512, 400, "MONOCHROME1")])
def test_scores_are_upstreams(
    loaded: XrvClassifier, upstream, tmp_path: Path, rows: int, columns: int, photometric: str
) -> None:
    ds = phantom_dicom(20, rows=rows, columns=columns, photometric=photometric)
    ds.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    expected = _theirs(upstream, tmp_path / "image.dcm")
    found = {f.label: f.score for f in loaded.predict_dataset(ds).findings}
    assert found == pytest.approx(expected, abs=1e-4)
    assert max(found.values()) - min(found.values()) > 0.05, "all alike: nothing was compared"


def test_scores_of_real_films_are_upstreams(loaded: XrvClassifier, upstream, shared_data: Path) -> None:
    from pydicom import dcmread

    # Two decoders of a lossy JPEG may differ by a grey level, and pydicom's first choice is not ours.
    for name, tolerance in (("RG1_UNCR", 1e-4), ("SIIM_NIH_CR_JPEGbaseline", 1e-3), ("NIH_google_DX_ILE", 1e-4)):
        path = shared_data / f"dicom/chest/{name}.dcm"
        found = {f.label: f.score for f in loaded.predict_dataset(dcmread(path, force=True)).findings}
        assert found == pytest.approx(_theirs(upstream, path), abs=tolerance), name


def test_a_prediction_names_its_weights_and_survives_the_ledger(loaded: XrvClassifier) -> None:
    prediction = loaded.predict_dataset(phantom_dicom(21, rows=128, columns=128))
    who = prediction.classifier
    assert (who.algorithm, who.name, who.demonstration) == (ALL.name, "cxr", False)
    assert who.version == "torchxrayvision 1.5.7"
    assert len(who.weights_sha256) == 64
    assert set(who.parameters) == {"input", "normalisation", "operating_points", "operating_points_sha256"}
    assert outcome_from_json(json.loads(json.dumps(outcome_to_json(prediction)))) == prediction


def test_refusals_come_out_as_they_are(loaded: XrvClassifier) -> None:
    ds = phantom_dicom(22, rows=128, columns=128)
    ds.ViewPosition = "LL"
    with pytest.raises(NotForThisClassifier):
        loaded.predict_dataset(ds)
    ds.ViewPosition, ds.PixelData = "PA", b"\0\0"
    with pytest.raises(UnreadablePixels):
        loaded.predict_dataset(ds)


def test_a_label_that_was_never_trained_is_no_score(upstream, tmp_path: Path) -> None:
    torch.save(upstream, tmp_path / "densenet121-res224-rsna.pt")
    digest = hashlib.sha256((tmp_path / "densenet121-res224-rsna.pt").read_bytes()).hexdigest()
    settings = XrvClassifier.Settings(weights=str(tmp_path / "densenet121-res224-rsna.pt"), sha256=digest)
    classifier = XrvClassifier(name="cxr", settings=settings)
    classifier.load()
    found = classifier.predict_dataset(phantom_dicom(23, rows=128, columns=128)).findings
    assert [f.label for f in found] == ["Pneumonia", "Lung Opacity"]


def test_the_resnet_runs_at_its_size_with_the_second_sigmoid_undone(tmp_path: Path) -> None:

    torch.manual_seed(4)
    torch.save(build(RESNET, 18).state_dict(), tmp_path / "resnet50-res512-all.pt")
    settings = XrvClassifier.Settings(weights="resnet50-res512-all", folder=tmp_path, fetch=False)
    classifier = XrvClassifier(name="cxr", settings=settings)
    classifier.load()
    prediction = classifier.predict_dataset(phantom_dicom(24, rows=512, columns=512))
    assert len(prediction.findings) == 16
    assert prediction.not_trained == ("Lung Lesion", "Enlarged Cardiomediastinum")
    assert "undone" in prediction.classifier.parameters["operating_points"]


def test_missing_weights_are_one_line_and_nothing_is_fetched_when_it_may_not(tmp_path: Path) -> None:
    classifier = XrvClassifier(name="cxr", settings=XrvClassifier.Settings(folder=tmp_path, fetch=False))
    for attempt in (classifier.check, classifier.load):
        with pytest.raises(WeightsUnavailable, match="router models fetch densenet121-res224-all") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_a_file_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    torch.save({"classifier.weight": torch.zeros(18, 3)}, tmp_path / "densenet121-res224-nih.pt")
    settings = XrvClassifier.Settings(weights=str(tmp_path / "densenet121-res224-nih.pt"))
    with pytest.raises(WeightsUnavailable, match="not those of a densenet121"):
        XrvClassifier(name="cxr", settings=settings).load()


@pytest.mark.parametrize(
    ("key", "value"),
    [("weights", "densenet"), ("runtime", "tpu"), ("sha256", "abc"), ("speed", 1)],
)
def test_wrong_settings_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        XrvClassifier.Settings.model_validate({key: value})


def test_settings_survive_the_way_to_the_child() -> None:
    settings = XrvClassifier.Settings(folder=Path("a/b"), modalities=("CR",), mirror="https://example.org/w")
    again = XrvClassifier.Settings.model_validate(json.loads(settings.model_dump_json()), strict=False)
    assert again == settings
