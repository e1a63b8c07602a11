"""Maps as pictures to be laid over an image on a page, where whoever looks chooses how much of each is seen."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from router.core.sight import Heat, Layer, Sight
from router.report.picture import coloured, hatched

#: Pixels of the longest side; the map is linear between cells that are ten times as large.
_SIDE = 512
_HATCH = (150, 150, 150, 200)


def layers_of(sight: Sight) -> tuple[Layer, ...]:
    """One for each heat, in the same colours as the heatmap (`report.picture`)."""
    return tuple(_layer(sight, heat) for heat in sight.heats)


def _layer(sight: Sight, heat: Heat) -> Layer:
    every = max(1, max(heat.values.shape) // _SIDE)
    values = heat.values[::every, ::every]
    colours, share = coloured(values)
    picture = np.dstack((colours, share))
    height, width = share.shape
    y, x = np.indices((height, width), dtype=np.int32)
    row, column = (y + 0.5) * sight.rows / height - sight.seen.top, (x + 0.5) * sight.columns / width - sight.seen.left
    seen = (row >= 0) & (row <= sight.seen.side) & (column >= 0) & (column <= sight.seen.side)
    picture[~seen] = 0
    picture[~seen & hatched(y, x)] = _HATCH
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=1)
    return Layer(
        finding=heat.finding,
        cells=heat.cells,
        silent=float(heat.values.max()) <= 0,
        cropped=not bool(seen.all()),
        png=stream.getvalue(),
    )
