"""An image as a person would see it: grey levels as its header asks for, reduced. For pictures; a classifier sees `pixels`.

Every stored value has one grey level, so the whole chain (Modality LUT, window or VOI LUT, polarity, padding) is worked out
for at most 65,536 values and then looked up, strip by strip: memory stays near one byte a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from router.classify import header
from router.classify.decode import frame_shape
from router.classify.pixels import byte_order, looked_up, rescale
from router.core.sight import Window
from router.errors import NotForThisClassifier

#: The longest side of a picture. A smaller image is enlarged to it: text beside it needs room.
SIDE = 1024
_LEVELS = 2**16
_STRIP_PIXELS = 2**22
#: Pixels a side that are looked at to judge a window.
_SAMPLE_SIDE = 512
#: Without a usable window: what becomes black and white.
_BLACK_PERCENTILE, _WHITE_PERCENTILE = 0.5, 99.5
#: A window that leaves nine tenths of the pixels within fewer grey levels than this shows nothing.
_SPREAD_MIN = 16


def displayed(ds: Dataset, values: NDArray[np.integer[Any]]) -> tuple[NDArray[np.uint8], Window | None]:
    """(height, width), longest side 1024, 0 is black; `values` are the stored values of the one frame.

    The first VOI LUT, else the first window, of those that the header offers; where there is none, or where it would show
    a flat picture, the range of the values themselves. Padding is black. The window is what `core.sight.Sight` says of it.
    Sources: PS3.3 C.11.1 (Modality LUT), C.11.2.1 (VOI LUT, windows and their functions), C.7.6.3.1.2 (MONOCHROME1),
    C.7.5.1.1.2 (Pixel Padding).
    """
    shown = greys(ds, values)
    picture = _reduced(_drawn(values, shown))
    if header.items(ds, "ModalityLUTSequence"):
        return picture, None
    slope, intercept = rescale(ds)
    return picture, replace(shown.window, slope=slope, intercept=intercept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Greys:
    """The grey level of every stored value of an image, as its header asks for."""

    least: int
    step: int
    """Level n is of the stored values from least + n * step on; over 1 for more than 16 bits only."""
    levels: NDArray[np.uint8]
    padding: NDArray[np.bool_]
    """Which of them stand for no picture; these are black."""
    window: Window
    """Over the outputs of the Modality LUT: what the levels were made by, or a window much like their VOI LUT."""
    source: str
    """lut, window; or that this is the range of the values: none, flat (what the header asks for shows nothing)."""


def greys(ds: Dataset, values: NDArray[np.integer[Any]], *, levels_max: int = _LEVELS) -> Greys:
    """See `displayed`."""
    least, most = int(values.min()), int(values.max())
    step = max(1, -(-(most - least + 1) // levels_max))
    numbers = np.arange(least, most + 1, step, dtype=np.int64)
    padding = padded(ds, numbers)
    every = max(1, max(values.shape) // _SAMPLE_SIDE)
    sample = (values[::every, ::every].astype(np.int64) - least) // step
    kept = sample[~padding[sample]]
    sample = kept if kept.size else sample.ravel()
    meanings = _meanings(ds, numbers)
    inverted = frame_shape(ds).inverted
    window = ranged = _ranged(meanings, sample, inverted=inverted)
    levels, source = _voi_table(ds, meanings), "lut"
    if levels is None and (asked := _asked_for(ds, inverted=inverted)) is not None:
        window, levels, source = asked, grey_levels(meanings, asked), "window"
    if levels is None or _flat(levels[sample]):
        source = "none" if levels is None else "flat"
        window, levels = ranged, grey_levels(meanings, ranged)
    table = 1 - levels if inverted else levels.copy()
    table[padding] = 0
    return Greys(
        least=least,
        step=step,
        levels=np.round(table * 255).astype(np.uint8),
        padding=padding,
        window=window,
        source=source,
    )


def _meanings(ds: Dataset, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the Modality LUT makes of stored values."""
    tables = header.items(ds, "ModalityLUTSequence")
    if tables:
        return np.asarray(looked_up(numbers, tables[0], byte_order(ds), "Modality")[0], np.float64)
    slope, intercept = rescale(ds)
    return np.asarray(numbers * slope + intercept, np.float64)


def _voi_table(ds: Dataset, meanings: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Grey levels in [0, 1] by the first VOI LUT; None when there is none, or one that contradicts itself."""
    for table in header.items(ds, "VOILUTSequence")[:1]:
        try:
            found, black, white = looked_up(np.round(meanings).astype(np.int64), table, byte_order(ds), "VOI")
        except NotForThisClassifier:
            return None
        return np.asarray((found - black) / (white - black), np.float64)
    return None


def _asked_for(ds: Dataset, *, inverted: bool) -> Window | None:
    """The first window, unless it is none."""
    centre, width = _first_number(ds, "WindowCenter"), _first_number(ds, "WindowWidth")
    function = header.word(ds, "VOILUTFunction")
    if function not in ("LINEAR_EXACT", "SIGMOID"):
        function = "LINEAR"
    if centre is None or width is None or (width < 1 and (function == "LINEAR" or width <= 0)):
        return None
    return Window(slope=1, intercept=0, centre=centre, width=width, function=function, inverted=inverted)


def _ranged(meanings: NDArray[np.float64], sample: NDArray[np.int64], *, inverted: bool) -> Window:
    """A window over the values that are there."""
    black, white = (float(end) for end in np.percentile(meanings[sample], (_BLACK_PERCENTILE, _WHITE_PERCENTILE)))
    width = max(white - black, 1.0)
    return Window(
        slope=1, intercept=0, centre=(black + white) / 2, width=width, function="LINEAR_EXACT", inverted=inverted
    )


def grey_levels(meanings: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Grey levels in [0, 1]."""
    if window.function == "SIGMOID":
        steep = np.clip(-4 * (meanings - window.centre) / window.width, -50, 50)
        return np.asarray(1 / (1 + np.exp(steep)), np.float64)
    if window.function == "LINEAR_EXACT":
        levels = (meanings - window.centre) / window.width + 0.5
    else:
        levels = (meanings - (window.centre - 0.5)) / max(window.width - 1, 1e-6) + 0.5
    return np.asarray(np.clip(levels, 0, 1), np.float64)


def _flat(levels: NDArray[np.float64]) -> bool:
    low, high = np.percentile(levels, (5, 95))
    return bool((high - low) * 255 < _SPREAD_MIN)


def padded(ds: Dataset, numbers: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which of these stored values are padding."""
    value = _first_number(ds, "PixelPaddingValue")
    if value is None:
        return np.zeros(numbers.shape, np.bool_)
    limit = _first_number(ds, "PixelPaddingRangeLimit")
    ends = (value, value if limit is None else limit)
    return (numbers >= min(ends)) & (numbers <= max(ends))


def _first_number(ds: Dataset, keyword: str) -> float | None:
    try:
        number = float(header.word(ds, keyword))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _drawn(values: NDArray[np.integer[Any]], shown: Greys) -> NDArray[np.uint8]:
    drawn = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // values.shape[1])
    for top in range(0, values.shape[0], rows):
        strip = values[top : top + rows].astype(np.int64) - shown.least
        drawn[top : top + rows] = shown.levels[strip // shown.step if shown.step > 1 else strip]
    return drawn


def _reduced(drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = drawn.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.BICUBIC  # shrinking, both weigh every pixel
    return np.asarray(Image.fromarray(drawn).resize(size, way, reducing_gap=2.0))
