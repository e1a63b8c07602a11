"""From the class activation maps of a forward pass to places in the image: the network's cells mapped back through crop and resize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from router.classify.network import CELL_STEP, FIRST_CELL
from router.classify.pixels import central_square
from router.classify.resize import Float32Array
from router.classify.scoring import OperatingPoints, logit_of
from router.core.findings import Finding, Prediction
from router.core.sight import Heat, Look, Sight, Square

#: More in one picture would hide each other; the report names all.
HEATS_MAX = 3


def look_of(
    ds: Dataset,
    values: NDArray[np.integer[Any]],
    prediction: Prediction,
    *,
    logits: Float32Array,
    maps: Float32Array,
    points: OperatingPoints,
    architecture: str,
    side: int,
) -> Look:
    """A prediction with what can be drawn of it. `values` are the stored values of `ds`.

    `logits` (outputs) and `maps` (outputs, rows, columns) come from one forward pass over an input of `side` x `side`.
    """

    def sight() -> Sight:
        from router.classify.display import displayed

        grey, window = displayed(ds, values)
        seen = central_square(*values.shape)
        first = FIRST_CELL[architecture]
        down, across = grey.shape[0] / values.shape[0], grey.shape[1] / values.shape[1]
        heats = []
        for finding in _strongest(prediction.findings):
            at = points.labels.index(finding.label)
            threshold = points.thresholds[at]
            assert threshold is not None, "a label that was never trained is no finding"
            cells = above_operating_point(maps[at], float(logits[at]), threshold)
            shown = spread(cells, shape=grey.shape, image=values.shape, seen=seen, side=side, first=first)
            row, column = np.unravel_index(int(cells.argmax()), cells.shape)
            heats.append(
                Heat(
                    finding=finding,
                    cells=(cells.shape[0], cells.shape[1]),
                    hottest=(
                        centre(int(column), start=seen.left, seen=seen.side, side=side, first=first) * across,
                        centre(int(row), start=seen.top, seen=seen.side, side=side, first=first) * down,
                    ),
                    values=shown,
                )
            )
        return Sight(
            rows=values.shape[0], columns=values.shape[1], grey=grey, window=window, seen=seen, heats=tuple(heats)
        )

    return Look(prediction=prediction, sight=sight)


def above_operating_point(cells: Float32Array, logit: float, threshold: float) -> Float32Array:
    """A class activation map, moved so that zero is the operating point and its mean the finding's distance from it.

    A network's own zero means nothing: with operating points of 0.01, as published networks have, every place of a
    positive image can be below it. `threshold` is a sigmoid in (0, 1).
    """
    return np.asarray(cells - cells.mean() + (logit - logit_of(threshold)), np.float32)


def spread(
    cells: Float32Array, *, shape: tuple[int, ...], image: tuple[int, ...], seen: Square, side: int, first: float
) -> Float32Array:
    """The cells' values at every pixel of a picture of `shape` (height, width) that shows all of `image` (rows, columns).

    Linear between the centres of cells, constant to the edge of the outermost, then falling to zero within half a cell;
    zero outside of the part that was seen.
    `first`: where the first cell looks, as the index of a pixel of the network's input.
    """
    down, inside_down = _weights(
        cells.shape[0], shape[0], length=image[0], start=seen.top, seen=seen.side, side=side, first=first
    )
    across, inside_across = _weights(
        cells.shape[1], shape[1], length=image[1], start=seen.left, seen=seen.side, side=side, first=first
    )
    found = down @ cells @ across.T
    found[~inside_down] = 0
    found[:, ~inside_across] = 0
    return np.asarray(found, np.float32)


def centre(cell: int, *, start: int, seen: int, side: int, first: float) -> float:
    """Where a cell looks along one axis, in pixels of the image from its outer edge."""
    return start + (first + 0.5 + cell * CELL_STEP) * seen / side


def _weights(
    cells: int, pixels: int, *, length: int, start: int, seen: int, side: int, first: float
) -> tuple[Float32Array, NDArray[np.bool_]]:
    """Along one axis: (pixels, cells) how much of each cell a pixel shows, and whether it was seen at all."""
    at = (np.arange(pixels) + 0.5) * length / pixels - start  # in pixels of the image, from the edge of what was seen
    cell = (at * side / seen - 0.5 - first) / CELL_STEP
    inside = np.clip(cell, 0, cells - 1)
    weights = np.clip(1 - np.abs(inside[:, None] - np.arange(cells)), 0, 1)
    # Half a cell beyond the outermost centre is that cell's, too; what lies further out no cell looks at in the first place.
    weights *= np.clip(2 - 2 * np.abs(cell - inside), 0, 1)[:, None]
    return weights.astype(np.float32), (at >= 0) & (at <= seen)


def _strongest(findings: Sequence[Finding]) -> list[Finding]:
    present = [finding for finding in findings if finding.present]
    return sorted(present, key=lambda finding: (-finding.score, finding.label))[:HEATS_MAX]
