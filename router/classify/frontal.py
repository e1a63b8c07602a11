"""Does a picture look like a frontal radiograph of a chest? Asked of the very pixels that the network gets.

A classifier answers every picture, a dog or a hip too, and headers are often wrong. So the picture is compared with an
average chest, small and in ranks, so that no tone curve matters: two dark fields left and right of something bright, something
bright below. What it looks at, how it was trained, how often it errs and what it cannot see: docs/gate.md.
`python -m bench.frontal` makes the numbers in frontal.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

NUMBERS = Path(__file__).with_name("frontal.json")

#: Pixels on a side: of the copy on which borders are looked for, of the one that is compared, of the one that is weighed.
_COPY, _SIDE, _COARSE = 56, 32, 12
_MIDDLE = (_SIDE - 1) / 2
#: The part of a side that is cut off first: upstream's resize mixes the outermost pixels with grey, more so in small inputs.
_RIM = 0.01
#: How chests differ in place and size: the average is compared at each of these.
_SCALES = (0.85, 1.0, 1.18)
_SHIFTS = (-3.0, -1.5, 0.0, 1.5, 3.0)
_PLACES = tuple(product(_SCALES, _SHIFTS, _SHIFTS))
#: A row or column at an edge belongs to the border (collimator, film holder) when all but 6 of its pixels are this alike.
_FLAT = 0.06
_BORDER_MAX = 0.36
#: Standard deviation of the blur that takes the coarse shape away and leaves heart border, ribs and diaphragm.
_FINE = 3.0

#: Parts of the picture, as (rows, columns), that are compared with the same parts of the average.
_ALL = slice(0, _SIDE)
_QUARTERS = tuple(product((slice(0, 16), slice(16, 32)), repeat=2))
_BANDS = tuple((rows, _ALL) for rows in (slice(4, 12), slice(12, 20), slice(20, 28)))
_COLUMNS = tuple((_ALL, columns) for columns in (slice(2, 11), slice(11, 21), slice(21, 30)))
#: Where the two halves of a chest are alike; the heart and the liver are not, but they are below.
_UPPER = slice(4, 26)


def frontal_chest(picture: FloatArray) -> float:
    """How much a picture looks like a frontal radiograph of a human chest: 0 (not at all) to 1. No probability.

    `picture` is what the network gets: (side, side) or (1, side, side), brighter is denser, the right way up.
    """
    return _trained().value(picture.reshape(picture.shape[-2:]))


@dataclass(frozen=True)
class Standard:
    """A picture without its border, tone curve and size."""

    ranks: FloatArray
    """(32, 32): each pixel's rank among all, -1 (darkest) to 1."""
    facts: tuple[float, float, float]
    """The part of the picture that is border; that has the commonest grey; and how few greys there are (0 to 1 each)."""


def standard(picture: FloatArray) -> Standard:
    """Takes a picture's border off, and its tone curve. Needs two different pixels."""
    rim = round(_RIM * len(picture))
    whole = _averaged(picture[rim : len(picture) - rim, rim : len(picture) - rim], _COPY)
    spread = float(np.ptp(whole)) or 1.0
    top, bottom = _border(whole, spread)
    left, right = _border(whole.T, spread)
    inside = whole[top : _COPY - bottom, left : _COPY - right]
    _, counts = np.unique(np.round((whole - whole.min()) / spread * 255), return_counts=True)
    shares = counts / whole.size
    facts = (1 - inside.size / whole.size, float(shares.max()), float(np.sqrt((shares**2).sum())))
    return Standard(_ranks(_averaged(inside, _SIDE), spread), facts)


@dataclass(frozen=True)
class Likeness:
    """An average chest, and what the likeness to it is worth."""

    average: FloatArray
    """(32, 32), as Standard.ranks."""
    weights: FloatArray = field(default_factory=lambda: np.zeros(0))
    bias: float = 0.0

    def value(self, picture: FloatArray) -> float:
        """See `frontal_chest`."""
        sum_ = float(self.features(standard(picture)) @ self.weights) + self.bias
        return float(1 / (1 + np.exp(-np.clip(sum_, -40, 40))))

    def features(self, seen: Standard) -> FloatArray:
        """What is weighed, some 160 numbers: likeness as a whole and in parts, symmetry, and the picture itself, coarsely."""
        whole = _unit(seen.ranks)
        likeness = self._places @ whole
        best = int(likeness.argmax())
        there = self._places[best].reshape(_SIDE, _SIDE)
        turned = [float((self._places @ _unit(np.rot90(seen.ranks, -quarter))).max()) for quarter in (1, 2, 3)]
        quarters = sorted(_alike(seen.ranks[part], there[part]) for part in _QUARTERS)
        bands = [_alike(seen.ranks[part], there[part]) for part in _BANDS]
        right, middle, left = (_alike(seen.ranks[part], there[part]) for part in _COLUMNS)
        parts = [
            likeness[best],
            _alike(_fine(seen.ranks), _fine(there)),
            max(turned),
            -float(likeness.min()),
            *(quarters[0], quarters[1], float(np.mean(quarters))),
            *(*bands, min(bands)),
            *(middle, max(right, left), min(right, left)),
            _symmetry(seen.ranks),
            _alike(seen.ranks[1:], seen.ranks[:-1]),
            _alike(seen.ranks[:, 1:], seen.ranks[:, :-1]),
            *seen.facts,
        ]
        return np.concatenate([parts, *_coarse(seen.ranks, _PLACES[best])])

    @cached_property
    def _places(self) -> FloatArray:
        """The average at every place and size, one a row, of unit length."""
        moved = []
        for scale, down, across in _PLACES:
            rows, columns = (_sampling(1 / scale, -shift / scale) for shift in (down, across))
            moved.append(_unit(rows @ self.average @ columns.T))
        return np.stack(moved)


