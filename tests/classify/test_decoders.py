"""Every transfer syntax that is said to be decoded is decoded, to the right pixels; what is not is named in words."""

from __future__ import annotations

import io
import re
import subprocess
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
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

from router.classify import decode
from router.classify.decode import stored_values
from router.classify.native import make_native
from router.classify.scan import mended
from router.errors import UnreadablePixels
from tests.peers import ROOT
from tests.samples import pydicom_file

_y, _x = np.mgrid[0:33, 0:35]
#: 12 bits, odd number of columns; the codestreams below are of this picture.
STEPS = (_x // 8 * 900 + _y // 8 * 90).astype(np.uint16)

# Made once by imagecodecs 2026.3.6 (OpenJPH 0.26.3 and liblj92): nothing here encodes these.
HTJ2K_REVERSIBLE = b64decode(
    "/0//UQApQAAAAAAjAAAAIQAAAAAAAAAAAAAAIwAAACEAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCI"
    "kJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAlQAAf+TwAArAMsCSwDezpPJAWGUAMAAEwCr"
    "qwELdADAABVwAAVA3d1Go9v4A/xBlQBFKxX9KPm0AMAAF0MAAFsgnz8fddSoUbFiff581FGjRsWK9fmoUbH+P3P1lxCAMbkA23A7"
    "bMM2bMOwGtZhHdZh/RT7s4Qf5DG5AMAAF7fAABejgPPnu3Ezf74bN/Pnu3Ezf77XO3++Gzfz57txM3++Gzfz53vzNn++Gzfz57tx"
    "M3++Gzfz53vzNn++Gzfz57txM3++Gzfz53vzNt/NfDfz3cz3/ggXnz5IPxuzjs5O7OOzk7s47OTiB8QgFlhCAWJ+AeNxHMdxHEdl"
    "VEZlVEZlVEZlVEZlVEZlVEZlVEZlVEZlVEYlUzIlUzIlUzIlUzIl+wA54IODH54IODH54IODHCHeSmnkp1cBwAAvoSAAF9CAgwcP"
    "Hjx48ODBgwcPHjx48ODBgwcPHjx48ODBgwcPHjx48ODBgwcPHjx48ODBgwcPHjx48ODBgwcPHjx48ODBgwcPHjx48ODBgwcPHvyH"
    "4QRhBGEEYQRlOU5TlOU5TlOU5TlOU5TlOU5TlOU5TlOU5TlOU5TlOU5TlOCAuCAuCAuCAncD2SzLsizLsizLsizLsiybZVmWZVmW"
    "ZVmWZVmWZbMsy7Isy7Isy7Isy7JslmVZlmVZlmVZlmVZ9vwAI9hCB79hCB79hCB79hCB7LAAACPYQge/YQge/YQge/YQgeywAAAj"
    "2EIHv2EIHv2EIHv2EIHssAAAI9hCB79hCB79hCB79hCB7L0E/9k="
)
HTJ2K_IRREVERSIBLE = b64decode(
    "/0//UQApQAAAAAAjAAAAIQAAAAAAAAAAAAAAIwAAACEAAAAAAAAAAAABDwEB/1AACAACAAAAKf9SAAwAAgABAAUEBEAA/1wAIyKu"
    "1q6prqmufKa/pr+moZ8KnwqfIZfBl8GIIo+Oj46PHv9kABcAAU9wZW5KUEggVmVyIDAuMjYuMy7/kAAKAAAAAANXAAH/k8AAArhL"
    "ELF2Hp7RP4f5AeGUAMAAAnCrXOUCi3QAwAAFaGywccopbDjlA5lCtQDAAAukgAAWyNGM5ttvr746pZSieebbb6++OqWUnvn26pT+"
    "AM9/5wcYwFmaAPkxf+RHfuTH1/rar/3ar/0U+7OEH+QxuQDAABe9wAAXpoBy5BQv7s9f+fL+/JUv748/Cyzg4SFHTvHi/vyVL+/P"
    "X/ny/vizwAIeeSRHTvHi/vyVL+/PX/ny/vizwAIeeSRHTvHi/vyVL+/PX/ny/vizwAIeeSRHcX/l/ZX3ZwGPAYLz5/P5uzjs4l2c"
    "dnEuzjs4kYPjEAssIQCyvQHIh/iQD/mQD/mQD/mQzwqt0Aqt0Aqt0Aqt0Aqt0Aqt0Aqt0Aqt0AqtkJqoiZqoiZqoiZqoiZr+HPBB"
    "wY/PBBwY/PBBwY4Rv5BC5Ba2AcAAL9JIAAX2wFKkDBjQLUXKgAO6pUgZcEC3FCkDDuiWImXAgA4dpEgZMKBDBylSBgzo0EGKlAED"
    "OnSQImXAgA4dpEgZMKBDBylSBgzo0EGKlAEDOnSQImXAgA4dpEgZMKBDBylSBgzo0EGKlAEDOnSQImXAgA4dpEgZMKBDBylSBgzo"
    "0EGKlAEDOnSQImXAgA4dpEgZMKBDBylSBgzo0EGKlAEDOnSQImXAgA4dpEgZMKBDBylSBgzo0EGKlAEDOnSQImXAgA4dpEgZMKBD"
    "BylSBgzo0EGKlAEDOnSQYkBLMaClGNBSDOiADC+Zp8zT5mnzOkhyQ5Ick6SHJDkhyTpIckOSHJOkhyQ5Ick6SHJDkhyTpIckOSHJ"
    "OkhyQ5Iclh8QqT4hUnxCpPkCtQQmNmITTWyiiU00sYkmNtHEJprYRBObaOIQQgghhBBCCCGEEExsxCaa2EQTm2hiE01soolNNLGJ"
    "JjbRxCGEEEIIIYQQQgghmNiITTSxiSY20cQmmthEE5toYhNNbKKJQwghhBBCCCGEEEIwtVGbampTTW2qqU01tammNtXUppraVFP8"
    "AAUwAAp0wAAp0wAAp0wAApu2ta1rWs4ApgABTpgABTpgABTpgABTdta1rWtZwBTAACnTAACnTAACnTAACm7a1rWtazgCmAAFOmAA"
    "FOmAAFOmAAFN1wX/2Q=="
)
JPEG_LOSSLESS = b64decode(
    "/9j/xAAYAAEBAQEBAAAAAAAAAAAAAAAABgoHDP/DAAsMACEAIwEAEQD/2gAIAQAABgAA8/8AgNwgDcIA3CANwgAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAADrVbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1taAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAADrVbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1taAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AADrVbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1taAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADrVbW1tbW1"
    "tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1taD/2Q=="
)


def _encapsulated(ds: Dataset, syntax: str, frame: bytes) -> Dataset:
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].is_undefined_length = True
    return ds


