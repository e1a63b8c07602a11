"""A data set's compressed pixel data made native, in place and without loss. Runs in a child: codecs may die.

Every decoded sample is kept as it is. Colours are converted only where the compression itself had converted them: the
colour transforms of JPEG 2000, which native pixel data may not have, and the YCbCr of lossy JPEG, whose decoded form is
RGB for dcmtk, for Orthanc and for the displays that take nothing but uncompressed images.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import convert_color_space, get_decoder
from pydicom.uid import JPEG2000, UID, JPEGExtended12Bit, RLELossless

from router.classify import header
from router.classify.decode import LOSSY_JPEG, PLUGINS
from router.classify.scan import mended
from router.errors import NotForThisClassifier, UnreadablePixels

#: PS3.5 7.1.1: the length of a native value is even and has 32 bits; the largest number means «undefined».
PIXEL_BYTE_COUNT_MAX = 2**32 - 2
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
#: PS3.3 C.7.6.3.1.2: what native pixel data may say.
_NATIVE_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL")
#: The last marker of a JPEG, JPEG-LS or JPEG 2000 codestream.
_END_OF_IMAGE = b"\xff\xd9"


def make_native(ds: Dataset, syntax: str, passing: IO[bytes]) -> None:
    """Replaces encapsulated Pixel Data, in icons too, by what it decodes to; every other element keeps its bytes.

    `passing` is an empty file in which the pixels lie from now on. SOP Instance UID, Image Type and the attributes of
    lossy compression stay: no pixel changes that anybody looks at, so nothing is derived (PS3.3 C.7.6.1.1.2 and
    C.7.6.1.1.5). Photometric Interpretation and Planar Configuration, always by pixel, say what the native pixels are.

    Raises UnreadablePixels, whose text says why; MemoryError; OSError of the file.
    Sources: PS3.5 8.1, 8.2 and A.4; PS3.3 C.7.6.3.1.2 and C.7.6.3.1.3.
    """
    for tag in list(ds.keys()):
        if ds.get_item(tag).VR == "SQ":
            for item in ds[tag].value or ():
                make_native(item, syntax, BytesIO())
    if not _encapsulated(ds):
        return
    meaning, count = "", 0
    for frame, photometric in _frames(ds, UID(syntax)):
        meaning = photometric
        count += passing.write(np.ascontiguousarray(frame).data)
    if count % 2:
        passing.write(b"\0")
    passing.flush()
    passing.seek(0)
    ds.add_new(_PIXEL_DATA, "OB" if _integer(ds, "BitsAllocated") <= 8 else "OW", passing)
    ds.PhotometricInterpretation = meaning
    if _integer(ds, "SamplesPerPixel", absent=1) > 1:
        ds.PlanarConfiguration = 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength"):
        if keyword in ds:  # PS3.3 C.7.6.3: of encapsulated pixel data only
            del ds[keyword]


def _encapsulated(ds: Dataset) -> bool:
    if _PIXEL_DATA not in ds:
        return False
    element = ds.get_item(_PIXEL_DATA)
    return element.length == _UNDEFINED if element.is_raw else bool(element.is_undefined_length)


def _frames(ds: Dataset, syntax: UID) -> Iterator[tuple[NDArray[Any], str]]:
    """Each frame as (rows, columns[, samples]) of the type that Bits Allocated asks for, and its Photometric Interpretation."""
    if syntax not in PLUGINS:
        raise UnreadablePixels(f"there is no decoder here for {syntax.name}")
    rows, columns = _integer(ds, "Rows"), _integer(ds, "Columns")
    samples = _integer(ds, "SamplesPerPixel", absent=1)
    frame_count = _integer(ds, "NumberOfFrames", absent=1) or 1
    allocated, stored = _integer(ds, "BitsAllocated"), _integer(ds, "BitsStored")
    if allocated not in (8, 16, 32) or samples not in (1, 3) or min(rows, columns, frame_count, stored) < 1:
        raise UnreadablePixels("the sizes of image and pixels that its header states are impossible")
    if rows * columns * samples * frame_count * (allocated // 8) > PIXEL_BYTE_COUNT_MAX:
        raise UnreadablePixels("uncompressed it is larger than the 4 GiB that pixel data may have")
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    kind = "i" if _integer(ds, "PixelRepresentation", absent=0) else "u"
    wanted = np.dtype(f"<{kind}{allocated // 8}")
    if syntax in LOSSY_JPEG and allocated != 8 and samples == 3:
        raise UnreadablePixels("there is no decoder here for lossy JPEG in colours of more than 8 bits")
    if syntax in LOSSY_JPEG:
        _mend(ds, frame_count)
    with_adobe_marker = _check_codestreams(ds, syntax, frame_count, samples)
    done = 0
    for frame, photometric in _decoded(ds, syntax, stored):
        if done == frame_count or frame.shape != shape:
            raise UnreadablePixels("its pixel data has another size than its header states")
        done += 1
        values, meaning = frame, photometric
        if meaning == "YBR_FULL_422":
            meaning = "YBR_FULL"  # every decoder gives each pixel its own chroma
        if samples == 3 and syntax in LOSSY_JPEG:
            # With Adobe's marker libjpeg has converted by itself, to what that marker says.
            if meaning == "YBR_FULL" and not with_adobe_marker:
                values = convert_color_space(frame, "YBR_FULL", "RGB")
            meaning = "RGB"
        if meaning not in _NATIVE_PHOTOMETRIC:
            raise UnreadablePixels(f"its colours ({meaning}) have no uncompressed form")
        yield values.astype(wanted, copy=False), meaning
    if done != frame_count:
        raise UnreadablePixels(f"it holds {done} of the {frame_count} frames that its header states")


def _mend(ds: Dataset, frame_count: int) -> None:
    """Puts wrong scan headers right, where decoders would stumble over them; pixels stay what they are."""
    try:
        frames = list(generate_frames(ds.PixelData, number_of_frames=frame_count))
        repaired = [mended(frame) for frame in frames]
    except (UnreadablePixels, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a parser says of hostile bytes
        raise UnreadablePixels(f"its compressed pixel data is damaged ({type(error).__name__})") from None
    if repaired != frames:
        ds.PixelData = encapsulate(repaired)
        ds["PixelData"].is_undefined_length = True


def _check_codestreams(ds: Dataset, syntax: UID, frame_count: int, samples: int) -> bool:
    """True when the first one is a colour JPEG with Adobe's marker. Raises UnreadablePixels for one that has no end.

    Most decoders fill what is cut off with grey and say nothing: on a screen that is seen, in an archive it is for ever.
    """
    if syntax == RLELossless:
        return False  # its decoder counts
    first = b""
    try:
        for frame in generate_frames(ds.PixelData, number_of_frames=frame_count):
            first = first or frame
            if not frame.rstrip(b"\0\xff").endswith(_END_OF_IMAGE):  # some pad with 0xFF
                raise UnreadablePixels("its compressed pixel data is cut off")
        if syntax not in LOSSY_JPEG or samples == 1:
            return False
        with Image.open(BytesIO(first), formats=("JPEG",)) as image:
            return "adobe_transform" in image.info
    except (UnreadablePixels, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a parser says of hostile bytes
        raise UnreadablePixels(f"its compressed pixel data is damaged ({type(error).__name__})") from None


def _decoded(ds: Dataset, syntax: UID, bits_stored: int) -> Iterator[tuple[NDArray[Any], str]]:
    """By one decoder only: a second, more patient one would make up what the first one misses."""
    plugin = "pillow" if syntax == JPEGExtended12Bit and bits_stored == 8 else PLUGINS[syntax][0]
    if syntax == JPEG2000:
        plugin = "pylibjpeg"  # pillow makes 8 bits of colours that have more
    if getattr(ds, "file_meta", None) is None:  # an icon
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
    try:
        decoder = get_decoder(syntax)
        for frame, properties in decoder.iter_array(ds, raw=True, decoding_plugin=plugin):
            yield frame, str(properties["photometric_interpretation"])
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001 - a Rust codec's panic is a BaseException
        # Only the type: the text of a codec's exception may quote what it was fed.
        raise UnreadablePixels(f"{plugin} cannot decode it ({type(error).__name__})") from None


def _integer(ds: Dataset, keyword: str, absent: int | None = None) -> int:
    try:
        return header.integer(ds, keyword, absent=absent)
    except NotForThisClassifier:
        raise UnreadablePixels(f"its header lacks a usable {keyword}") from None
