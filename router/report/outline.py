"""Outlines of the hottest places of a map, as closed polygons: for graphics that a viewer can switch off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Point = tuple[float, float]
"""(x, y), x to the right, y down, in pixels of the map; its outer edges are at 0 and at its width or height."""

#: An outline encloses what has at least this share of the map's highest value.
LEVEL = 0.5
#: Smaller ones, in parts of the map's area, are rests of the interpolation.
_AREA_MIN = 0.0005
_COUNT_MAX = 4
#: A larger map is sampled: a network's cells are far coarser.
_SIDE = 512
#: How far a polygon may leave the true edge, in pixels of the map.
_TOLERANCE = 3.0


def outlines(values: NDArray[np.float32]) -> list[list[Point]]:
    """Polygons round what is hottest in a map, largest first; none when nothing in it is above zero."""
    highest = float(values.max())
    if highest <= 0:
        return []
    every = max(1, max(values.shape) // _SIDE)
    height, width = values.shape
    # A sample stands for the square round it; the last ones end where the map does.
    loops = [loop * every for loop in _loops(values[every // 2 :: every, every // 2 :: every] >= LEVEL * highest)]
    loops = [np.minimum(loop, (width, height)) for loop in loops]
    areas = [(abs(_area(loop)), loop) for loop in loops]
    kept = sorted((pair for pair in areas if pair[0] >= _AREA_MIN * values.size), key=lambda pair: -pair[0])
    return [_simplified(loop) for _, loop in kept[:_COUNT_MAX]]


def _loops(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The edges between inside and outside, joined head to tail, the inside always on their right."""
    framed = np.pad(mask, 1)
    inside = framed[1:-1, 1:-1]
    follows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for beside, start, end in (
        (framed[:-2, 1:-1], (0, 0), (1, 0)),
        (framed[1:-1, 2:], (1, 0), (1, 1)),
        (framed[2:, 1:-1], (1, 1), (0, 1)),
        (framed[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inside & ~beside).tolist():
            follows.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    loops = []
    while follows:
        first = next(iter(follows))
        loop, at = [first], _taken(follows, first)
        while at != first:
            loop.append(at)
            at = _taken(follows, at)
        loops.append(np.asarray(loop, np.float64))
    return loops


def _taken(follows: dict[tuple[int, int], list[tuple[int, int]]], at: tuple[int, int]) -> tuple[int, int]:
    ways = follows[at]
    way = ways.pop()
    if not ways:
        del follows[at]
    return way


def _area(loop: NDArray[np.float64]) -> float:
    """Negative for a hole."""
    x, y = loop.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _simplified(loop: NDArray[np.float64]) -> list[Point]:
    """Douglas and Peucker's way, from two points that are far apart."""
    far = int(np.argmax(((loop - loop[0]) ** 2).sum(axis=1)))
    closed = np.concatenate((loop, loop[:1]))
    kept = [*_between(closed, 0, far), *_between(closed, far, len(loop))]
    return [(float(x), float(y)) for x, y in loop[kept]]


def _between(points: NDArray[np.float64], first: int, last: int) -> list[int]:
    """Indexes of the points that are needed, `first` included and `last` not."""
    kept, open_parts = [], [(first, last)]
    while open_parts:
        start, end = open_parts.pop()
        kept.append(start)
        while end - start > 1:
            line = points[end] - points[start]
            away = points[start + 1 : end] - points[start]
            distances = np.abs(away[:, 0] * line[1] - away[:, 1] * line[0]) / max(float(np.hypot(*line)), 1e-9)
            worst = int(np.argmax(distances))
            if distances[worst] <= _TOLERANCE:
                break
            open_parts.append((start + 1 + worst, end))
            end = start + 1 + worst
    return sorted(kept)
