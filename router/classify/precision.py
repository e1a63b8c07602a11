"""Reduced precision is used only after it was measured: a verdict stands beside the weights, and without one a node refuses.

A verdict is of these weights, this runtime in this version, this device and this precision. It says how far scores moved on the
images of the site that measured it, and whether that was within the bound that was set.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from router.classify.network import Computing, open_network, reduced
from router.classify.resize import Float32Array
from router.classify.scoring import findings_of
from router.classify.tensor_file import write_whole
from router.classify.weights import Weights
from router.errors import ConfigError, WeightsUnavailable

#: On the scale of scores, where 0.5 is the operating point. A score in a report has 0.0001.
BOUND = 0.05
BOUND_MAX = 0.1
#: Fewer say too little.
IMAGE_COUNT_MIN = 10
_PACKAGES = {"onnx": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",), "torch": ("torch",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was measured, beside the same weights in single precision."""

    weights: str
    weights_sha256: str
    operating_points_sha256: str
    runtime: str
    runtime_version: str
    device: str
    precision: str
    image_count: int
    difference_max: float
    """Of a score."""
    difference_mean: float
    label: str
    """Where the largest was."""
    changed: int
    """Findings that were on the other side of their operating point."""
    compared: int
    bound: float
    accepted: bool
    processor: str
    measured_at: str


def measure(
    weights: Weights,
    images: Sequence[Float32Array],
    computing: Computing,
    *,
    bound: float = BOUND,
    progress: Callable[[], None] = lambda: None,
) -> Verdict:
    """Runs `images`, each (1, side, side), in single precision and as `computing` says.

    Raises ConfigError when that cannot be computed here, WeightsUnavailable when there are too few images.
    """
    if len(images) < IMAGE_COUNT_MIN:
        raise WeightsUnavailable(f"{len(images)} images say too little: give at least {IMAGE_COUNT_MIN}")
    if not 0 < bound <= BOUND_MAX:
        raise ConfigError([f"bound: must be over 0 and at most {BOUND_MAX}"])
    tensors, outputs = weights.tensors(), len(weights.points.labels)
    plain = open_network(weights.architecture, outputs, tensors)
    other = open_network(weights.architecture, outputs, tensors, computing)
    differences, changed, labels = [], 0, []
    for image in images:
        before, _ = findings_of(plain.logits(image[None])[0].tolist(), weights.points)
        after, _ = findings_of(other.logits(image[None])[0].tolist(), weights.points)
        for one, two in zip(before, after, strict=True):
            differences.append(abs(one.score - two.score))
            labels.append(one.label)
            changed += one.present != two.present
        progress()
    worst = int(np.argmax(differences))
    return Verdict(
        weights=weights.name,
        weights_sha256=weights.sha256,
        operating_points_sha256=weights.points.parameters()["operating_points_sha256"],
        runtime=other.computing.runtime,
        runtime_version=version_of(other.computing.runtime),
        device=other.computing.device,
        precision=other.computing.precision,
        image_count=len(images),
        difference_max=differences[worst],
        difference_mean=float(np.mean(differences)),
        label=labels[worst],
        changed=changed,
        compared=len(differences),
        bound=bound,
        accepted=differences[worst] <= bound,
        processor=_processor(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def record(verdict: Verdict, weights: Weights) -> Path:
    """Writes the verdict beside the weights and returns where. Raises WeightsUnavailable when that cannot be written."""
    path = place_of(weights, Computing(runtime=verdict.runtime, device=verdict.device, precision=verdict.precision))  # type: ignore[arg-type]
    try:
        write_whole(path, json.dumps(asdict(verdict), indent=2).encode())
    except OSError as error:
        raise WeightsUnavailable(f"{path}: {error.strerror}") from None
    return path


def place_of(weights: Weights, computing: Computing) -> Path:
    """Where the verdict about weights lies."""
    kind = f"{computing.runtime}.{computing.device}.{computing.precision}"
    return weights.path.with_name(f"{weights.path.stem}.{kind}.verdict.json")


def require(weights: Weights, computing: Computing) -> None:
    """Returns when these weights may be computed so. Raises WeightsUnavailable with the command that would help."""
    if computing.precision == "fp32":
        return
    path = place_of(weights, computing)
    how = (
        f"measure it: router models verify {weights.name} --images FOLDER --precision {computing.precision} "
        f"--runtime {computing.runtime} --device {computing.device}"
    )
    what = f"precision {computing.precision} by {computing.runtime} has not been accepted for {weights.name}"
    try:
        verdict = Verdict(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise WeightsUnavailable(f"{what}: there is no {path}; {how}") from None
    except (OSError, ValueError, TypeError) as error:
        raise WeightsUnavailable(f"{what}: {path} is unreadable ({type(error).__name__}); {how}") from None
    expected = {
        "weights_sha256": weights.sha256,
        "operating_points_sha256": weights.points.parameters()["operating_points_sha256"],
        "runtime": computing.runtime,
        "runtime_version": version_of(computing.runtime),
        "device": computing.device,
        "precision": computing.precision,
    }
    for key, value in expected.items():
        if getattr(verdict, key) != value:
            raise WeightsUnavailable(f"{what}: the verdict in {path} is about another {key.replace('_', ' ')}; {how}")
    if not (verdict.accepted and verdict.difference_max <= min(verdict.bound, BOUND_MAX)):
        raise WeightsUnavailable(
            f"{what}: scores moved by up to {verdict.difference_max:.4f} ({verdict.label}), bound {verdict.bound:g}"
        )


def offered(computing: Computing) -> bool:
    """True when the precision is one that the runtime has on the device, or single."""
    return computing.precision == "fp32" or computing.precision in reduced(computing.runtime, computing.device)


def version_of(runtime: str) -> str:
    """Of the package that computes, e.g. «2026.4.1»."""
    for package in _PACKAGES.get(runtime, ()):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""


def _processor() -> str:
    """As Linux names it."""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
