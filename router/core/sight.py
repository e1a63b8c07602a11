"""What a classifier saw of one image and where its findings come from: for result objects that people look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.core.findings import Finding, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """A part of an image, in its own pixels."""

    top: int
    left: int
    side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How stored values become grey levels, as a presentation state says it (PS3.3 C.11.1, C.11.2.1.2)."""

    slope: float
    intercept: float
    centre: float
    width: float
    """1 or more; over 0 for «LINEAR_EXACT» and «SIGMOID»."""
    function: str
    """VOI LUT Function: «LINEAR», «LINEAR_EXACT» or «SIGMOID»."""
    inverted: bool
    """The smallest value is white."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """Where one finding's score comes from: the class activation map of the very forward pass that gave the score.

    Zero is the operating point: a place is above it when an image that looked like this place everywhere would have the
    finding. The mean over the network's cells is the finding's own logit, so counted. No segmentation: a cell is coarse.
    """

    finding: Finding
    cells: tuple[int, int]
    """Rows and columns of the map as the network gave it."""
    hottest: tuple[float, float]
    """Centre of the cell with the highest value: x and y in pixels of `Sight.grey`, whose outer edges are at 0."""
    values: NDArray[np.float32]
    """Logits, interpolated linearly between the cells' centres; shape of `Sight.grey`, zero outside of what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A heat as a picture to be laid over all of the image, for pages."""

    finding: Finding
    cells: tuple[int, int]
    """Of the heat."""
    silent: bool
    """No place is above the operating point by itself: nothing is coloured."""
    cropped: bool
    """Some of the image was not seen: that is hatched."""
    png: bytes
    """RGBA, of the image's aspect ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One image as a person would see it, reduced, and what the network made of it."""

    rows: int
    columns: int
    """Of the image itself."""
    grey: NDArray[np.uint8]
    """(height, width), 0 is black: windowed as the image asks, its aspect ratio kept, never larger than the image."""
    window: Window | None
    """What `grey` was made by, or where that was a VOI LUT, a window much like it; None where a Modality LUT table was."""
    seen: Square
    """The part of the image that reached the network, in the image's own pixels."""
    heats: tuple[Heat, ...]
    """Of the findings that are present, strongest first; not of all, where there are many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A prediction, and what only some result objects need."""

    prediction: Prediction
    sight: Callable[[], Sight]
    """Made when it is asked for: some ten milliseconds, and no second forward pass."""
