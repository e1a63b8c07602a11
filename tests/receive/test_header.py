"""Reading the routing header: what pydicom would say of good data sets, and a bounded refusal of everything else."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from router.core import provenance
from router.core.instance import ROUTING_KEYWORDS
from router.errors import RefusedError
from router.receive.header import RoutingHeader, read_header
from router.receive.walk import NESTING_MAX
from router.receive.window import INFLATED_BYTE_COUNT_MAX
from tests import samples

IMPLICIT, EXPLICIT, DEFLATED, BIG = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def read(data: bytes, syntax: str = EXPLICIT, keywords=ROUTING_KEYWORDS, before: bytes = b"head") -> RoutingHeader:
    return read_header(
        io.BytesIO(before + data),
        offset=len(before),
        byte_count=len(data),
        transfer_syntax_uid=syntax,
        keywords=keywords,
    )


def refusal(data: bytes, syntax: str = EXPLICIT) -> str:
    with pytest.raises(RefusedError) as raised:
        read(data, syntax)
    assert raised.value.status == 0xC000
    return str(raised.value)


def element(group: int, number: int, vr: bytes, value: bytes, *, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    if vr in (b"SQ", b"OB", b"OW", b"UN", b"UT"):
        return struct.pack("<HH2sHL", group, number, vr, 0, length) + value
    return struct.pack("<HH2sH", group, number, vr, length) + value


def item(value: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(value) if length is None else length) + value


ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
OPEN = 0xFFFFFFFF

IDENTITY = (
    element(0x0008, 0x0016, b"UI", b"1.2.840.10008.5.1.4.1.1.1\0")
    + element(0x0008, 0x0018, b"UI", b"1.2.3.4\0")
    + element(0x0020, 0x000D, b"UI", b"1.2.3\0")
    + element(0x0020, 0x000E, b"UI", b"1.2.3.5\0")
)
PIXELS = element(0x7FE0, 0x0010, b"OW", b"\1\2" * 500)
GOOD = IDENTITY + PIXELS


def encoded(ds: Dataset, syntax: str) -> bytes:
    from pynetdicom.dsutils import encode

    data = encode(ds, syntax == IMPLICIT, syntax != BIG, syntax == DEFLATED)
    assert data is not None
    return data


@pytest.mark.parametrize("path", samples.storable(), ids=lambda p: p.name)
def test_a_good_file_reads_as_pydicom_reads_it(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some samples are odd on purpose
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        data = samples.dataset_bytes(path)
        if path.name == "SC_rgb_jpeg.dcm":  # says JPEG, is implicit
            refusal(data, ds.file_meta.TransferSyntaxUID)
            return
        header = read(data, str(ds.file_meta.TransferSyntaxUID))
        assert header.identity.sop_instance_uid == ds.SOPInstanceUID
        assert header.identity.sop_class_uid == ds.SOPClassUID
        assert header.identity.study_instance_uid == ds.get("StudyInstanceUID", "")
        assert header.identity.series_instance_uid == ds.get("SeriesInstanceUID", "")
        assert not header.made_by_router
        for keyword in ROUTING_KEYWORDS:
            value = ds.get(keyword)
            if keyword not in ds or ds[keyword].VR in ("UN", "SQ"):
                continue
            values = value if isinstance(value, MultiValue | list) else ["" if value is None else value]
            assert header.values[keyword] == "\\".join(str(v).strip() for v in values), keyword


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG])
def test_every_encoding_gives_the_same_header(syntax: str) -> None:
    ds = pydicom.dcmread(samples.pydicom_file("CT_small.dcm"))
    if syntax == BIG:
        del ds.PixelData
    header = read(encoded(ds, syntax), syntax)
    assert header.identity.sop_instance_uid == ds.SOPInstanceUID
    assert (header.values["Rows"], header.values["BitsAllocated"]) == ("128", "16")
    assert header.values["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert header.values["Modality"] == "CT"


@pytest.mark.parametrize(
    ("character_set", "value", "text"),
    [
        (None, b"Thorax ap", "Thorax ap"),
        (None, "Schädel".encode("latin_1"), "Schädel"),
        (None, "Schädel".encode(), "Schädel"),
        (b"ISO_IR 100", "Schädel".encode("latin_1"), "Schädel"),
        (b"ISO_IR 192", "胸部".encode(), "胸部"),
        (b"ISO_IR 192", "Schädel".encode("latin_1"), "Schädel"),
        (b"GB18030", "胸部".encode("gb18030"), "胸部"),
        (b"ISO_IR 144", "грудь".encode("iso8859_5"), "грудь"),
        (b"\\ISO 2022 IR 87", "胸部".encode("iso2022_jp"), "胸部"),
        (b"UTF-8", "Schädel".encode(), "Schädel"),
        (b"nonsense", b"\xff\xfe", "ÿþ"),
        (b"ISO_IR 6", b"a\0b\x07c\x1b", "abc"),
    ],
)
def test_text_is_decoded_as_its_character_set_says_or_leniently(character_set, value: bytes, text: str) -> None:
    data = element(0x0008, 0x0005, b"CS", character_set) if character_set is not None else b""
    data += element(0x0008, 0x103E, b"LO", value) + GOOD
    assert read(data).values["SeriesDescription"] == text


def test_only_the_keywords_asked_for_are_kept() -> None:
    assert read(GOOD + b"", keywords=["Modality"]).values == {}
    data = element(0x0008, 0x0060, b"CS", b"CR") + element(0x0010, 0x0010, b"PN", b"A^B ") + GOOD
    assert read(data, keywords=["Modality"]).values == {"Modality": "CR"}


def test_pixels_are_not_read() -> None:
    class Counting(io.BytesIO):
        read_byte_count = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.read_byte_count += len(data)
            return data

    data = IDENTITY + element(0x7FE0, 0x0010, b"OW", bytes(10_000_000))
    file = Counting(data)
    read_header(file, offset=0, byte_count=len(data), transfer_syntax_uid=EXPLICIT, keywords=())
    assert file.read_byte_count < 100_000


# ---- made by a router node


def result_object(**changes: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = provenance.PURPOSE
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = Sequence([code])
    equipment.Manufacturer = provenance.MANUFACTURER
    equipment.ManufacturerModelName = provenance.MODEL_NAME
    for keyword, value in changes.items():
        setattr(code if keyword in code else equipment, keyword, value)
    ds = pydicom.dcmread(samples.pydicom_file("CT_small.dcm"))
    other = Dataset()
    other.Manufacturer = "Somebody"
    ds.ContributingEquipmentSequence = Sequence([other, equipment])
    return ds


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED])
@pytest.mark.parametrize("undefined", [True, False])
def test_a_result_object_of_a_router_node_is_recognised(syntax: str, undefined: bool) -> None:
    ds = result_object()
    ds["ContributingEquipmentSequence"].is_undefined_length = undefined
    for entry in ds.ContributingEquipmentSequence:
        entry.is_undefined_length_sequence_item = undefined
    assert read(encoded(ds, syntax), syntax).made_by_router


@pytest.mark.parametrize(
    "changes",
    [
        {"Manufacturer": "Other"},
        {"ManufacturerModelName": "Other"},
        {"CodeValue": "109101"},
        {"CodingSchemeDesignator": "X"},
    ],
)
def test_equipment_that_differs_in_one_fact_is_not_ours(changes: dict[str, str]) -> None:
    assert not read(encoded(result_object(**changes), EXPLICIT)).made_by_router


def test_the_image_s_own_manufacturer_is_not_its_contributing_equipment() -> None:
    ds = pydicom.dcmread(samples.pydicom_file("CT_small.dcm"))
    ds.Manufacturer, ds.ManufacturerModelName = provenance.MANUFACTURER, provenance.MODEL_NAME
    assert not read(encoded(ds, EXPLICIT)).made_by_router


# ---- tolerated


def test_elements_out_of_order_are_tolerated() -> None:
    data = element(0x0020, 0x000D, b"UI", b"1.2.3\0") + GOOD.replace(element(0x0020, 0x000D, b"UI", b"1.2.3\0"), b"")
    assert read(data).identity.study_instance_uid == "1.2.3"


@pytest.mark.parametrize("byte_count", [1, 7, 8, 12, 4096])
def test_zeros_after_the_last_element_are_tolerated(byte_count: int) -> None:
    assert read(GOOD + bytes(byte_count)).identity.sop_instance_uid == "1.2.3.4"


def test_a_vr_of_a_later_edition_is_passed_over() -> None:
    data = struct.pack("<HH2sHL", 0x0009, 0x1001, b"ZZ", 0, 6) + b"future" + GOOD
    assert read(data).identity.sop_instance_uid == "1.2.3.4"


def test_a_uid_padded_with_a_space_is_the_uid() -> None:
    data = GOOD.replace(b"1.2.3.4\0", b"1.2.3.4 ")
    assert read(data).identity.sop_instance_uid == "1.2.3.4"


def test_encapsulated_pixels_are_walked_without_being_read() -> None:
    fragments = item() + item(b"\xff\xd8 jpeg \xff\xd9") * 5 + SEQUENCE_END
    data = IDENTITY + element(0x7FE0, 0x0010, b"OB", fragments, length=OPEN)
    assert read(data, JPEG_BASELINE).identity.sop_instance_uid == "1.2.3.4"


def test_an_unknown_sequence_of_undefined_length_has_implicit_items() -> None:
    implicit = struct.pack("<HHL", 0x0009, 0x1001, 4) + b"SQSQ"
    data = element(0x0009, 0x1000, b"UN", item(implicit) + SEQUENCE_END, length=OPEN) + GOOD
    assert read(data).identity.sop_instance_uid == "1.2.3.4"


def test_absent_identity_is_empty_text_for_the_admission_to_judge() -> None:
    assert read(PIXELS).identity.sop_instance_uid == ""


# ---- refused


def test_an_empty_data_set_is_refused() -> None:
    assert "empty" in refusal(b"")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG])
def test_a_data_set_cut_anywhere_inside_an_element_is_refused_or_lacks_that_element(syntax: str) -> None:
    ds = pydicom.dcmread(samples.pydicom_file("CT_small.dcm"))
    if syntax == BIG:
        del ds.PixelData
    data = encoded(ds, syntax)
    taken = 0
    for cut in range(1, len(data), max(1, len(data) // 400)):
        try:
            read(data[:cut], syntax)
        except RefusedError as error:
            assert error.status == 0xC000
        else:
            taken += 1
    assert taken <= (0 if syntax == DEFLATED else len(ds))  # between two elements there is no telling


@pytest.mark.parametrize(
    "data", [b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x89PNG\r\n\x1a\n" + bytes(50), b"\0\0\0\1" * 30]
)
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG])
def test_garbage_is_refused(data: bytes, syntax: str) -> None:
    refusal(data, syntax)


def test_a_whole_dicom_file_in_place_of_a_data_set_is_refused() -> None:
    refusal(samples.pydicom_file("CT_small.dcm").read_bytes())


@pytest.mark.parametrize("group", [0x0000, 0x0002, 0x0004])
def test_groups_of_commands_and_files_are_refused(group: int) -> None:
    assert "does not belong" in refusal(element(group, 0x0010, b"UI", b"1.2\0") + GOOD)


def test_an_element_longer_than_the_data_set_is_refused_before_anything_is_read_for_it() -> None:
    assert "longer than what it lies in" in refusal(IDENTITY + element(0x7FE0, 0x0010, b"OW", b"", length=0xFFFFFFF0))


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_nesting_is_allowed_to_a_depth_and_refused_beyond(syntax: str, undefined: bool) -> None:
    def nested(depth: int) -> bytes:
        data = b""
        for _ in range(depth):
            content = item(data + ITEM_END, length=OPEN) + SEQUENCE_END if undefined else item(data)
            length = OPEN if undefined else len(content)
            if syntax == IMPLICIT:
                data = struct.pack("<HHL", 0x0040, 0xA730, length) + content
            else:
                data = element(0x0040, 0xA730, b"SQ", content, length=length)
        return data

    read(nested(NESTING_MAX), syntax)
    assert "nested deeper" in refusal(nested(NESTING_MAX + 1), syntax)
    assert "nested deeper" in refusal(nested(5000), syntax)


def test_too_many_elements_are_refused() -> None:
    from router.receive import walk

    data = element(0x0009, 0x1001, b"LO", b"") * (walk.ELEMENT_COUNT_MAX + 1)
    assert "more than" in refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        item(b""),
        ITEM_END,
        SEQUENCE_END,
        element(0x0008, 0x1140, b"SQ", ITEM_END, length=OPEN),
        element(0x0008, 0x1140, b"SQ", element(0x0008, 0x0018, b"UI", b"1.2\0")),
        element(0x0008, 0x1140, b"SQ", item(b"12345678", length=99)),
        element(0x0008, 0x1140, b"SQ", item(element(0x0008, 0x0018, b"UI", b"", length=90)) + bytes(90)),
        element(0x0008, 0x1140, b"SQ", item(SEQUENCE_END)),
        element(0x0008, 0x1140, b"SQ", item(b"\x08\0\x18\0UI")),
        element(0x0008, 0x1140, b"SQ", b"", length=OPEN),
        element(0x7FE0, 0x0010, b"OB", item(b"x", length=OPEN), length=OPEN),
        element(0x0008, 0x0060, b"CS", b"", length=0) + b"\x08\0\x61\0??\0\0",
    ],
)
def test_broken_structure_is_refused(data: bytes) -> None:
    refusal(IDENTITY + data)
    refusal(data + GOOD)


@pytest.mark.parametrize("number", [0x0016, 0x0018])
def test_an_identity_that_stands_twice_is_refused(number: int) -> None:
    """A destination may believe the second one: then it files what we never looked at."""
    assert "more than once" in refusal(GOOD + element(0x0008, number, b"UI", b"9.9\0"))


def test_a_data_set_in_another_syntax_than_agreed_is_refused() -> None:
    ds = pydicom.dcmread(samples.pydicom_file("CT_small.dcm"))
    refusal(encoded(ds, IMPLICIT), EXPLICIT)
    refusal(encoded(ds, EXPLICIT), IMPLICIT)
    refusal(encoded(ds, EXPLICIT), DEFLATED)
    refusal(encoded(ds, EXPLICIT), BIG)


# ---- deflated


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def test_a_deflated_data_set_may_be_padded() -> None:
    assert read(deflate(GOOD) + b"\0", DEFLATED).identity.sop_instance_uid == "1.2.3.4"


def test_bytes_after_a_deflated_data_set_are_refused() -> None:
    assert "follow the end" in refusal(deflate(GOOD) + b"\0" * 1000, DEFLATED)


def test_a_deflated_element_longer_than_what_inflates_is_refused() -> None:
    refusal(deflate(IDENTITY + element(0x7FE0, 0x0010, b"OW", b"short", length=100_000)), DEFLATED)
    refusal(deflate(IDENTITY + element(0x0008, 0x103E, b"LO", b"short", length=1000)), DEFLATED)


@pytest.mark.parametrize("element_byte_count", [2**24, INFLATED_BYTE_COUNT_MAX + 2**20])
def test_a_deflate_bomb_is_refused_and_costs_no_memory(element_byte_count: int) -> None:
    import tracemalloc

    size = INFLATED_BYTE_COUNT_MAX + 2**25
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = [packer.compress(IDENTITY)]
    for _ in range(size // element_byte_count + 1):
        bomb.append(packer.compress(element(0x7FE0, 0x0010, b"OW", b"", length=element_byte_count)))
        bomb += [packer.compress(bytes(2**20)) for _ in range(element_byte_count // 2**20)]
    data = b"".join(bomb) + packer.flush()
    tracemalloc.start()
    reason = refusal(data, DEFLATED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "longer than" in reason
    assert peak < 2**24


# ---- whatever comes


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=400), syntax=st.sampled_from([IMPLICIT, EXPLICIT, DEFLATED, BIG]))
def test_noise_is_read_or_refused_and_nothing_else(data: bytes, syntax: str) -> None:
    try:
        read(data, syntax)
    except RefusedError as error:
        assert error.status == 0xC000


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), syntax=st.sampled_from([IMPLICIT, EXPLICIT, DEFLATED]))
def test_a_damaged_data_set_is_read_or_refused_and_nothing_else(data, syntax: str) -> None:
    whole = bytearray(encoded(result_object(), syntax)[:6000])
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(whole), syntax)
    except RefusedError as error:
        assert error.status == 0xC000
