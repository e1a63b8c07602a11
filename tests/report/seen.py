"""Made-up sights, and the four kinds of objects that show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from pydicom import Dataset

from router.core.findings import Prediction
from router.core.instance import SopInstance
from router.core.ports import ResultObject
from router.core.sight import Heat, Sight, Square, Window
from router.report.attachment import present
from router.report.gsps import GspsBuilder
from router.report.heatmap import HeatmapBuilder
from router.report.key_object import KeyObjectBuilder
from router.report.pdf import PdfBuilder
from tests.report.made import instance_of

BUILDERS: Mapping[str, Callable[[], HeatmapBuilder | GspsBuilder | KeyObjectBuilder | PdfBuilder]] = {
    "heatmap": HeatmapBuilder,
    "gsps": GspsBuilder,
    "key-object": KeyObjectBuilder,
    "pdf": PdfBuilder,
}
WINDOW = Window(slope=1, intercept=0, centre=2048, width=4096, function="LINEAR", inverted=False)


def sight(
    prediction: Prediction,
    *,
    rows: int = 2048,
    columns: int = 1536,
    window: Window | None = WINDOW,
    scale: float = 1 / 8,
) -> Sight:
    """A grey ramp with a hot place for each of the three strongest findings, side by side from left to right."""
    height, width = round(rows * scale), round(columns * scale)
    side = min(rows, columns)
    seen = Square(top=(rows - side) // 2, left=(columns - side) // 2, side=side)
    y, x = np.indices((height, width))
    heats = []
    for number, finding in enumerate(present(prediction)[:3], 1):
        at = (seen.left + side * number / 4) * scale, (seen.top + side / 2) * scale
        values = 5 - ((x - at[0]) ** 2 + (y - at[1]) ** 2) / (side * scale / 8) ** 2
        inside = (np.abs(y / scale - rows / 2) < side / 2) & (np.abs(x / scale - columns / 2) < side / 2)
        heats.append(
            Heat(finding=finding, cells=(7, 7), hottest=at, values=np.where(inside, values, 0).astype(np.float32))
        )
    grey = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(height, 0)
    return Sight(rows=rows, columns=columns, grey=grey, window=window, seen=seen, heats=tuple(heats))


def build(
    kind: str,
    source: Dataset,
    prediction: Prediction,
    seen: Sight | None = None,
    instance: SopInstance | None = None,
) -> ResultObject | None:
    """One object of a kind, of an image with this header."""
    builder = BUILDERS[kind]()
    instance = instance or instance_of(source)
    if isinstance(builder, KeyObjectBuilder):
        return builder.build(source, instance, prediction)
    return builder.illustrate(source, instance, prediction, lambda: seen or sight(prediction))
