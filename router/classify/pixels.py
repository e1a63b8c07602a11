"""From a data set to what the network wants: torchxrayvision's own chain, with its handling of the Modality LUT mended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from router.classify import header
from router.classify.decode import FrameShape, shape_of, stored_values
from router.classify.reasons import refusal
from router.classify.resize import Float32Array, resized
from router.core.sight import Square

#: Changes when the same image would give another input, or the picture check (`frontal`) another value, which is noted in
#: documents; part of a classifier's identity.
VERSION = "1"


def to_input(ds: Dataset, side: int, values: NDArray[np.integer[Any]] | None = None) -> Float32Array:
    """One image's pixels as the network wants them: float32 (1, side, side), black -1024, white 1024.

    The central square is cut out and resized; what lies outside it is not seen. `values` are the stored values, for callers
    that have decoded them already.
    Raises UnreadablePixels (no decoder can read them) or NotForThisClassifier (not one grey frame, or a constant one).
    Sources: torchxrayvision 1.5.7 utils.read_xray_dcm and normalize, datasets.XRayCenterCrop and XRayResizer (skimage);
    PS3.3 C.7.6.3.1.2 (MONOCHROME1), C.11.1 (Modality LUT).
    """
    shape = shape_of(ds)
    values = stored_values(ds) if values is None else values
    tables = header.items(ds, "ModalityLUTSequence")
    if tables:
        values, black, white = looked_up(values, tables[0], byte_order(ds), "Modality")
        picture = _picture(values)
    else:
        picture = _padding_blackened(_picture(values), ds, shape)
        black, white = _ends(picture, ds, shape)
    if shape.inverted:
        black, white = white, black
    if picture.darkest == picture.brightest:
        raise refusal("constant")
    scale = 2048.0 / (white - black)
    extremes = (picture.darkest, picture.brightest)
    return resized(picture.square, side, scale=scale, offset=-1024.0 - scale * black, extremes=extremes)[np.newaxis]


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image's values, and what is to be known of all of them: each is looked at once, which takes a millisecond."""

    values: NDArray[np.integer[Any]]
    square: NDArray[np.integer[Any]]
    """The part of them that is seen."""
    darkest: int
    brightest: int
    """Of the square, were nothing inverted."""
    least: int
    most: int
    """Of all."""


def _picture(values: NDArray[np.integer[Any]]) -> _Picture:
    seen = central_square(*values.shape)
    rows, columns = slice(seen.top, seen.top + seen.side), slice(seen.left, seen.left + seen.side)
    square = values[rows, columns]
    # It is as large as the image in one direction: these are nothing, or beside it.
    beside = (values[: rows.start], values[rows.stop :], values[:, : columns.start], values[:, columns.stop :])
    parts = [(int(part.min()), int(part.max())) for part in (square, *beside) if part.size]
    least, most = min(low for low, _ in parts), max(high for _, high in parts)
    return _Picture(values, square, *parts[0], least, most)


def _ends(picture: _Picture, ds: Dataset, shape: FrameShape) -> tuple[float, float]:
    """The stored values that stand for the two ends of the grey scale, the smaller output of the Modality LUT first.

    A rescale of unsigned values moves both ends with the values and so cancels out; a negative slope swaps them. Signed
    values of a radiograph are unsigned ones shifted down by half their range, and the intercept says by how much
    (-16384..16383 and an intercept of 16384 are the 15 bits 0..32767); where it does not, their range is all that
    Bits Stored can hold. Upstream ignores sign and rescale (-1326..-542 instead of -605..918 on such an image).
    """
    slope, intercept = rescale(ds)
    least, most = picture.least, picture.most
    low, high = (float(end) for end in _range(shape))
    half = 2 ** (shape.bits_stored - 1)
    if least < low or most > high:
        raise refusal("value_range")
    shift = intercept / slope
    if shape.signed and 0 < shift <= half and -shift <= least and most <= shift - 1:
        low, high = -shift, shift - 1
    return (low, high) if slope > 0 else (high, low)


