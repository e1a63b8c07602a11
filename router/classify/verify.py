"""Our outputs beside those that upstream published for its sample images. Printing is the command line's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.classify.fetch import sha256_of
from router.classify.gate import gate
from router.classify.network import open_network
from router.classify.pixels import to_input
from router.classify.published import PUBLISHED
from router.classify.resize import Float32Array, resized
from router.classify.scoring import OperatingPoints, findings_of
from router.classify.weights import Weights

_OUTPUTS = Path(__file__).with_name("published_outputs.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Our outputs for one image beside those that upstream published."""

    image: str
    weights: str
    source: str
    compared: int
    """Number of labels."""
    difference_max: float
    """Largest absolute difference of a score."""
    label: str
    """Where it was."""
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Within the tolerance."""
        return self.difference_max <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `router models verify` found."""

    weights: str
    sha256: str
    comparisons: tuple[Comparison, ...]
    missing_images: tuple[str, ...]
    """Images with published outputs that were not at hand."""

    @property
    def agrees(self) -> bool | None:
        """None when nothing could be compared."""
        return all(c.agrees for c in self.comparisons) if self.comparisons else None


def verify(weights: Weights, images: Path) -> Verification:
    """Runs every published (image, outputs) pair of these weights whose image lies in `images` or below.

    Raises WeightsUnavailable. Source: the README files of torchxrayvision; the pairs and where each stands are in
    published_outputs.json.
    """
    at_hand = {path.name: path for path in sorted(images.rglob("*")) if path.suffix in (".png", ".jpg")}
    network = open_network(weights.architecture, len(weights.points.labels), weights.tensors())
    comparisons, missing = [], []
    for pair in _pairs(weights.name):
        path = at_hand.get(pair["image"])
        if path is None or sha256_of(path) != pair["sha256"]:
            missing.append(pair["image"])
            continue
        logits = network.logits(image_input(path, weights.side)[None])[0]
        comparisons.append(_compared(logits.tolist(), weights, pair))
    return Verification(
        weights=weights.name,
        sha256=weights.sha256,
        comparisons=tuple(comparisons),
        missing_images=tuple(dict.fromkeys(missing)),
    )


def image_input(path: Path, side: int) -> Float32Array:
    """A PNG or JPEG file as the network wants it: float32 (1, side, side) in [-1024, 1024]; of a colour image, the red.

    Source: torchxrayvision.utils.load_image, then XRayCenterCrop and XRayResizer.
    """
    from PIL import Image

    with Image.open(path) as opened:
        values = np.asarray(opened)
    grey = values[..., 0] if values.ndim > 2 else values
    length = min(grey.shape)
    top, left = grey.shape[0] // 2 - length // 2, grey.shape[1] // 2 - length // 2
    square = grey[top : top + length, left : left + length]
    return resized(square, side, scale=2048 / 255, offset=-1024)[np.newaxis]


def inputs_of(folder: Path, side: int, *, count_max: int) -> list[Float32Array]:
    """Up to `count_max` images below a folder, DICOM, PNG or JPEG, as a network wants them; what cannot be read is left out."""
    found: list[Float32Array] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if len(found) == count_max:
            break
        try:
            found.append(image_input(path, side) if path.suffix in (".png", ".jpg") else _dicom_input(path, side))
        except Exception:  # noqa: BLE001, S112 - whatever it is, it is no image that would be classified
            continue
    return found


def _dicom_input(path: Path, side: int) -> Float32Array:
    from pydicom import dcmread

    ds = dcmread(path)
    gate(ds)
    return to_input(ds, side)


def _pairs(name: str) -> Iterator[Mapping[str, Any]]:
    for pair in json.loads(_OUTPUTS.read_text(encoding="utf-8"))["pairs"]:
        if pair["weights"] == name:
            yield pair


def _compared(logits: list[float], weights: Weights, pair: Mapping[str, Any]) -> Comparison:
    known = PUBLISHED[weights.name]
    # Upstream's own thresholds, also where ours differ: its published outputs were made with them.
    points = OperatingPoints(labels=known.labels, thresholds=known.op_threshs)
    ours = {finding.label: finding.score for finding in findings_of(logits, points)[0]}
    differences = {label: abs(ours[label] - value) for label, value in pair["outputs"].items() if label in ours}
    worst = max(differences, key=lambda label: differences[label])
    return Comparison(
        image=pair["image"],
        weights=weights.name,
        source=pair["source"],
        compared=len(differences),
        difference_max=differences[worst],
        label=worst,
        tolerance=pair["tolerance"],
    )
