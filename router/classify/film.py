"""One frame for a page's viewer: reduced, but still numbers and not greys, so that whoever looks can change the window.

Black and white come last: a window may be moved without decoding again, here or by `router/web/static/viewer.js`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from router.classify import header
from router.classify.decode import frame_colours, frame_shape, frame_values
from router.classify.display import Greys, grey_levels, greys, padded
from router.classify.pixels import byte_order, looked_up, rescale
from router.core.sight import Window
from router.errors import UnreadablePixels

#: Numbers of a film are 1 to this; 0 is padding.
_LEVELS_MAX = 2**16 - 1
_WINDOWS_MAX = 8
_NAME_LENGTH_MAX = 32
#: Of an enhanced multi-frame image: what stands in its functional groups (PS3.3 C.7.6.16.2.9, C.7.6.16.2.10).
_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One frame, and how it may be shown."""

    facts: dict[str, Any]
    """JSON-able; `viewer.js` reads the same names."""
    numbers: NDArray[np.unsignedinteger[Any]]
    """(height, width) uint16: n means slope * n + intercept, 0 is padding; of colours (height, width, 3) uint8, RGB."""
    levels: NDArray[np.uint8]
    """Grey level of the numbers from 1 on, as the header asks for; of colours empty."""

    def encoded(self) -> bytes:
        """Length of the facts (32 bits, little endian), facts as JSON, levels, numbers (little endian)."""
        facts = json.dumps(self.facts).encode()
        numbers = self.numbers.astype(self.numbers.dtype.newbyteorder("<"), copy=False)
        return struct.pack("<I", len(facts)) + facts + self.levels.tobytes() + numbers.tobytes()

    def drawn(self, *, centre: float | None = None, width: float | None = None, inverted: bool = False) -> Image.Image:
        """As its header asks, or by another window; `inverted`: the other way round."""
        if not self.levels.size:
            return Image.fromarray(self.numbers.astype(np.uint8))
        table = self.levels / 255.0
        if centre is not None and width is not None:
            meanings = np.arange(1, self.levels.size + 1) * self.facts["slope"] + self.facts["intercept"]
            window = Window(
                slope=1,
                intercept=0,
                centre=centre,
                width=width,
                function=self.facts["window"]["function"],
                inverted=self.facts["inverted"],
            )
            table = grey_levels(meanings, window)
            table = 1 - table if window.inverted else table
        table = np.concatenate(([0.0], 1 - table if inverted else table))
        return Image.fromarray(np.round(table * 255).astype(np.uint8)[self.numbers])


def film(ds: Dataset, index: int, side: int) -> Film:
    """Frame `index` (from 0) of a data set, its longest side at most `side`; never enlarged. `ds` is changed.

    Raises UnreadablePixels, NotForThisClassifier (whose text says why there is no picture) and MemoryError.
    Sources: as `classify.display.displayed`, whose rules it follows.
    """
    count = header.integer(ds, "NumberOfFrames", absent=1) or 1
    if not 0 <= index < count:
        raise UnreadablePixels(f"it has {count} frames")
    facts: dict[str, Any] = {"frames": count, "frame": index + 1}
    if _is_colour(ds):
        colours = _in_eight_bits(frame_colours(ds, index), ds)
        picture = Image.fromarray(colours)
        picture = picture.resize(_size(picture.height, picture.width, side), Image.Resampling.BILINEAR, reducing_gap=2)
        facts |= _sizes(colours, np.asarray(picture))
        return Film(facts=facts, numbers=np.asarray(picture), levels=np.zeros(0, np.uint8))
    _lift_groups(ds, index)
    values = frame_values(ds, index)
    empty = padded(ds, values)
    if empty.all():
        empty = np.zeros_like(empty)
    values = _modality(ds, values, empty)
    shown = greys(ds, values, levels_max=_LEVELS_MAX)
    whole = values.astype(np.float32)
    whole -= shown.least  # in place: of the largest radiographs this is half a gigabyte
    whole //= shown.step
    numbers = _reduced(whole, empty, side)
    slope, intercept = rescale(ds)
    kept = values[~empty] if empty.any() else values
    ends = sorted(float(end) * slope + intercept for end in (kept.min(), kept.max()))
    facts |= _sizes(values, numbers) | {
        "slope": slope * shown.step,
        "intercept": slope * (shown.least - shown.step) + intercept,
        "least": ends[0],
        "most": ends[1],
        "levels": shown.levels.size,
        "inverted": frame_shape(ds).inverted,
        "source": shown.source,
        "window": {"centre": shown.window.centre, "width": shown.window.width, "function": shown.window.function},
        "windows": _windows(ds),
    }
    return Film(facts=facts, numbers=numbers, levels=_without_padding(shown))


