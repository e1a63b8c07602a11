"""Pixels that are looked at in their file are those that reading it gives, and what cannot be looked at there is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from router.classify.decode import stored_values
from router.errors import UnreadablePixels
from router.report.source import read_source

_LARGE = (1100, 1000)
_SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def _values(dtype: type = np.uint16, shape: tuple[int, int] = _LARGE) -> np.ndarray:
    """Noise of all bits, which deflating makes no shorter."""
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    return np.random.default_rng(7).integers(least, most, shape, dtype, endpoint=True)


def _saved(ds: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    return path


def _outcome(ds: Dataset) -> str | bytes:
    try:
        return stored_values(ds).tobytes()
    except UnreadablePixels as error:
        return str(error)


@pytest.mark.parametrize("syntax", _SYNTAXES, ids=lambda syntax: syntax.name)
def test_every_native_syntax_gives_the_values_that_were_stored(made, tmp_path: Path, syntax: UID) -> None:
    values = _values()
    path = _saved(made(values), tmp_path / "image.dcm", syntax)
    np.testing.assert_array_equal(stored_values(read_source(path)), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32])
def test_so_does_every_depth(made, tmp_path: Path, dtype: type) -> None:
    values = _values(dtype, (1153, 1001))
    path = _saved(made(values), tmp_path / "image.dcm")
    found = stored_values(read_source(path))
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype


def test_large_pixels_are_looked_at_in_their_file_and_stay_when_its_name_goes(made, tmp_path: Path) -> None:
    values = _values()
    path = _saved(made(values), tmp_path / "image.dcm")
    ds = read_source(path)
    found = stored_values(ds)
    assert isinstance(ds["PixelData"].value, memoryview)
    assert not found.flags.writeable
    path.unlink()
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(stored_values(ds), values)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4000])


def _beheaded(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.dcm"))


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("change", [_cut, _beheaded, _moved, _emptied])
def test_what_cannot_be_mapped_is_refused_with_the_same_words_as_ever(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    path = _saved(made(_values()), tmp_path / "image.dcm")
    mapped, read = read_source(path), read_source(path)
    change(path)
    found = _outcome(mapped)
    monkeypatch.setattr("router.classify.decode.map_pixels", lambda ds: None)
    assert isinstance(found, str)
    assert found == _outcome(read)


def test_fewer_pixels_than_the_header_says_are_refused_with_the_same_words_too(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = made(_values())
    ds.Rows = _LARGE[0] + 1
    path = _saved(ds, tmp_path / "image.dcm")
    found = _outcome(read_source(path))
    monkeypatch.setattr("router.classify.decode.map_pixels", lambda ds: None)
    assert isinstance(found, str)
    assert found == _outcome(read_source(path))


def test_pixels_that_were_read_already_are_left_alone(made, tmp_path: Path) -> None:
    path = _saved(made(_values()), tmp_path / "image.dcm")
    ds = dcmread(path, force=True)
    np.testing.assert_array_equal(stored_values(ds), _values())
    assert isinstance(ds["PixelData"].value, bytes)


@pytest.mark.parametrize("vr", ["SQ", "UT", "UN"])
def test_pixels_of_another_value_representation_are_taken_for_what_they_always_were(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vr: str
) -> None:
    """As a sequence they raised TypeError, which ended the child and with it every image that it was asked about."""
    path = _saved(made(_values()), tmp_path / "image.dcm")
    head, data = b"\xe0\x7f\x10\x00", path.read_bytes()
    assert data.count(head + b"OW") == 1
    path.write_bytes(data.replace(head + b"OW", head + vr.encode()))
    found = _outcome(read_source(path))
    monkeypatch.setattr("router.classify.decode.map_pixels", lambda ds: None)
    assert found == _outcome(read_source(path))
