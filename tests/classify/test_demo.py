"""The demonstration classifier: upstream's DenseNet class, good at drawings in every size, and honest about what it is."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from router.classify import demo as demo_module
from router.classify.demo import WEIGHTS, DemoClassifier
from router.classify.drawing import LABELS, draw
from router.classify.phantom import phantom_dicom
from router.classify.train_demo import CALIBRATION_FROM, EXAM_FROM, TRAINING_COUNT, auc, exam
from router.errors import NotForThisClassifier, WeightsUnavailable

#: Seeds that neither training nor calibration nor the exam in docs/models/demo.md has seen.
FRESH = 3_000_000


@pytest.fixture(scope="module")
def classifier() -> DemoClassifier:
    made = DemoClassifier(name="demo", settings=DemoClassifier.Settings())
    made.load()
    return made


@pytest.mark.parametrize(
    "picture",
    [
        {"rows": 128, "columns": 128, "bits_stored": 8},
        {"rows": 256, "columns": 300, "bits_stored": 10, "photometric": "MONOCHROME1"},
        {"rows": 600, "columns": 512, "modality": "DX"},
    ],
    ids=["128", "256", "512"],
)
def test_findings_drawn_into_fresh_phantoms_are_found(classifier: DemoClassifier, picture: dict[str, object]) -> None:
    first = FRESH + 1000 * int(str(picture["rows"]))
    found = exam(classifier, range(first, first + 40), **picture)
    assert set(found) == set(LABELS)
    assert {label: area for label, (area, _, _) in found.items() if area < 0.95} == {}
    # The operating points hold at this size too.
    assert min(min(sensitivity, specificity) for _, sensitivity, specificity in found.values()) > 0.75


def test_held_out_phantoms_were_not_trained_on() -> None:
    assert TRAINING_COUNT < CALIBRATION_FROM < EXAM_FROM < FRESH


def test_the_network_is_upstreams_densenet_class_and_small() -> None:
    xrv = pytest.importorskip("torchxrayvision")
    made = DemoClassifier(name="demo", settings=DemoClassifier.Settings(runtime="torch"))
    made.load()
    network, _ = made._ready()
    assert type(network.module) is xrv.models.DenseNet
    assert sum(p.numel() for p in network.module.parameters()) < 100_000
    assert WEIGHTS.stat().st_size < 400_000


def test_every_prediction_says_that_it_is_a_demonstration(classifier: DemoClassifier) -> None:
    prediction = classifier.predict_dataset(phantom_dicom(1, rows=128, columns=128))
    who = prediction.classifier
    assert who.demonstration
    assert "DEMONSTRATION" in who.algorithm
    assert "demonstration" in who.manufacturer
    assert any("No clinical meaning" in note for note in prediction.notes)
    assert tuple(finding.label for finding in prediction.findings) == LABELS
    assert prediction.not_trained == ()


def test_the_same_image_gives_the_same_prediction(classifier: DemoClassifier) -> None:
    ds = phantom_dicom(2, rows=150, columns=128)
    assert classifier.predict_dataset(ds) == classifier.predict_dataset(ds)


def test_the_gate_stands_in_front(classifier: DemoClassifier) -> None:
    ds = phantom_dicom(3, rows=128, columns=128)
    ds.BodyPartExamined = "HAND"
    with pytest.raises(NotForThisClassifier):
        classifier.predict_dataset(ds)


def test_missing_weights_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(demo_module, "WEIGHTS", tmp_path / "demo.safetensors")
    with pytest.raises(WeightsUnavailable, match="train_demo"):
        DemoClassifier(name="demo", settings=DemoClassifier.Settings()).check()


def test_the_weights_file_says_how_it_was_made() -> None:
    from safetensors import safe_open

    with safe_open(WEIGHTS, framework="numpy") as file:
        metadata = file.metadata()
    assert "DEMONSTRATION" in metadata["about"]
    assert tuple(json.loads(metadata["labels"])) == LABELS
    assert len(json.loads(metadata["op_threshs"])) == len(LABELS)
    assert json.loads(metadata["training"])["phantoms"] == TRAINING_COUNT


def test_modules_that_the_receiving_process_may_load_bring_no_runtime() -> None:
    modules = ", ".join(
        f"router.classify.{name}" for name in ("demo", "xrv", "step", "gate", "phantom", "weights", "verify")
    )
    heavy = {"torch", "torchxrayvision", "onnxruntime"}
    code = f"import sys, {modules}; print([m for m in sys.modules if m in {heavy}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- phantoms


def test_a_seed_is_one_chest_at_every_size() -> None:
    small, large = draw(5, 64), draw(5, 256)
    assert small.findings == large.findings
    shrunk = large.pixels.reshape(64, 4, 64, 4).mean((1, 3))
    assert np.corrcoef(small.pixels.ravel(), shrunk.ravel())[0, 1] > 0.98


def test_pixels_are_grey_levels_and_depend_on_the_seed_alone() -> None:
    one = draw(6, 100)
    assert one.pixels.dtype == np.float32
    assert 0 <= one.pixels.min() < one.pixels.max() <= 1
    np.testing.assert_array_equal(one.pixels, draw(6, 100).pixels)
    assert not np.array_equal(one.pixels, draw(7, 100).pixels)


def test_each_drawn_finding_changes_the_picture() -> None:
    nothing = draw(8, 128, [False] * 4).pixels
    for n in range(4):
        changed = draw(8, 128, [i == n for i in range(4)]).pixels
        assert np.abs(changed - nothing).max() > 0.1


def test_both_polarities_hold_the_same_picture() -> None:
    two = phantom_dicom(9, rows=128, columns=100)
    one = phantom_dicom(9, rows=128, columns=100, photometric="MONOCHROME1")
    np.testing.assert_array_equal(4095 - one.pixel_array, two.pixel_array)
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert one.StudyInstanceUID == two.StudyInstanceUID


def test_uids_are_valid_and_fixed_by_the_arguments() -> None:
    one, again = phantom_dicom(10, rows=64, columns=64), phantom_dicom(10, rows=64, columns=64)
    later = phantom_dicom(10, rows=64, columns=64, at=datetime(2025, 1, 1))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert UID(one[keyword].value).is_valid
        assert one[keyword].value == again[keyword].value != later[keyword].value


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("modality", "bits"), [("CR", 8), ("CR", 12), ("DX", 12), ("DX", 16)])
def test_phantoms_are_valid_instances(tool, tmp_path, modality: str, bits: int, photometric: str) -> None:
    ds = phantom_dicom(11, rows=65, columns=81, modality=modality, bits_stored=bits, photometric=photometric)
    ds.save_as(tmp_path / "phantom.dcm", enforce_file_format=True)
    done = subprocess.run([tool("dciodvfy"), tmp_path / "phantom.dcm"], capture_output=True, text=True, check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))] == []


def test_phantoms_survive_the_way_through_a_file() -> None:
    encoded = io.BytesIO()
    ds = phantom_dicom(12, rows=64, columns=64)
    ds.save_as(encoded, enforce_file_format=True)
    encoded.seek(0)
    assert dcmread(encoded).PatientName == "DEMO^PHANTOM"


# ---- the exam's own arithmetic


def test_auc_is_the_chance_of_a_right_order() -> None:
    assert auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75
    assert auc([1, 1, 1, 1], [False, True, False, True]) == 0.5
    assert auc([0, 1], [True, False]) == 0.0