def _is_colour(ds: Dataset) -> bool:
    return (
        header.integer(ds, "SamplesPerPixel", absent=1) == 3
        or header.word(ds, "PhotometricInterpretation") == "PALETTE COLOR"
    )


def _in_eight_bits(colours: NDArray[np.integer[Any]], ds: Dataset) -> NDArray[np.uint8]:
    bits = 16 if colours.dtype.itemsize > 1 else 8
    if bits > 8 and header.word(ds, "PhotometricInterpretation") != "PALETTE COLOR":
        bits = header.integer(ds, "BitsStored")
    return np.ascontiguousarray(np.clip(colours >> max(0, bits - 8), 0, 255).astype(np.uint8))


def _lift_groups(ds: Dataset, index: int) -> None:
    """Rescale and windows of a frame's functional groups, written where images of one frame have them."""
    shared = header.items(ds, "SharedFunctionalGroupsSequence")[:1]
    own = header.items(ds, "PerFrameFunctionalGroupsSequence")[index : index + 1]
    for group in (*shared, *own):
        for name in _GROUPS:
            for item in header.items(group, name)[:1]:
                ds.update(item)


def _modality(ds: Dataset, values: NDArray[np.integer[Any]], empty: NDArray[np.bool_]) -> NDArray[np.integer[Any]]:
    """The outputs of a Modality LUT that is a table: from then on they are the stored values. Others stay as they are."""
    tables = header.items(ds, "ModalityLUTSequence")
    if not tables:
        return values
    values = looked_up(values, tables[0], byte_order(ds), "Modality")[0]
    values = np.where(empty, values.dtype.type(np.median(values[~empty])), values)
    for keyword in ("ModalityLUTSequence", "PixelPaddingValue", "RescaleSlope", "RescaleIntercept"):
        if keyword in ds:
            del ds[keyword]
    return values


def _without_padding(shown: Greys) -> NDArray[np.uint8]:
    """A mean of two pixels may fall upon a number that means padding: then it is as grey as the number beside it."""
    levels, real = shown.levels.copy(), np.flatnonzero(~shown.padding)
    if real.size:
        beside = np.searchsorted(real, np.flatnonzero(shown.padding)).clip(0, real.size - 1)
        levels[shown.padding] = levels[real[beside]]
    return levels


def _reduced(numbers: NDArray[np.float32], empty: NDArray[np.bool_], side: int) -> NDArray[np.uint16]:
    """Means of the numbers and not of greys, padding left out of them; one more than the number, so that 0 is padding."""
    height, width = numbers.shape
    size = _size(height, width, side)
    if size != (width, height):
        if empty.any():
            weight = _resized((~empty).astype(np.float32), size)
            total = _resized(numbers * ~empty, size)
            numbers = np.asarray(total / np.maximum(weight, 1e-6), np.float32)
            empty = weight < 0.5
        else:
            numbers, empty = _resized(numbers, size), np.zeros((1, 1), np.bool_)
    return np.where(empty, 0, np.clip(np.round(numbers), 0, _LEVELS_MAX - 1) + 1).astype(np.uint16)


def _resized(numbers: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(numbers).resize(size, Image.Resampling.BILINEAR, reducing_gap=2), np.float32)


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    """Width and height as Pillow wants them."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _sizes(whole: NDArray[Any], reduced: NDArray[Any]) -> dict[str, Any]:
    return {
        "rows": whole.shape[0],
        "columns": whole.shape[1],
        "height": reduced.shape[0],
        "width": reduced.shape[1],
    }


def _windows(ds: Dataset) -> list[dict[str, Any]]:
    """Every usable window of the header, with what it is called there."""
    names = header.words(ds, "WindowCenterWidthExplanation")
    found: list[dict[str, Any]] = []
    pairs = zip(header.words(ds, "WindowCenter"), header.words(ds, "WindowWidth"), strict=False)
    for number, (centre, width) in enumerate(pairs):
        try:
            window = {"centre": float(centre), "width": float(width)}
        except ValueError:
            continue
        if np.isfinite(list(window.values())).all() and window["width"] >= 1:
            name = names[number].capitalize()[:_NAME_LENGTH_MAX] if number < len(names) else ""
            found.append({"name": name or f"Window {number + 1}", **window})
    return found[:_WINDOWS_MAX]
