"""What changes scores is used only after its changes were measured here; a GPU that cannot be used costs one line, not the node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from router.classify import network, precision
from router.classify.network import DEMO, Computing, open_network
from router.classify.phantom import phantom_dicom
from router.classify.torch_network import build
from router.classify.weights import Weights, from_file
from router.classify.xrv import XrvClassifier
from router.cli import cli
from router.errors import ConfigError, WeightsUnavailable
from router.settings import parse
from tests.classify import own

torch = pytest.importorskip("torch")
BF16 = Computing(runtime="openvino", device="cpu", precision="bf16")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return from_file(own.write(tmp_path_factory.mktemp("own")))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(4)
    return [(400 * random.standard_normal((1, 64, 64))).astype(np.float32) for _ in range(10)]


@pytest.fixture(scope="module")
def verdict(weights: Weights, images: list[np.ndarray[Any, Any]]) -> precision.Verdict:
    return precision.measure(weights, images, BF16, bound=0.1)


@pytest.fixture
def measured(weights: Weights, verdict: precision.Verdict, tmp_path: Path) -> tuple[Weights, Path]:
    """Weights with a verdict beside them that accepts, and where it lies."""
    path = tmp_path / weights.path.name
    path.symlink_to(weights.path)
    path.with_suffix(".toml").symlink_to(weights.path.with_suffix(".toml"))
    here = replace(weights, path=path)
    return here, precision.record(verdict, here)


def _classifier(path: Path, **more: Any) -> XrvClassifier:
    options = {"weights": str(path), "runtime": "openvino", "device": "cpu", "precision": "bf16", **more}
    return XrvClassifier(name="ours", settings=XrvClassifier.Settings.model_validate(options))


# ---- computed by


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torch"])
def test_every_runtime_gives_the_same_scores_and_maps_in_single_precision(
    weights: Weights, images: list[np.ndarray[Any, Any]], runtime: network.Runtime
) -> None:
    outputs = len(weights.points.labels)
    reference = open_network(weights.architecture, outputs, weights.tensors(), Computing(runtime="torch"))
    tried = open_network(weights.architecture, outputs, weights.tensors(), Computing(runtime=runtime))
    assert tried.computing == Computing(runtime=runtime, device="cpu", precision="fp32")
    batch = np.stack(images)
    for theirs, ours in zip(reference.logits_and_maps(batch), tried.logits_and_maps(batch), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1.0, float(np.abs(theirs).max())))


def test_several_images_at_once_score_as_one_by_one(weights: Weights, images: list[np.ndarray[Any, Any]]) -> None:
    made = open_network(weights.architecture, len(weights.points.labels), weights.tensors())
    np.testing.assert_allclose(
        made.logits(np.stack(images)), np.concatenate([made.logits(image[None]) for image in images]), atol=1e-4
    )


# ---- a GPU that is there and cannot be used


@pytest.fixture
def tensors() -> dict[str, Any]:
    torch.manual_seed(1)
    return {name: value.numpy() for name, value in build(DEMO, 4).state_dict().items()}


def test_a_gpu_that_no_runtime_can_use_costs_one_line_and_the_processor_computes(
    tensors: dict[str, Any], monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, Mapping[str, object]]]
) -> None:
    monkeypatch.setattr(network, "gpu_present", lambda: True)
    made = open_network(DEMO, 4, tensors, Computing(device="auto"))
    assert made.computing == Computing(runtime="onnx", device="cpu")
    [(event, fields)] = told
    assert event == "classify.gpu_unusable"
    reason = str(fields["reason"])
    assert "onnx: " in reason
    assert "torch: " in reason
    assert "\n" not in reason


def test_without_a_gpu_nothing_large_is_imported_to_look_for_one(
    tensors: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "gpu_present", lambda: False)
    monkeypatch.setattr(network, "_with_gpu", lambda _: pytest.fail("looked for"))
    assert open_network(DEMO, 4, tensors, Computing(device="auto")).computing.device == "cpu"


def test_a_gpu_that_is_asked_for_by_name_and_is_not_there_is_an_error(tensors: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match='device: "cuda" cannot be had: onnx: RuntimeError'):
        open_network(DEMO, 4, tensors, Computing(runtime="onnx", device="cuda"))


class _Session:
    """ONNX Runtime's, as it behaves when its CUDA libraries can or cannot be loaded."""

    chosen = "CUDAExecutionProvider"
    asked: list[Any]

    def __init__(self, _model: bytes, _options: object, providers: list[Any]) -> None:
        type(self).asked = providers

    def get_providers(self) -> list[str]:
        return [self.chosen, "CPUExecutionProvider"]

    def run(self, outputs: list[str], given: dict[str, Any]) -> list[Any]:
        count = len(next(iter(given.values())))
        return [np.zeros((count, 4), np.float32), np.zeros((count, 4, 2, 2), np.float32)][: len(outputs)]


