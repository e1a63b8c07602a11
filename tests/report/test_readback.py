"""The check's own reader sees what pydicom sees, and refuses what is not whole."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from router.report import readback
from router.report.readback import Item, read_file
from router.report.sr import SrBuilder
from tests.report.made import HEADER, element, instance_of, meta, prediction, read


def document() -> bytes:
    source = read(HEADER)
    return SrBuilder().build(source, instance_of(source), prediction(labels=2)).data


def shape(level: Dataset) -> dict[int, object]:
    return {e.tag: [shape(i) for i in e.value] if e.VR == "SQ" else None for e in level}


def shape_read(level: Item) -> dict[int, object]:
    return {tag: [shape_read(i) for i in value] if isinstance(value, list) else None for tag, value in level.items()}


def test_it_sees_the_elements_that_pydicom_sees() -> None:
    data = document()
    head, body = read_file(data)
    seen = dcmread(BytesIO(data))
    assert shape_read(dict(body)) == shape(seen)
    assert shape_read(dict(head)) == shape(seen.file_meta)
    assert body[0x00100020] == b"P-1 "


def test_undefined_lengths_and_encapsulated_pixels_are_stepped_through() -> None:
    item = Dataset()
    item.PatientID = "X"
    item.is_undefined_length_sequence_item = True
    dataset = Dataset()
    dataset.OtherPatientIDsSequence = [item]
    dataset["OtherPatientIDsSequence"].is_undefined_length = True
    dataset.PixelData = encapsulate([b"\1\2\3\4"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2"
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    _, body = read_file(buffer.getvalue())
    assert body[0x00101002] == [{0x00100020: b"X "}]
    assert 0x7FE00010 in body
    for cut in range(2, 30, 2):
        with pytest.raises(ValueError, match=r"."):
            read_file(buffer.getvalue()[:-cut])


def test_a_file_cut_off_anywhere_is_refused() -> None:
    data = document()
    whole = set()
    for end in range(140, len(data), 7):
        try:
            read_file(data[:end])
        except ValueError:
            continue
        whole.add(end)
    # At the end of an outermost element a file is whole as far as anybody can tell.
    ends = {at for at in whole if data[at : at + 2] in {struct.pack("<H", group) for group in (2, 8, 16, 24, 32, 64)}}
    assert whole == ends


@pytest.mark.parametrize(
    "body",
    [
        element(0x00100020, "LO", b"X ") + element(0x00100010, "PN", b"X "),
        element(0x00100020, "LO", b"X ") * 2,
        element(0x00100020, "LO", b"X"),
        element(0x00100020, "ZZ", b"X "),
        element(0x00101002, "SQ", b"\xfe\xff\x0d\xe0\0\0\0\0"),
        element(0x00101002, "SQ", b"\xfe\xff\x00\xe0\2\0\0\0"),
        b"\x10\0\x02\x10SQ\0\0\xff\xff\xff\xff",
    ],
    ids=["order", "twice", "odd", "no such VR", "no item", "item too long", "endless"],
)
def test_what_no_document_may_hold_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_file(meta() + body)


def _read(data: bytes) -> object:
    try:
        return read_file(data)
    except ValueError as error:
        return type(error)


def test_no_byte_that_differs_is_taken_for_one_read_before() -> None:
    data = document()
    seen = 0
    for at in range(readback.data_set_start(data), len(data), 23):
        other = data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :]
        read_file(data)
        remembering = _read(other)
        readback._read_item.cache_clear()
        assert remembering == _read(other), at
        seen += remembering != _read(data)
    assert seen > 300  # the rest are bytes that mean nothing


def test_what_is_broken_is_refused_as_often_as_it_comes() -> None:
    broken = element(0x00100020, "ZZ", b"X ")
    body = element(0x00101002, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(broken)) + broken)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"."):
            read_file(meta() + body)


def test_an_item_is_remembered_with_the_codes_that_stand_in_it() -> None:
    _, body = read_file(document())
    (root,) = readback.items_in(body, "ConceptNameCodeSequence")
    assert root.code == readback.code_in(body, "ConceptNameCodeSequence") == ("126000", "DCM")
    _, other = read_file(document().replace(b"126000", b"126001"))
    assert readback.code_in(other, "ConceptNameCodeSequence") == ("126001", "DCM")
    assert {item.name for item in readback.items_in(body, "ContentSequence")} >= {("121049", "DCM"), ("126010", "DCM")}


def test_what_is_remembered_is_bounded() -> None:
    kept, length_max = readback._read_item.cache_info().maxsize, 0
    assert kept is not None
    for number in range(kept + 10):
        value = element(0x00100020, "LO", f"{number:08d}".encode())
        read_file(meta() + element(0x00101002, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value))
        length_max = max(length_max, readback._read_item.cache_info().currsize)
    assert length_max == kept
    before = readback._read_item.cache_info()
    value = element(0x00100020, "UT", b"X" * 2000)
    read_file(meta() + element(0x00101002, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value))
    assert readback._read_item.cache_info() == before