def _compressed(ds: Dataset, syntax: str, **options: object) -> Dataset:
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.set_original_encoding(False, True)
    ds.compress(syntax, generate_instance_uid=False, **options)
    return ds


def _baseline(ds: Dataset) -> Dataset:
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    stream = io.BytesIO()
    Image.fromarray((STEPS >> 4).astype(np.uint8)).save(stream, "JPEG", quality=100)
    return _encapsulated(ds, JPEGBaseline8Bit, stream.getvalue())


#: Transfer syntax -> how STEPS comes in it, and by how much a pixel may differ.
MADE = {
    JPEGBaseline8Bit: (_baseline, 2),
    JPEGLossless: (lambda ds: _encapsulated(ds, JPEGLossless, JPEG_LOSSLESS), 0),
    JPEGLosslessSV1: (lambda ds: _encapsulated(ds, JPEGLosslessSV1, JPEG_LOSSLESS), 0),
    JPEGLSLossless: (lambda ds: _compressed(ds, JPEGLSLossless), 0),
    JPEGLSNearLossless: (lambda ds: _compressed(ds, JPEGLSNearLossless, jls_error=2), 2),
    JPEG2000Lossless: (lambda ds: _compressed(ds, JPEG2000Lossless), 0),
    JPEG2000: (lambda ds: _compressed(ds, JPEG2000, j2k_psnr=[80]), 4),
    HTJ2KLossless: (lambda ds: _encapsulated(ds, HTJ2KLossless, HTJ2K_REVERSIBLE), 0),
    HTJ2KLosslessRPCL: (lambda ds: _encapsulated(ds, HTJ2KLosslessRPCL, HTJ2K_REVERSIBLE), 0),
    HTJ2K: (lambda ds: _encapsulated(ds, HTJ2K, HTJ2K_IRREVERSIBLE), 16),
    RLELossless: (lambda ds: _compressed(ds, RLELossless), 0),
}
NATIVE = {
    ImplicitVRLittleEndian: (True, True),
    ExplicitVRLittleEndian: (False, True),
    DeflatedExplicitVRLittleEndian: (False, True),
    ExplicitVRBigEndian: (False, False),
}