def test_a_gpu_is_used_without_the_rounding_that_nobody_asked_for(
    tensors: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(network, "gpu_present", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Session)
    assert open_network(DEMO, 4, tensors, Computing(device="auto")).computing == Computing(
        runtime="onnx", device="cuda"
    )
    assert _Session.asked[0][0] == "CUDAExecutionProvider"
    assert _Session.asked[0][1]["use_tf32"] == "0"


def test_onnx_runtime_that_silently_took_the_processor_is_noticed(
    tensors: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", type("Silent", (_Session,), {"chosen": "CPUExecutionProvider"})
    )
    with pytest.raises(ConfigError, match="ONNX Runtime took the processor"):
        open_network(DEMO, 4, tensors, Computing(runtime="onnx", device="cuda"))


# ---- reduced precision


def test_a_reduced_precision_is_refused_without_a_verdict_and_told_how_to_get_one(weights: Weights) -> None:
    for attempt in (_classifier(weights.path).check, _classifier(weights.path).load):
        with pytest.raises(WeightsUnavailable, match=r"router models verify .* --precision bf16 --runtime openvino"):
            attempt()


def test_with_a_verdict_it_computes_and_is_another_classifier(measured: tuple[Weights, Path]) -> None:
    here, _ = measured
    found = {}
    for kind in ("fp32", "bf16"):
        classifier = _classifier(here.path, precision=kind)
        classifier.check()
        classifier.load()
        found[kind] = classifier.predict_dataset(phantom_dicom(5, rows=96, columns=96))
    plain, reduced = found["fp32"].classifier.parameters, found["bf16"].classifier.parameters
    assert "precision" not in plain, "single precision is the same in every runtime, as it always was"
    assert reduced == {**plain, "precision": "openvino on cpu in bf16"}
    scores = {kind: [f.score for f in one.findings] for kind, one in found.items()}
    assert scores["bf16"] == pytest.approx(scores["fp32"], abs=0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights_sha256": "0" * 64},
        {"operating_points_sha256": "0" * 64},
        {"runtime": "torch"},
        {"runtime_version": "0.1"},
        {"device": "cuda"},
        {"precision": "fp16"},
        {"accepted": False},
        {"difference_max": 0.2},
        {"bound": 0.9, "difference_max": 0.3},
        {"speed": 1},
        None,
    ],
)
def test_a_verdict_about_something_else_or_against_it_does_not_count(
    measured: tuple[Weights, Path], changes: dict[str, Any] | None
) -> None:
    here, path = measured
    precision.require(here, BF16)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}) if changes else "{")
    with pytest.raises(WeightsUnavailable, match="has not been accepted"):
        precision.require(here, BF16)


def test_scores_that_move_too_far_are_refused_and_the_refusal_is_kept(
    weights: Weights, images: list[np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    here = replace(weights, path=tmp_path / "w.safetensors")
    here.path.write_bytes(weights.path.read_bytes())
    verdict = precision.measure(here, images, BF16, bound=1e-9)
    assert verdict.difference_max > 1e-9, "bfloat16 changes nothing here: this test proves nothing"
    assert not verdict.accepted
    precision.record(verdict, here)
    with pytest.raises(WeightsUnavailable, match="scores moved by up to"):
        precision.require(here, BF16)


def test_too_few_images_and_too_wide_bounds_are_no_measurement(
    weights: Weights, images: list[np.ndarray[Any, Any]]
) -> None:
    with pytest.raises(WeightsUnavailable, match="say too little"):
        precision.measure(weights, images[:9], BF16)
    with pytest.raises(ConfigError, match="bound"):
        precision.measure(weights, images, BF16, bound=0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16"},
        {"precision": "bf16", "runtime": "onnx", "device": "cpu"},
        {"precision": "bf16", "runtime": "openvino"},
        {"precision": "fp16", "runtime": "torch", "device": "cpu"},
    ],
)
def test_a_precision_that_nothing_offers_is_refused_with_the_file(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="needs runtime and device said"):
        parse({"classifiers": {"cxr": {"type": "xrv", **options}}})
    with pytest.raises(ValidationError):
        XrvClassifier.Settings.model_validate({"precision": "int8", "runtime": "openvino", "device": "cpu"})


def test_the_command_measures_real_images_and_says_what_it_found(
    measured: tuple[Weights, Path], tmp_path: Path
) -> None:
    here, path = measured
    path.unlink()
    (tmp_path / "images").mkdir()
    for seed in range(11):
        image = phantom_dicom(seed, rows=96, columns=96)
        image.save_as(tmp_path / f"images/{seed}.dcm", enforce_file_format=True)
    (tmp_path / "images/notes.txt").write_text("no image")
    command = ["models", "verify", str(here.path), "--images", str(tmp_path / "images"), "--precision", "bf16"]
    run = CliRunner().invoke(cli, [*command, "--bound", "0.1"])
    assert run.exit_code == 0, run.output
    assert "11 images" in run.output
    assert "accepted" in run.output
    precision.require(here, BF16)
    run = CliRunner().invoke(cli, [*command, "--bound", "0.0000001"])
    assert run.exit_code == 1
    assert "REFUSED" in run.output