def _range(shape: FrameShape) -> tuple[int, int]:
    """The least and the greatest value that Bits Stored can hold."""
    half = 2 ** (shape.bits_stored - 1)
    return (-half, half - 1) if shape.signed else (0, 2 * half - 1)


def _padding_blackened(picture: _Picture, ds: Dataset, shape: FrameShape) -> _Picture:
    """Padding that Bits Stored cannot hold, made black; otherwise it would leave black and white unknown.

    Padding inside the range stays what it is, as upstream leaves it: most of it is black already.
    Source: PS3.3 C.7.5.1.1.2 (Pixel Padding Value, Pixel Padding Range Limit, both inclusive, in either order).
    """
    low, high = _range(shape)
    if (picture.least >= low and picture.most <= high) or header.value(ds, "PixelPaddingValue") is None:
        return picture
    values = picture.values
    outside = (values < low) | (values > high)
    first = header.integer(ds, "PixelPaddingValue")
    last = header.integer(ds, "PixelPaddingRangeLimit", absent=first)
    padding = (values >= min(first, last)) & (values <= max(first, last))
    if (outside & ~padding).any():
        return picture
    black = high if shape.inverted == (rescale(ds)[0] > 0) else low
    return _picture(np.where(outside, values.dtype.type(black), values))


def rescale(ds: Dataset) -> tuple[float, float]:
    """Rescale Slope and Intercept (PS3.3 C.11.1). Raises NotForThisClassifier for a slope of 0 and for what is no number."""
    slope, intercept = _number(ds, "RescaleSlope", 1.0), _number(ds, "RescaleIntercept", 0.0)
    if slope == 0:
        raise refusal("header", "RescaleSlope is 0")
    return slope, intercept


def byte_order(ds: Dataset) -> str:
    """Of a data set's numbers, as numpy writes it."""
    return ">" if ds.original_encoding[1] is False else "<"


def looked_up(
    values: NDArray[np.integer[Any]], table: Dataset, order: str, which: str
) -> tuple[NDArray[np.integer[Any]], float, float]:
    """The outputs of a Modality or VOI LUT, and the ends of their range. pydicom's own knows no tables of 9 to 15 bits.

    Raises NotForThisClassifier for a table that contradicts itself. Source: PS3.3 C.11.1.1, C.11.2.1.1.
    """
    try:
        count, first, bits = (int(number) for number in table.LUTDescriptor)
        data = table.LUTData
        outputs = np.frombuffer(data, f"{order}u2") if isinstance(data, bytes) else np.asarray(data, np.int64)
    except Exception as error:  # noqa: BLE001 - a malformed table raises whatever it provokes
        raise refusal("header", f"the {which} LUT cannot be read: {type(error).__name__}") from None
    count = count or 2**16  # 0 stands for the number that 16 bits cannot say
    if values.dtype.kind == "i" and first >= 2**15:
        first -= 2**16  # the descriptor's second value has the sign of the pixels, whatever VR it came with
    if outputs.shape != (count,) or not 8 <= bits <= 16 or int(outputs.max()) > 2**bits - 1:
        raise refusal("header", f"the {which} LUT contradicts its descriptor")
    found = outputs[np.clip(values.astype(np.int64) - first, 0, count - 1)]
    return found, 0.0, float(2**bits - 1)


def _number(ds: Dataset, keyword: str, absent: float) -> float:
    found = header.value(ds, keyword)
    try:
        number = absent if found is None else float(found)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise refusal("header", f"{keyword} is not a number")
    return number


def central_square(rows: int, columns: int) -> Square:
    """The part of an image that is looked at: torchxrayvision's XRayCenterCrop."""
    side = min(rows, columns)
    return Square(top=rows // 2 - side // 2, left=columns // 2 - side // 2, side=side)