@lru_cache(maxsize=1)
def _trained() -> Likeness:
    return likeness_of(json.loads(NUMBERS.read_text(encoding="utf-8")))


def likeness_of(numbers: Mapping[str, Any]) -> Likeness:
    """The Likeness in a file that `python -m bench.frontal` wrote."""
    average = np.asarray(numbers["average"], np.float64).reshape(_SIDE, _SIDE)
    return Likeness(average, np.asarray(numbers["weights"], np.float64), float(numbers["bias"]))


def _border(whole: FloatArray, spread: float) -> tuple[int, int]:
    """How many rows at the top and at the bottom are border."""
    ordered = np.sort(whole, axis=1)
    flat = ordered[:, -4] - ordered[:, 3] < _FLAT * spread
    most = int(_BORDER_MAX * len(whole))
    return _run(flat[:most]), _run(flat[::-1][:most])


def _run(flags: NDArray[np.bool_]) -> int:
    """How many of the first flags are set in a row."""
    return int(flags.argmin()) if not flags.all() else flags.size


def _ranks(values: FloatArray, spread: float) -> FloatArray:
    """Each value's rank, -1 to 1; what is equal but for rounding shares its rank."""
    rounded = np.round(values.ravel() / spread * 2e4)
    order = rounded.argsort()
    ordered = rounded[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.append(starts[1:], rounded.size)
    # What is below each, and what is not above it, are where the run of its equals starts and ends.
    sums = np.empty(rounded.size, np.int64)
    sums[order] = np.repeat(starts + ends, ends - starts)
    ranks: FloatArray = ((sums - 1) / (rounded.size - 1) - 1).reshape(values.shape)
    return ranks


def _averaged(values: FloatArray, side: int) -> FloatArray:
    """(side, side) means over equal areas."""
    rows, columns = _averaging(values.shape[0], side), _averaging(values.shape[1], side)
    means: FloatArray = rows.astype(values.dtype) @ values @ columns.astype(values.dtype).T
    return means.astype(np.float64)


@lru_cache(maxsize=128)
def _averaging(length: int, side: int) -> FloatArray:
    edges = np.linspace(0, length, side + 1)
    pixels = np.arange(length)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shared = np.clip(shared, 0, None)
    weights: FloatArray = shared / shared.sum(1, keepdims=True)
    return weights


@lru_cache(maxsize=128)
def _sampling(scale: float, shift: float) -> FloatArray:
    """(32, 32): linear interpolation at `scale` times the distance from the middle, `shift` beside it; edges go on."""
    at = np.clip(_MIDDLE + shift + scale * (np.arange(_SIDE) - _MIDDLE), 0, _SIDE - 1)
    weights: FloatArray = np.clip(1 - np.abs(at[:, None] - np.arange(_SIDE)), 0, None)
    return weights


@lru_cache(maxsize=1)
def _blurring() -> FloatArray:
    reach = int(4 * _FINE)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _FINE) ** 2)
    weights = np.zeros((_SIDE, _SIDE))
    for row in range(_SIDE):
        at = np.clip(np.arange(row - reach, row + reach + 1), 0, _SIDE - 1)
        np.add.at(weights[row], at, kernel / kernel.sum())
    return weights


def _fine(ranks: FloatArray) -> FloatArray:
    fine: FloatArray = ranks - _blurring() @ ranks @ _blurring().T
    return fine


def _coarse(ranks: FloatArray, place: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    """The picture moved to where the average is: the mean of its two halves, and how much they differ; (72,) each."""
    scale, down, across = place
    centred = _sampling(scale, down) @ ranks @ _sampling(scale, across).T
    centred = (centred - centred.mean()) / (centred.std() + 1e-6)
    coarse = _averaged(centred, _COARSE)
    half, other = coarse[:, : _COARSE // 2], coarse[:, ::-1][:, : _COARSE // 2]
    return ((half + other) / 2).ravel(), np.abs(half - other).ravel() / 2


def _symmetry(ranks: FloatArray) -> float:
    """Likeness of the upper picture to its mirror image, about the best of nine axes near the middle."""
    upper, mirrored = ranks[_UPPER], ranks[_UPPER, ::-1]
    found = [_alike(upper, mirrored)]
    for shift in range(1, 5):
        found.append(_alike(upper[:, shift:], mirrored[:, :-shift]))
        found.append(_alike(upper[:, :-shift], mirrored[:, shift:]))
    return max(found)


def _alike(one: FloatArray, other: FloatArray) -> float:
    return float(_unit(one) @ _unit(other))


def _unit(values: FloatArray) -> FloatArray:
    """As a vector without its mean, of length 1; all zeros where everything is equal."""
    # As `mean` and `linalg.norm` compute it, to the last bit, without their way there: this is called fifty times a picture.
    centred: FloatArray = values.ravel() - np.add.reduce(values, axis=None) / values.size
    centred /= max(math.sqrt(centred.dot(centred)), 1e-6)
    return centred
