"""What `router models` does: list, fetch, import and verify weights. Plain functions; printing is the command line's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.classify.fetch import Progress, sha256_of
from router.classify.network import open_network
from router.classify.published import PUBLISHED, PublishedWeights
from router.classify.resize import Float32Array, resized
from router.classify.scoring import OperatingPoints, findings_of
from router.classify.weights import Weights, identify
from router.classify.weights_folder import WeightsFolder
from router.errors import WeightsUnavailable

_OUTPUTS = Path(__file__).with_name("published_outputs.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line of `router models list`."""

    name: str
    labels: tuple[str, ...]
    here: bool
    sha256: str
    """Of the file that is here, else the digest the router knows; empty when neither."""
    trust: str
    """How the digest of the file that is here is known; empty when it is not here."""
    problem: str = ""
    """Why what is here cannot be used; empty when it can."""


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


def published(name: str) -> PublishedWeights:
    """The weights of a name. Raises WeightsUnavailable for a name that torchxrayvision does not publish."""
    if name not in PUBLISHED:
        raise WeightsUnavailable(f"no weights are called {name!r}; there are: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def list_weights(folder: Path) -> list[Listed]:
    """All weights the router knows, and which of them are in `folder`."""
    listed = []
    for known in PUBLISHED.values():
        here, problem = None, ""
        try:
            here = WeightsFolder(folder).find(known)
        except WeightsUnavailable as error:
            problem = str(error)
        listed.append(
            Listed(
                name=known.name,
                labels=tuple(label for label, t in zip(known.labels, known.op_threshs, strict=True) if t is not None),
                here=here is not None,
                sha256=here.sha256 if here is not None else known.sha256,
                trust=here.trust if here is not None else "",
                problem=problem,
            )
        )
    return listed


def fetch(name: str, folder: Path, *, mirror: str = "", sha256: str = "", progress: Progress | None = None) -> Weights:
    """The weights in `folder`, fetched unless they are there. Raises WeightsUnavailable."""
    weights = WeightsFolder(folder, mirror=mirror)
    return weights.obtain(published(name), may_fetch=True, sha256=sha256, progress=progress)


def import_file(path: Path, folder: Path, *, name: str = "", sha256: str = "") -> Weights:
    """Takes a file in that somebody brought; its name or digest says which weights it holds, unless `name` does.

    Raises WeightsUnavailable, also when the folder cannot be written.
    """
    if not path.is_file():
        raise WeightsUnavailable(f"no file {path}")
    known = published(name) if name else identify(path)
    weights = WeightsFolder(folder).take_in(path, known, sha256=sha256)
    if weights.path == path:
        raise WeightsUnavailable(f"{folder}: cannot be written")
    return weights


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
