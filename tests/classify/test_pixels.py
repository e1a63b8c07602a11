"""Pixels become the input that torchxrayvision makes of them, in every encoding, and what is no radiograph is refused."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from router.classify import decode
from router.classify.pixels import to_input
from router.errors import NotForThisClassifier, UnreadablePixels

RANGE = 2048


def _ramp(bits: int = 12, rows: int = 96, columns: int = 130) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns]
    return np.round((x / columns * 0.7 + (y / rows) ** 2 * 0.3) * (2**bits - 1)).astype(np.uint16)


# ---- equal to what upstream makes of it


@pytest.mark.parametrize("name", ["SIIM_NIH_CR_JPEGbaseline.dcm", "RG1_UNCR.dcm", "NIH_google_DX_ILE.dcm"])
def test_input_is_the_published_one(shared_data: Path, name: str) -> None:
    published = np.load(shared_data / "published_preproc_reference.npz")[name]
    ours = to_input(dcmread(shared_data / "dicom/chest" / name, force=True), 224)
    assert ours.dtype == np.float32
    assert ours.shape == (1, 224, 224)
    assert np.abs(ours - published).max() < 1e-3 * RANGE / 2  # measured: 6e-4 of one of 2048 steps


@pytest.mark.parametrize("name", ["00000001_000.png", "00027426_000.png"])
def test_input_of_a_picture_file_is_the_published_one(shared_data: Path, made, name: str) -> None:
    published = np.load(shared_data / "published_preproc_reference.npz")[name]
    values = np.asarray(Image.open(shared_data / "png/nih_xrv512" / name))
    ours = to_input(made(values[..., 0] if values.ndim == 3 else values), 224)
    assert np.abs(ours - published).max() < 1e-3 * RANGE / 2


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("rows", "columns", "bits"),
    [(96, 130, 12), (301, 300, 8), (64, 640, 16), (448, 224, 10), (99, 101, 13), (128, 127, 15), (97, 97, 9)],
)
def test_input_is_what_upstreams_own_chain_makes(
    made, tmp_path: Path, rows: int, columns: int, bits: int, photometric: str
) -> None:
    xrv = pytest.importorskip("torchxrayvision")
    values = np.random.default_rng(rows).integers(0, 2**bits, (rows, columns), dtype=np.uint16)
    ds = made(values, bits_stored=bits, PhotometricInterpretation=photometric)
    ds.save_as(tmp_path / "image.dcm", implicit_vr=False, little_endian=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = xrv.utils.read_xray_dcm(tmp_path / "image.dcm")[None]
    for step in (xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)):
        theirs = step(theirs)
    np.testing.assert_allclose(to_input(dcmread(tmp_path / "image.dcm", force=True), 224), theirs, atol=5e-3)


# ---- the same radiograph in other clothes

FAMILY = ["8b_MONO2_inv", "10b_MONO1", "12b_MONO1", "12b_MONO2_inv", "15b_MONO1", "15b_MONO2_inv", "16b_MONO1",
          "16b_signed_MONO2"]  # fmt: skip


@pytest.mark.parametrize("member", FAMILY)
def test_eight_encodings_of_one_radiograph_give_one_input(shared_data: Path, member: str) -> None:
    folder = shared_data / "dicom/chest_reencoded"
    reference = to_input(dcmread(folder / "fam_15b_MONO1.dcm"), 224)
    bits = int(member.split("b", maxsplit=1)[0])
    step = RANGE / (2**bits - 1)  # what one grey value is worth
    found = to_input(dcmread(folder / f"fam_{member}.dcm"), 224)
    assert np.abs(found - reference).max() < (5 if bits == 8 else max(step, 0.01))


def test_signed_values_with_an_intercept_are_the_unsigned_ones(made) -> None:
    plain = _ramp(15)
    signed = (plain.astype(np.int32) - 16384).astype(np.int16)
    expected = to_input(made(plain, bits_stored=15), 224)
    found = to_input(made(signed, RescaleSlope=1, RescaleIntercept=16384), 224)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_signed_values_without_a_telling_intercept_use_all_their_bits(made) -> None:
    signed = np.array([[-2048, 2047]] * 2, np.int16).repeat(64, 0).repeat(64, 1)
    found = to_input(made(signed, bits_stored=12), 64)
    assert (found.min(), found.max()) == (-1024, 1024)


def test_a_negative_slope_turns_the_picture_round(made) -> None:
    values = _ramp()
    expected = to_input(made(values, bits_stored=12, PhotometricInterpretation="MONOCHROME1"), 224)
    turned = made(values, bits_stored=12, RescaleSlope=-1, RescaleIntercept=4095)
    np.testing.assert_array_equal(to_input(turned, 224), expected)


def test_unsigned_rescale_changes_nothing(made) -> None:
    values = _ramp()
    expected = to_input(made(values, bits_stored=12), 224)
    np.testing.assert_array_equal(
        to_input(made(values, bits_stored=12, RescaleSlope="0.25", RescaleIntercept=-1024), 224), expected
    )


@pytest.mark.parametrize("vr", ["OW", "US"])
def test_a_modality_lut_is_applied(made, tmp_path: Path, vr: str) -> None:
    values = _ramp(8).astype(np.uint16)
    ds = made(values, bits_stored=8)
    item = Dataset()
    item.add_new(0x00283002, "US", [256, 0, 12])
    table = (np.arange(256)[::-1] * 16).astype("<u2")
    item.add_new(0x00283006, vr, table.tobytes() if vr == "OW" else table.tolist())
    ds.ModalityLUTSequence = [item]
    ds.save_as(tmp_path / "image.dcm", implicit_vr=False, little_endian=True)
    expected = to_input(made((255 - values) * 16, bits_stored=12), 224)
    found = to_input(dcmread(tmp_path / "image.dcm", force=True), 224)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_a_modality_lut_of_signed_values_starts_below_zero_and_goes_on_beyond_its_ends(made) -> None:
    values = (_ramp(8).astype(np.int16) - 128) * 2  # -256..254, of which the table has -128..127
    item = Dataset()
    item.add_new(0x00283002, "US", [256, 65536 - 128, 16])  # the sign is the pixels', whatever the VR
    item.add_new(0x00283006, "US", (np.arange(256) * 257).tolist())
    ds = made(values, ModalityLUTSequence=[item])
    expected = to_input(made((np.clip(values.astype(np.int32) + 128, 0, 255) * 257).astype(np.uint16)), 224)
    np.testing.assert_allclose(to_input(ds, 224), expected, atol=1e-2)


def test_windows_voi_tables_and_presentation_shapes_change_nothing(made) -> None:
    values = _ramp()
    expected = to_input(made(values, bits_stored=12), 224)
    table = Dataset()
    table.add_new(0x00283002, "US", [16, 0, 12])
    table.add_new(0x00283006, "US", list(range(0, 4096, 256)))
    windowed = made(
        values,
        bits_stored=12,
        WindowCenter=["2048", "100", "-7"],
        WindowWidth=["4096", "50", "1"],
        WindowCenterWidthExplanation=["NORMAL", "HARDER", "SOFTER"],
        VOILUTFunction="SIGMOID",
        VOILUTSequence=[table],
        PresentationLUTShape="INVERSE",
    )
    np.testing.assert_array_equal(to_input(windowed, 224), expected)


@pytest.mark.parametrize(
    ("photometric", "padding", "limit", "black"),
    [("MONOCHROME2", 63536, None, 0), ("MONOCHROME1", 65535, None, 4095), ("MONOCHROME2", 65535, 63000, 0)],
)
def test_padding_beyond_bits_stored_is_black(
    made, photometric: str, padding: int, limit: int | None, black: int
) -> None:
    values = _ramp(rows=130)
    values[:20], values[-20:] = black, black
    expected = to_input(made(values, bits_stored=12, PhotometricInterpretation=photometric), 224)
    values[:20], values[-20:] = padding, limit or padding
    ds = made(values, bits_stored=12, PhotometricInterpretation=photometric, PixelPaddingValue=padding)
    if limit:
        ds.PixelPaddingRangeLimit = limit
    np.testing.assert_array_equal(to_input(ds, 224), expected)


def test_padding_within_bits_stored_stays_as_upstream_leaves_it(made) -> None:
    values = _ramp()
    expected = to_input(made(values, bits_stored=12), 224)
    np.testing.assert_array_equal(to_input(made(values, bits_stored=12, PixelPaddingValue=4000), 224), expected)


def test_values_beyond_bits_stored_that_are_no_padding_are_refused(made) -> None:
    values = _ramp()
    values[0, 0], values[0, 1] = 65535, 5000
    with pytest.raises(NotForThisClassifier) as caught:
        to_input(made(values, bits_stored=12, PixelPaddingValue=65535), 224)
    assert caught.value.code == "value_range"


@pytest.mark.parametrize(
    ("at", "rows", "columns"), [((0, 5), 140, 96), ((139, 95), 140, 96), ((7, 0), 96, 140), ((95, 139), 96, 140)]
)
def test_values_beyond_bits_stored_are_found_outside_the_central_square(
    made, at: tuple[int, int], rows: int, columns: int
) -> None:
    values = _ramp(rows=rows, columns=columns)
    values[at] = 4096
    with pytest.raises(NotForThisClassifier) as caught:
        to_input(made(values, bits_stored=12), 224)
    assert caught.value.code == "value_range"


def test_a_square_of_one_value_is_constant_whatever_lies_beside_it(made) -> None:
    values = np.full((140, 96), 77, np.uint16)
    values[0], values[-1] = 3, 4000
    with pytest.raises(NotForThisClassifier) as caught:
        to_input(made(values, bits_stored=12), 224)
    assert caught.value.code == "constant"


def test_a_broken_modality_lut_is_refused(made) -> None:
    ds = made(_ramp(8), bits_stored=8)
    ds.ModalityLUTSequence = [Dataset()]
    with pytest.raises(NotForThisClassifier) as caught:
        to_input(ds, 224)
    assert caught.value.code == "header"


@pytest.mark.parametrize(("bits", "rows", "columns"), [(12, 96, 130), (8, 97, 131), (16, 65, 67)])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_compression_changes_nothing(made, syntax: str, bits: int, rows: int, columns: int) -> None:
    values = _ramp(bits, rows, columns)
    ds = made(values.astype(np.uint8) if bits == 8 else values, bits_stored=bits)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    expected = to_input(ds, 224)
    ds.set_original_encoding(False, True)
    ds.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(to_input(ds, 224), expected)


def test_every_reencoding_of_real_films_gives_the_same_input(shared_data: Path) -> None:
    for family in ("fuji10", "nih8"):
        inputs = {
            path.name: to_input(dcmread(path, force=True), 224)
            for path in (shared_data / "dicom/chest_reencoded").glob(f"{family}_*.dcm")
        }
        first, *others = inputs.values()
        assert len(others) >= 5
        for other in others:
            np.testing.assert_array_equal(other, first)


def test_only_the_central_square_is_seen(made) -> None:
    values = _ramp(rows=100, columns=100)
    wide = np.full((100, 161), 4095, np.uint16)
    wide[:, 30:130] = values
    np.testing.assert_array_equal(to_input(made(wide, bits_stored=12), 64), to_input(made(values, bits_stored=12), 64))


# ---- refused


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"PixelData": None}, "no_pixels"),
        ({"NumberOfFrames": 2}, "frames"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "photometric"),
        ({"PhotometricInterpretation": "YBR_FULL"}, "photometric"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 1}, "colour"),
        ({"PhotometricInterpretation": None}, "photometric"),
        ({"Rows": None}, "header"),
        ({"BitsStored": 17}, "header"),
        ({"BitsAllocated": 1}, "header"),
        ({"Rows": 65535, "Columns": 65535}, "too_large"),
        ({"RescaleSlope": 0}, "header"),
        ({"BitsStored": 8}, "value_range"),
    ],
    ids=str,
)
def test_what_is_no_grey_frame_is_refused(made, attributes: dict[str, object], code: str) -> None:
    with pytest.raises(NotForThisClassifier) as caught:
        to_input(made(_ramp(), bits_stored=12, **attributes), 224)
    assert caught.value.code == code


def test_a_constant_picture_is_refused(made) -> None:
    with pytest.raises(NotForThisClassifier) as caught:
        to_input(made(np.full((80, 80), 7, np.uint16)), 224)
    assert caught.value.code == "constant"


def test_size_is_refused_before_anything_is_decoded(made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_attempt", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(NotForThisClassifier):
        to_input(made(_ramp(), bits_stored=12, Rows=60000, Columns=60000), 224)


def test_an_overlay_in_unused_bits_is_masked(made) -> None:
    values = _ramp()
    expected = to_input(made(values, bits_stored=12), 224)
    ds = made(values | 0x8000, bits_stored=12)
    ds.add_new(0x60000102, "US", 15)
    np.testing.assert_array_equal(to_input(ds, 224), expected)


def test_truncated_pixels_are_unreadable(made) -> None:
    ds = made(_ramp(), bits_stored=12)
    ds.PixelData = ds.PixelData[:1000]
    with pytest.raises(UnreadablePixels):
        to_input(ds, 224)


@pytest.mark.parametrize("syntax", [*decode.PLUGINS, MPEG2MPML, "1.2.3.4"], ids=str)
def test_broken_or_unknown_codestreams_are_unreadable(made, syntax: str) -> None:
    ds = made(_ramp(), bits_stored=12)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([b"\xff\xd8 no picture at all \xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    with pytest.raises(UnreadablePixels, match=str(syntax)):
        to_input(ds, 224)


def test_an_rle_segment_far_longer_than_the_image_is_unreadable_and_never_unpacked(
    made, capfd: pytest.CaptureFixture[str]
) -> None:
    ds = made(_ramp(), bits_stored=12)
    ds.file_meta.TransferSyntaxUID = RLELossless
    segment = b"\x81\x00" * 1_000_000  # 128 zeros each
    head = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    ds.PixelData = encapsulate([head + segment + segment])
    ds["PixelData"].is_undefined_length = True
    tracemalloc.start()
    try:
        with pytest.raises(UnreadablePixels):
            to_input(ds, 224)
        _, peak_byte_count = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    capfd.readouterr()  # the codec's panic prints a stack trace
    assert peak_byte_count < 50e6


def test_a_codec_that_panics_is_unreadable(made, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        """As Rust codecs raise it."""

    class Decoder:
        def as_array(self, *_: object, **__: object) -> object:
            raise PanicException("with something of the patient in it")

    monkeypatch.setattr(decode, "get_decoder", lambda _: Decoder())
    with pytest.raises(UnreadablePixels, match="PanicException") as caught:
        to_input(made(_ramp(), bits_stored=12), 224)
    assert "patient" not in str(caught.value)


def test_being_told_to_stop_is_not_swallowed(made, monkeypatch: pytest.MonkeyPatch) -> None:
    class Decoder:
        def as_array(self, *_: object, **__: object) -> object:
            raise KeyboardInterrupt

    monkeypatch.setattr(decode, "get_decoder", lambda _: Decoder())
    with pytest.raises(KeyboardInterrupt):
        to_input(made(_ramp(), bits_stored=12), 224)


def test_every_named_decoder_plugin_is_installed() -> None:
    for syntax, plugins in decode.PLUGINS.items():
        missing = set(plugins) - set(get_decoder(syntax).available_plugins)
        # pillow reads 12-bit JPEG of none and 8-bit JPEG Extended of all; both are told to pydicom as one plugin.
        assert not missing, f"{syntax}: {missing}"
    assert JPEGExtended12Bit in decode.PLUGINS
