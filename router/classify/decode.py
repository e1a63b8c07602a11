"""One frame's stored values out of a data set, whatever its transfer syntax. Runs in the child: codecs may die."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from router.classify import header
from router.classify.mapped import map_pixels
from router.classify.reasons import refusal
from router.classify.scan import mended
from router.errors import UnreadablePixels

#: The largest radiographs have some 20 million pixels; beyond this it is a bomb or no radiograph.
PIXEL_COUNT_MAX = 100_000_000

#: Which pydicom plugin decodes what, fastest first (measured on chest radiographs). GDCM is left out on purpose: its RLE
#: decoder aborts the process on 8-bit images with odd rows and columns, its JPEG-LS decoder on frames that are too small.
PLUGINS: dict[str, tuple[str, ...]] = {
    JPEGBaseline8Bit: ("pillow", "pylibjpeg"),
    JPEGExtended12Bit: ("pylibjpeg", "pillow"),
    JPEGLossless: ("pylibjpeg",),
    JPEGLosslessSV1: ("pylibjpeg",),
    JPEGLSLossless: ("pyjpegls", "pylibjpeg"),
    JPEGLSNearLossless: ("pyjpegls", "pylibjpeg"),
    JPEG2000Lossless: ("pylibjpeg", "pillow"),
    JPEG2000: ("pillow", "pylibjpeg"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
    # Not pydicom's own as a second: it unpacks all of a segment that is longer than the image (16 MB became 1.1 GB).
    RLELossless: ("pylibjpeg",),
}

#: The lossy JPEG processes; both are sequential.
LOSSY_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit)
_PIXEL_KEYWORDS = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
                   "PixelRepresentation", "PlanarConfiguration")  # fmt: skip

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameShape:
    """How one grey frame is stored (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    inverted: bool
    """MONOCHROME1: the smallest value is white."""


def shape_of(ds: Dataset) -> FrameShape:
    """What the header says of the pixels, without touching them.

    Raises NotForThisClassifier when this is not one grey frame of a size and depth that a radiograph has.
    Source: PS3.3 C.7.6.3.1 (Image Pixel Module), C.7.6.6 (Number of Frames).
    """
    if "PixelData" in ds and header.integer(ds, "NumberOfFrames", absent=1) != 1:
        raise refusal("frames")
    return frame_shape(ds)


def frame_shape(ds: Dataset) -> FrameShape:
    """The same of each of any number of frames."""
    if "PixelData" not in ds:
        raise refusal("no_pixels")
    if header.integer(ds, "SamplesPerPixel", absent=1) != 1:
        raise refusal("colour")
    photometric = header.word(ds, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise refusal("photometric")
    rows, columns = header.integer(ds, "Rows"), header.integer(ds, "Columns")
    if rows * columns > PIXEL_COUNT_MAX:
        raise refusal("too_large", f"{rows} x {columns}")
    allocated = header.integer(ds, "BitsAllocated")
    stored = header.integer(ds, "BitsStored")
    if allocated not in (8, 16, 32) or not 2 <= stored <= allocated or rows < 1 or columns < 1:
        raise refusal("header", "the sizes of image and pixels are impossible")
    return FrameShape(
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=header.integer(ds, "PixelRepresentation", absent=0) == 1,
        inverted=photometric == "MONOCHROME1",
    )


def stored_values(ds: Dataset) -> NDArray[np.integer[Any]]:
    """The frame's stored values: integers (rows, columns), not inverted, not rescaled; not to be written to.

    Raises UnreadablePixels when no decoder here can read them, and NotForThisClassifier as `shape_of` does.
    """
    shape_of(ds)
    return frame_values(ds, 0)


def frame_values(ds: Dataset, index: int) -> NDArray[np.integer[Any]]:
    """The same of one of any number of frames. Raises what `stored_values` raises."""
    shape = frame_shape(ds)
    syntax = _transfer_syntax(ds)
    values = _native(ds, syntax, shape, index) if syntax in _NATIVE else _encapsulated(ds, syntax, index)
    if values.shape != (shape.rows, shape.columns):
        raise UnreadablePixels("the decoded image is not as large as the header says")
    return values


def frame_colours(ds: Dataset, index: int) -> NDArray[np.integer[Any]]:
    """One frame of a colour image: (rows, columns, 3), RGB in as many bits as are stored; a palette is looked up.

    Raises UnreadablePixels, and NotForThisClassifier for what is too large.
    """
    syntax = _transfer_syntax(ds)
    rows, columns, samples = (header.integer(ds, name, absent=0) for name in ("Rows", "Columns", "SamplesPerPixel"))
    if rows * columns * samples > PIXEL_COUNT_MAX:
        raise refusal("too_large", f"{rows} x {columns}")
    palette = header.word(ds, "PhotometricInterpretation") == "PALETTE COLOR"
    decoded = _attempt if syntax in _NATIVE else _encapsulated
    values = decoded(ds, syntax, index, raw=palette)
    try:
        values = apply_color_lut(values, ds) if palette else values
    except Exception as error:  # noqa: BLE001 - a malformed palette raises whatever it provokes
        raise UnreadablePixels(f"its palette cannot be used ({type(error).__name__})") from None
    if values.ndim != 3 or values.shape[2] != 3:
        raise UnreadablePixels("the decoded image has not the colours that the header says")
    return values


def _transfer_syntax(ds: Dataset) -> UID:
    meta = getattr(ds, "file_meta", None)
    stated = header.value(meta, "TransferSyntaxUID") if meta is not None else None
    if stated is not None:
        return UID(stated)
    implicit, little = ds.original_encoding
    if not little:
        return ExplicitVRBigEndian
    return ExplicitVRLittleEndian if implicit is False else ImplicitVRLittleEndian


def _native(ds: Dataset, syntax: UID, shape: FrameShape, index: int) -> NDArray[np.integer[Any]]:
    # Sign bits above Bits Stored need not be there (PS3.5 8.1.1), so signed values are always extended. Unsigned values
    # are masked only where an old-style overlay is known to sit in the unused bits: where the header merely understates
    # Bits Stored, masking would fold white into black without a word.
    mask = shape.signed or _overlay_in_unused_bits(ds)
    # A view of the bytes read where there can be one; pydicom has none of swapped bytes, and says so in the log.
    view = syntax != ExplicitVRBigEndian
    if syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):  # a deflated data set lies otherwise in its file
        map_pixels(ds)
    return _attempt(ds, syntax, index, correct_unused_bits=mask, view_only=view)


def _encapsulated(ds: Dataset, syntax: UID, index: int, *, raw: bool = True) -> NDArray[np.integer[Any]]:
    plugins = PLUGINS.get(syntax)
    if plugins is None:
        raise UnreadablePixels(f"no decoder for transfer syntax {syntax} ({syntax.name})")
    problems = []
    for plugin in plugins:
        try:
            return _attempt(ds, syntax, index, plugin, raw=raw)
        except UnreadablePixels as error:
            problems.append(str(error))
    if syntax in LOSSY_JPEG and (repaired := _repaired(ds, index)) is not None:
        return _attempt(repaired, syntax, 0, plugins[0], raw=raw)
    raise UnreadablePixels(f"transfer syntax {syntax} ({syntax.name}): " + "; ".join(problems))


def _repaired(ds: Dataset, index: int) -> Dataset | None:
    """One frame's pixels alone, their JPEG scan header put right; None when nothing is wrong with it."""
    try:
        count = header.integer(ds, "NumberOfFrames", absent=1)
        frame = next(islice(generate_frames(ds.PixelData, number_of_frames=count), index, None))
        repaired = mended(frame)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever a parser says of hostile bytes: the decoders' own words are told
        return None
    if repaired == frame:
        return None
    pixels = Dataset()
    pixels.file_meta = ds.file_meta
    for keyword in _PIXEL_KEYWORDS:
        if keyword in ds:
            pixels[keyword] = ds[keyword]
    pixels.PixelData = encapsulate([repaired])
    pixels["PixelData"].is_undefined_length = True
    return pixels


def _attempt(
    ds: Dataset, syntax: UID, index: int, plugin: str = "", *, raw: bool = True, **options: Any
) -> NDArray[np.integer[Any]]:
    try:
        values, _ = get_decoder(syntax).as_array(ds, index=index, raw=raw, decoding_plugin=plugin, **options)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001 - a Rust codec's panic is a BaseException
        # Only the type: the text of a codec's exception may quote what it was fed.
        raise UnreadablePixels(f"{plugin or 'uncompressed'} cannot read it ({type(error).__name__})") from None
    return np.asarray(values)


def _overlay_in_unused_bits(ds: Dataset) -> bool:
    """An overlay in a group 60xx whose bits lie in the pixel data (retired; PS3.3-2004 C.9.2): bit position over 0."""
    for group in range(0x6000, 0x6020, 2):
        element = ds.get((group, 0x0102))
        if element is not None and element.value not in (None, 0) and (group, 0x3000) not in ds:
            return True
    return False