@pytest.mark.parametrize("syntax", MADE, ids=lambda uid: uid.name)
def test_compressed_pixels_are_decoded(made, syntax: UID) -> None:
    make, tolerance = MADE[syntax]
    ds = make(made(STEPS, bits_stored=12))
    wanted = STEPS >> 4 if syntax == JPEGBaseline8Bit else STEPS
    assert np.abs(stored_values(ds).astype(int) - wanted).max() <= tolerance


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.name)
def test_uncompressed_pixels_are_read(made, tmp_path: Path, syntax: UID) -> None:
    implicit, little = NATIVE[syntax]
    ds = made(STEPS, bits_stored=12)
    ds.file_meta.TransferSyntaxUID = syntax
    if not little:
        ds.PixelData = STEPS.astype(">u2").tobytes()
    ds.save_as(tmp_path / "image.dcm", implicit_vr=implicit, little_endian=little)
    np.testing.assert_array_equal(stored_values(dcmread(tmp_path / "image.dcm", force=True)), STEPS)


def test_twelve_bit_lossy_jpeg_is_decoded() -> None:
    values = stored_values(_radiograph("JPGExtended.dcm"))
    assert values.shape == (1024, 256)
    assert (values.min(), values.max()) == (0, 264)


def test_a_sequential_jpeg_with_impossible_scan_limits_is_decoded_to_the_same_pixels() -> None:
    # pydicom keeps both: JPEG-lossy.dcm as it came, and JPGExtended.dcm with its scan header put right.
    np.testing.assert_array_equal(
        stored_values(_radiograph("JPEG-lossy.dcm")), stored_values(_radiograph("JPGExtended.dcm"))
    )


def test_such_a_jpeg_is_decompressed_for_destinations_too() -> None:
    native = []
    for name in ("JPEG-lossy.dcm", "JPGExtended.dcm"):
        ds = dcmread(pydicom_file(name))
        with io.BytesIO() as passing:
            make_native(ds, JPEGExtended12Bit, passing)
            native.append(passing.getvalue())
    assert native[0] == native[1]
    assert len(native[0]) == 1024 * 256 * 2


@pytest.mark.peer("dcmdjpeg")
def test_dcmtk_decodes_such_a_jpeg_to_the_same_pixels(tmp_path: Path) -> None:
    path, decoded = pydicom_file("JPEG-lossy.dcm"), tmp_path / "decoded.dcm"
    subprocess.run(["dcmdjpeg", str(path), str(decoded)], check=True, timeout=60, capture_output=True)
    theirs = dcmread(decoded).pixel_array.astype(int)
    assert np.abs(theirs - stored_values(dcmread(path))).max() <= 1  # two ways of rounding


def test_only_the_limits_of_a_scan_header_are_mended() -> None:
    head = bytes.fromhex("ffd8 ffc1000b0c04000100010111 00 ffda0008 0101 00")
    wrong, right = head + bytes((0, 0, 0)) + b"entropy", head + bytes((0, 63, 0)) + b"entropy"
    assert mended(wrong) == right
    assert mended(right) == right
    progressive = wrong.replace(b"\xff\xc1", b"\xff\xc2")
    assert mended(progressive) == progressive


@pytest.mark.parametrize("frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"\xff\xd8\xff\xc1\xff\xff" * 3, b"GIF89a"])
def test_a_frame_that_is_no_jpeg_is_unreadable(frame: bytes) -> None:
    with pytest.raises(UnreadablePixels):
        mended(frame)


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        ("1.2.840.10008.1.2.4.110", "JPEG XL"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4"),
        ("1.2.840.10008.1.2.4.51", "JPEG Extended"),
    ],
)
def test_what_cannot_be_decoded_is_named(made, syntax: str, name: str) -> None:
    with pytest.raises(UnreadablePixels) as caught:
        stored_values(_encapsulated(made(STEPS, bits_stored=12), syntax, b"\xff\xd8 nothing \xff\xd9"))
    assert syntax in str(caught.value)
    assert name in str(caught.value) or UID(syntax).name == syntax  # pydicom may not know the newest names


def test_the_table_of_decoders_is_the_one_in_the_code() -> None:
    text = (ROOT / "docs/pixels.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([0-9.]+)` \| [^|]+ \| ([^|]+) \|", text, flags=re.MULTILINE)
    said = {uid: tuple(re.findall(r"`(\w+)`", plugins)) for uid, plugins in rows}
    assert {uid: plugins for uid, plugins in said.items() if plugins} == {
        str(uid): plugins for uid, plugins in decode.PLUGINS.items()
    }
    assert {uid for uid, plugins in said.items() if not plugins} == {str(uid) for uid in NATIVE}
    assert set(MADE) | {JPEGExtended12Bit} == set(decode.PLUGINS)


def _radiograph(name: str) -> Dataset:
    return dcmread(pydicom_file(name))
