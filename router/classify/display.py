"""An image as a person would see it: grey levels as its header asks for, reduced. For pictures; a classifier sees `pixels`.

Every stored value has one grey level, so the whole chain (Modality LUT, window or VOI LUT, polarity, padding) is worked out
for at most 65,536 values and then looked up, strip by strip: memory stays near one byte a pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from router.classify import header
from router.classify.decode import shape_of
from router.classify.pixels import byte_order, looked_up, rescale
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


def grey_of(ds: Dataset, values: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """(height, width), longest side 1024, 0 is black; `values` are the stored values of the one frame.

    The first VOI LUT, else the first window, of those that the header offers; where there is none, or where it would show
    a flat picture, the range of the values themselves. Padding is black.
    Sources: PS3.3 C.11.1 (Modality LUT), C.11.2.1 (VOI LUT, windows and their functions), C.7.6.3.1.2 (MONOCHROME1),
    C.7.5.1.1.2 (Pixel Padding).
    """
    least, most = int(values.min()), int(values.max())
    step = max(1, -(-(most - least + 1) // _LEVELS))  # over 1 for more than 16 bits only
    numbers = np.arange(least, most + 1, step, dtype=np.int64)
    padding = _padding(ds, numbers)
    every = max(1, max(values.shape) // _SAMPLE_SIDE)
    sample = (values[::every, ::every].astype(np.int64) - least) // step
    sample = sample[~padding[sample]]
    meanings = _meanings(ds, numbers)
    levels = _asked_for(ds, meanings)
    if sample.size and (levels is None or _flat(levels[sample])):
        levels = _ranged(meanings, sample)
    table = np.zeros(numbers.size) if levels is None else levels
    if shape_of(ds).inverted:
        table = 1 - table
    table[padding] = 0
    return _reduced(_drawn(values, np.round(table * 255).astype(np.uint8), least, step))


def _meanings(ds: Dataset, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the Modality LUT makes of stored values."""
    tables = header.items(ds, "ModalityLUTSequence")
    if tables:
        return np.asarray(looked_up(numbers, tables[0], byte_order(ds), "Modality")[0], np.float64)
    slope, intercept = rescale(ds)
    return np.asarray(numbers * slope + intercept, np.float64)


def _asked_for(ds: Dataset, meanings: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Grey levels in [0, 1] as the header asks for, or None when it does not, or not in a way that can be followed."""
    for table in header.items(ds, "VOILUTSequence")[:1]:
        try:
            found, black, white = looked_up(np.round(meanings).astype(np.int64), table, byte_order(ds), "VOI")
        except NotForThisClassifier:
            continue
        return np.asarray((found - black) / (white - black))
    centre, width = _first_number(ds, "WindowCenter"), _first_number(ds, "WindowWidth")
    if centre is None or width is None or width <= 0:
        return None
    function = header.word(ds, "VOILUTFunction")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (meanings - centre) / width, -50, 50))))
    if function == "LINEAR_EXACT":
        return np.clip((meanings - centre) / width + 0.5, 0, 1)
    return np.clip((meanings - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5, 0, 1)


def _ranged(meanings: NDArray[np.float64], sample: NDArray[np.int64]) -> NDArray[np.float64]:
    black, white = np.percentile(meanings[sample], (_BLACK_PERCENTILE, _WHITE_PERCENTILE))
    return np.asarray(np.clip((meanings - black) / max(white - black, 1e-6), 0, 1), np.float64)


def _flat(levels: NDArray[np.float64]) -> bool:
    low, high = np.percentile(levels, (5, 95))
    return bool((high - low) * 255 < _SPREAD_MIN)


def _padding(ds: Dataset, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    value = _first_number(ds, "PixelPaddingValue")
    if value is None:
        return np.zeros(numbers.size, np.bool_)
    limit = _first_number(ds, "PixelPaddingRangeLimit")
    ends = (value, value if limit is None else limit)
    return (numbers >= min(ends)) & (numbers <= max(ends))


def _first_number(ds: Dataset, keyword: str) -> float | None:
    try:
        number = float(header.word(ds, keyword))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _drawn(values: NDArray[np.integer[Any]], table: NDArray[np.uint8], least: int, step: int) -> NDArray[np.uint8]:
    drawn = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // values.shape[1])
    for top in range(0, values.shape[0], rows):
        strip = values[top : top + rows].astype(np.int64) - least
        drawn[top : top + rows] = table[strip // step if step > 1 else strip]
    return drawn


def _reduced(drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = drawn.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(drawn).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
