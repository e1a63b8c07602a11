"""Model cards: what a classifier is, what it was trained on, where its limits are. For people and, as JSON, for machines.

Those of torchxrayvision's classifiers come from `published` and cards.toml; a site's own weights bring theirs as a TOML file.
docs/models has a page for each, made by `markdown`; a test compares.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from router.classify.network import DENSENET, RESNET
from router.classify.published import UPSTREAM_VERSION, PublishedWeights
from router.classify.scoring import OperatingPoints
from router.errors import WeightsUnavailable
from router.settings import Names, Table
from router.settings.values import tuple_of

_TEXTS = Path(__file__).with_name("cards.toml")
UPSTREAM = "TorchXRayVision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One classifier's card."""

    name: str
    version: str
    manufacturer: str
    architecture: str
    side: int
    """Pixels on a side of the network's input."""
    points: OperatingPoints
    trained_on: tuple[str, ...]
    operating_points: str
    """How the thresholds were chosen."""
    limits: tuple[str, ...]
    licence: str
    literature: tuple[str, ...]
    source: str = ""
    """Where the weights are published."""
    sha256: str = ""
    """Of that file, where it is known."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Labels that have an operating point."""
        named = zip(self.points.labels, self.points.thresholds, strict=True)
        return tuple(label for label, threshold in named if label and threshold is not None)

    @property
    def not_trained(self) -> tuple[str, ...]:
        """Labels without one, which are never reported."""
        return tuple(label for label in self.points.labels if label and label not in self.trained)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `card_from_json` turns back into an equal card."""
        data = asdict(self)
        return {**data, "trained": list(self.trained), "not_trained": list(self.not_trained)}


class _Label(Table):
    """[[labels]]: one output of the network, in its order."""

    name: str
    """As it stands in reports; empty for an output that is not used."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The sigmoid from which on a finding counts as present; without it the label is not trained."""


class _SiteCard(Table):
    """A site's own TOML file about its own weights."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(min_length=1, max_length=64)]
    manufacturer: Annotated[str, Field(min_length=1, max_length=64)]
    architecture: Literal["densenet121", "resnet50"]
    input_side: Annotated[int, Field(ge=32, le=4096)]
    trained_on: Annotated[Names, Field(min_length=1)]
    operating_points: Annotated[str, Field(min_length=1)]
    limits: Annotated[Names, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    literature: Names = ()
    labels: Annotated[tuple[_Label, ...], BeforeValidator(tuple_of), Field(min_length=1, max_length=256)]


def card_of(published: PublishedWeights) -> Card:
    """The card of weights that torchxrayvision publishes."""
    texts = _texts()
    own, upstream = texts["cards"][published.name], texts["upstream"]
    network = "resnet" if published.architecture == RESNET else "densenet"
    papers = ["xrv", "limits", network, *own["datasets"]]
    return Card(
        name=published.name,
        version=f"torchxrayvision {UPSTREAM_VERSION}",
        manufacturer=UPSTREAM,
        architecture=published.architecture,
        side=published.side,
        points=published.points,
        trained_on=tuple(texts["datasets"][name] for name in own["datasets"]),
        operating_points=upstream["operating_points"],
        limits=(*own["limits"], *upstream["limits"]),
        licence=upstream["licence"],
        literature=tuple(texts["papers"][name] for name in papers),
        source=published.url,
        sha256=published.sha256,
    )


def demo_card(points: OperatingPoints, *, architecture: str, side: int, sha256: str) -> Card:
    """The card of the demonstration classifier."""
    texts = _texts()
    own = texts["cards"]["demo"]
    return Card(
        name="demo",
        version="1",
        manufacturer="dicom-ai-router demonstration",
        architecture=architecture,
        side=side,
        points=points,
        trained_on=tuple(texts["datasets"][name] for name in own["datasets"]),
        operating_points=own["operating_points"],
        limits=tuple(own["limits"]),
        licence=own["licence"],
        literature=(),
        source="ships with the router",
        sha256=sha256,
    )


def read_card(path: Path) -> Card:
    """A site's card. Raises WeightsUnavailable with every key that is wrong."""
    try:
        site = _SiteCard.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise WeightsUnavailable(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeightsUnavailable(f"{path}: not TOML ({error})") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise WeightsUnavailable(f"{path}: {wrong}") from None
    names = [label.name for label in site.labels if label.name]
    if len(set(names)) < len(names):
        raise WeightsUnavailable(f"{path}: labels: a name is used twice")
    if not any(label.name and label.threshold is not None for label in site.labels):
        raise WeightsUnavailable(f"{path}: labels: none has a name and a threshold, so there is nothing to report")
    return Card(
        name=site.name,
        version=site.version,
        manufacturer=site.manufacturer,
        architecture={"densenet121": DENSENET, "resnet50": RESNET}[site.architecture],
        side=site.input_side,
        points=OperatingPoints(
            labels=tuple(label.name for label in site.labels),
            thresholds=tuple(label.threshold for label in site.labels),
            source="the site's",
        ),
        trained_on=site.trained_on,
        operating_points=site.operating_points,
        limits=site.limits,
        licence=site.licence,
        literature=site.literature,
    )


def card_from_json(data: Mapping[str, Any]) -> Card:
    """The card behind `Card.to_json`. Raises KeyError, TypeError or ValueError when it is none."""
    derived = ("trained", "not_trained")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key not in derived
    }
    points = values.pop("points")
    return Card(
        points=OperatingPoints(
            labels=tuple(points["labels"]), thresholds=tuple(points["thresholds"]), source=points["source"]
        ),
        **values,
    )


def markdown(card: Card) -> str:
    """The card as a page."""
    lines = [
        f"# {card.name}",
        "",
        "| | |",
        "|---|---|",
        f"| network | {card.architecture}, input {card.side} x {card.side} |",
        f"| made by | {card.manufacturer}, {card.version} |",
        f"| licence | {card.licence} |",
        f"| weights | {f'<{card.source}>' if '://' in card.source else card.source or 'not published'} |",
        f"| SHA-256 | {f'`{card.sha256}`' if card.sha256 else 'not known: trusted on first use, then held to it'} |",
        f"| labels | {len(card.trained)} with an operating point, of {len(card.points.labels)} outputs |",
        f"| operating points | {card.operating_points} |",
        "",
        "## Trained on",
        "",
        *(f"- {line}." for line in card.trained_on),
        "",
        "## Labels",
        "",
        f"Thresholds on the scale of the network's sigmoid; {card.points.source}.",
        "",
        "| label | threshold |",
        "|---|---|",
        *(
            f"| {label} | {'not trained, never reported' if threshold is None else f'{threshold:.6g}'} |"
            for label, threshold in zip(card.points.labels, card.points.thresholds, strict=True)
            if label
        ),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in card.limits),
    ]
    if card.literature:
        lines += ["", "## Literature", "", *(f"{n}. {line}" for n, line in enumerate(card.literature, 1))]
    return "\n".join(lines) + "\n"


def dumped(card: Card) -> str:
    """The card as JSON text, for the metadata of a safetensors file."""
    return json.dumps(card.to_json())


@cache
def _texts() -> dict[str, Any]:
    return tomllib.loads(_TEXTS.read_text(encoding="utf-8"))
