"""Verified weights: whose they are, what their outputs mean, that they are the bytes they should be. No torch, no pickle.

Two kinds: what torchxrayvision publishes (`published`), and a site's own of the same architectures, whose card is a TOML file
beside them or stands in their metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from router.classify.card import Card, card_from_json, card_of, read_card
from router.classify.fetch import sha256_of
from router.classify.network import RESNET
from router.classify.onnx_graph import graph_of
from router.classify.published import PUBLISHED, PublishedWeights
from router.classify.safe_pickle import Tensors, read_tensors
from router.classify.scoring import OperatingPoints
from router.classify.tensor_file import read_metadata, read_safetensors
from router.classify.trust import FIRST_USE, GIVEN, PINNED
from router.errors import WeightsUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights that are on this machine and are the bytes they should be."""

    card: Card
    sha256: str
    """Of the file as its authors published it, hexadecimal."""
    trust: str
    """How that digest is known: FIRST_USE, PINNED or GIVEN."""
    path: Path

    @property
    def name(self) -> str:
        """What the weights are called."""
        return self.card.name

    @property
    def architecture(self) -> str:
        """A key of `network.BLOCKS`."""
        return self.card.architecture

    @property
    def side(self) -> int:
        """Pixels on a side of the network's input."""
        return self.card.side

    @property
    def points(self) -> OperatingPoints:
        """Labels and thresholds, in the order of the outputs."""
        return self.card.points

    def tensors(self) -> Tensors:
        """By name. Raises WeightsUnavailable."""
        return read_safetensors(self.path) if self.path.suffix == ".safetensors" else read_tensors(self.path)


def from_file(path: Path, *, card: Path | None = None, sha256: str = "") -> Weights:
    """Weights in a file that the configuration names, .pt or safetensors; with `card` a site's own.

    Without `card` it is looked for beside the file, under its name with the ending .toml; then in the file's metadata; then
    the file must be one that torchxrayvision publishes. Raises WeightsUnavailable when nothing says what the outputs mean,
    or the bytes are not those they should be.
    """
    if not path.is_file():
        raise WeightsUnavailable(f"no weights file {path}")
    beside = path.with_suffix(".toml")
    if card is not None or beside.is_file():
        trust, digest = _digest_of(path, sha256)
        return Weights(card=read_card(card or beside), sha256=digest, trust=trust, path=path)
    if path.suffix != ".safetensors":
        published = identify(path)
        trust, digest = verified(path, published, sha256)
        return Weights(card=card_of(published), sha256=digest, trust=trust, path=path)
    trust, digest = _digest_of(path, sha256)
    return Weights(card=described(path), sha256=digest, trust=trust, path=path)


def described(path: Path) -> Card:
    """The card in a safetensors file's metadata. Raises WeightsUnavailable when there is none."""
    metadata = read_metadata(path)
    try:
        if "card" in metadata:
            return card_from_json(json.loads(metadata["card"]))
        points = OperatingPoints(
            labels=tuple(json.loads(metadata["labels"])),
            thresholds=tuple(json.loads(metadata["op_threshs"])),
            source="the weights file's",
        )
        architecture, side = metadata["architecture"], int(metadata["input_side"])
        if metadata["name"] in PUBLISHED:
            return replace(card_of(PUBLISHED[metadata["name"]]), points=points, architecture=architecture, side=side)
        return Card(
            name=metadata["name"],
            version="not said",
            manufacturer="not said",
            architecture=architecture,
            side=side,
            points=points,
            trained_on=("not said in the file",),
            operating_points="not said in the file",
            limits=("not said in the file",),
            licence="not said in the file",
            literature=(),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsUnavailable(
            f"{path}: nothing says what its outputs mean: write a card {path.with_suffix('.toml').name} beside it "
            f"(docs/models/own.md), or metadata with name, architecture, input_side, labels and op_threshs ({error})"
        ) from None


def identify(path: Path) -> PublishedWeights:
    """Which published weights a file is, by its name or by its digest. Raises WeightsUnavailable."""
    for published in PUBLISHED.values():
        if path.name == published.file_name or path.stem == published.name:
            return published
    digest = sha256_of(path)
    for published in PUBLISHED.values():
        if published.sha256 == digest:
            return published
    raise WeightsUnavailable(
        f"{path}: cannot tell which weights these are; for a site's own write a card {path.with_suffix('.toml').name} "
        f"beside it (docs/models/own.md), else name the file NAME.pt, where NAME is one of: {', '.join(PUBLISHED)}"
    )


def verified(path: Path, published: PublishedWeights, sha256: str = "") -> tuple[str, str]:
    """How a file's digest is known, and the digest. Raises WeightsUnavailable when it is another one than it should be."""
    trust, digest = _digest_of(path, sha256 or published.sha256)
    return (PINNED if digest == published.sha256 else trust), digest


def examined(tensors: Tensors, card: Card, source: Path) -> Tensors:
    """The tensors, when they are this card's network's, all of them, and numbers. Raises WeightsUnavailable."""
    head = tensors.get("fc.weight" if card.architecture == RESNET else "classifier.weight")
    if head is None or head.ndim != 2 or head.shape[0] != len(card.points.labels):
        raise WeightsUnavailable(f"{source}: not the weights of {card.name}: as many outputs as labels are needed")
    for name, tensor in tensors.items():
        if name != "op_threshs" and tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise WeightsUnavailable(f"{source}: {name} holds a value that is not a number")
    return {name: tensor for name, tensor in tensors.items() if name != "op_threshs"}


def fits(weights: Weights) -> None:
    """Returns when a network can be made of them. Raises WeightsUnavailable; takes a tenth of a second."""
    tensors = examined(weights.tensors(), weights.card, weights.path)
    graph_of(weights.architecture, len(weights.points.labels), tensors)


def _digest_of(path: Path, expected: str) -> tuple[str, str]:
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise WeightsUnavailable(f"{path}: {error.strerror}") from None
    if expected and digest != expected:
        raise WeightsUnavailable(
            f"{path}: SHA-256 is {digest}, not {expected}: not the file it should be, so it was not opened"
        )
    return (GIVEN if expected else FIRST_USE), digest
