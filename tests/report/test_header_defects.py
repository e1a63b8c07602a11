"""Defects of received headers: what the SR takes over, what it repairs, what it inherits, and when there is none."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite

from router.core.admission import Identity, admit
from router.errors import NotReportable, RefusedError
from router.receive.header import read_header
from router.report.check import check
from router.report.context import IDENTITY, context_of, raw_value
from router.report.source import read_source, refuse_ambiguous
from router.report.sr import SrBuilder
from tests.report.defects import DEFECTS, JAPANESE, ROWS, Defect
from tests.report.made import (
    CR,
    EXPLICIT_LITTLE,
    HEADER,
    dciodvfy_errors,
    dsrdump,
    element,
    encoded,
    instance_of,
    meta,
    prediction,
    read,
)
from tests.report.worse import WORSE

#: dciodvfy prints this line after those that name an element.
SUMMARY = "Error - Dicom dataset contains invalid data values for Value Representations"


@pytest.fixture(scope="module")
def builder() -> SrBuilder:
    return SrBuilder()


def refusal(data_set: bytes) -> str:
    """Why the receiving side does not take it; empty when it does."""
    try:
        header = read_header(
            BytesIO(data_set),
            offset=0,
            byte_count=len(data_set),
            transfer_syntax_uid=EXPLICIT_LITTLE,
            keywords=frozenset(("PatientID", "Modality")),
        )
    except RefusedError as error:
        return str(error)
    command = Identity(
        sop_class_uid=_of(data_set, "SOPClassUID") or CR,
        sop_instance_uid=_of(data_set, "SOPInstanceUID") or HEADER["SOPInstanceUID"].decode(),
    )
    refused = admit(command=command, context_sop_class_uid=command.sop_class_uid, dataset=header.identity)
    return refused.reason if refused else ""


def _of(data_set: bytes, keyword: str) -> str:
    """As a sender takes it from the file for its command: the first value."""
    source = dcmread(BytesIO(meta() + data_set), force=True, specific_tags=[keyword])
    return raw_value(source, keyword).decode("latin-1").split("\\")[0].strip(" \0")


def received(defect: Defect, folder: Path) -> Dataset:
    """The defective image as the classify child reads it from the spool."""
    path = folder / "image.dcm"
    path.write_bytes(meta() + defect.data_set())
    return read_source(path)


def stored(dataset: Dataset, keyword: str) -> bytes | None:
    return raw_value(dataset, keyword).rstrip(b"\0 ") if keyword in dataset else None


def test_every_row_of_the_study_is_here() -> None:
    names = [defect.name for defect in (*DEFECTS, *WORSE)]
    assert len(names) == len(set(names))
    assert list(ROWS) == list(range(72))
    assert set(ROWS.values()) <= {defect.name for defect in DEFECTS}
    assert len(names) >= 111 + 40


@pytest.mark.parametrize("defect", [*DEFECTS, *WORSE], ids=lambda defect: defect.name)
def test_a_defective_header_gives_a_valid_sr_of_the_same_patient_or_a_reason(
    defect: Defect, builder: SrBuilder, tmp_path: Path
) -> None:
    said = refusal(defect.data_set())
    assert defect.refused in said if defect.refused else said == ""
    if defect.refused:
        return
    source = received(defect, tmp_path)
    if defect.not_reportable:
        with pytest.raises(NotReportable, match=defect.not_reportable):
            refuse_ambiguous(source)
            builder.build(source, instance_of(received(defect, tmp_path)), prediction(labels=2))
        return
    refuse_ambiguous(source)
    result = builder.build(source, instance_of(received(defect, tmp_path)), prediction(labels=2))
    assert check(result, received(defect, tmp_path)) == []

    document = dcmread(BytesIO(result.data))
    for keyword in ("StudyInstanceUID", *IDENTITY):
        mine, theirs = stored(document, keyword) or b"", stored(received(defect, tmp_path), keyword) or b""
        assert mine == theirs, keyword
    for keyword, value in defect.written.items():
        assert stored(document, keyword) == value, keyword
    assert any(defect.remarked in note for note in result.notes) or not defect.remarked, result.notes

    path = tmp_path / "sr.dcm"
    path.write_bytes(result.data)
    errors = [line for line in dciodvfy_errors(path) if line != SUMMARY]
    if defect.inherited:
        element = document[defect.inherited]
        name = f"(0x{element.tag.group:04x},0x{element.tag.element:04x})"
        assert [line for line in errors if name not in line and f"<{defect.inherited}>" not in line] == []
        noted = any(note.startswith(f"inherited: {defect.inherited}") for note in result.notes)
        assert noted or (errors and defect.unknown_to_validator)
    else:
        assert errors == []
        dsrdump(path)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize(
    "value",
    [None, b"", b"1.2.3\\1.2.4", b"1.2\t", b"\xe9"],
    ids=["absent", "empty", "two values", "control character", "not ASCII"],
)
def test_an_image_that_cannot_be_referred_to_is_not_reportable(keyword: str, value: bytes | None) -> None:
    with pytest.raises(NotReportable, match=keyword):
        context_of(read({k: v for k, v in {**HEADER, keyword: value}.items() if v is not None}))


def test_an_identity_that_no_element_can_hold_is_not_reportable() -> None:
    source = read(HEADER)
    source.PatientID = "P" * 70_000
    with pytest.raises(NotReportable, match="PatientID"):
        context_of(source)


def test_no_repair_quotes_what_it_repaired() -> None:
    secret = b"Q7Q7Q7"
    changed: dict[str, bytes] = dict.fromkeys(
        (*IDENTITY, "StudyID", "StudyDescription", "PatientBirthDate", "PatientSex", "PatientAge"), secret * 20
    )
    context = context_of(read({**HEADER, **changed}))
    assert len(context.repairs) >= len(changed)
    assert "Q7" not in " ".join(context.repairs)


def syntaxes() -> dict[str, bytes]:
    """The good header in every way its bytes can lie in a file."""
    body = encoded(HEADER)
    private = element(0x00090010, "LO", b"ACME 1.0") + element(0x00091001, "UN", b"\0\1\2\3")
    orphan = element(0x000B1001, "LO", b"no creator")
    deflated = zlib.compressobj(wbits=-15)
    files = {
        "explicit little": meta() + body,
        "no preamble": body,
        "rubbish after the end": meta() + body + b"\0" * 37,
        "deflated": meta(transfer_syntax="1.2.840.10008.1.2.1.99") + deflated.compress(body) + deflated.flush(),
        "group lengths": meta() + element(0x00080000, "UL", struct.pack("<I", 4)) + body,
        "private elements": meta()
        + body[: body.index(b"\x10\x00\x10\x00")]
        + private
        + orphan
        + body[body.index(b"\x10\x00\x10\x00") :],
    }
    plain = dcmread(BytesIO(files["explicit little"]))
    for name, little, implicit in (("implicit little", True, True), ("explicit big", False, False)):
        buffer = BytesIO()
        dataset = Dataset()
        dataset.update({item.tag: item for item in plain})
        dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)
        syntax = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.2"
        files[name] = meta(transfer_syntax=syntax) + buffer.getvalue()
    return files


@pytest.mark.parametrize("name", syntaxes())
def test_the_way_a_header_was_encoded_changes_nothing_in_its_sr(name: str, builder: SrBuilder) -> None:
    source = dcmread(BytesIO(syntaxes()[name]), force=True)
    result = builder.build(source, instance_of(read(HEADER)), prediction(labels=2))
    assert result.data == builder.build(read(HEADER), instance_of(read(HEADER)), prediction(labels=2)).data


def test_a_header_somebody_has_looked_at_already_gives_the_same_sr(builder: SrBuilder) -> None:
    header = {**HEADER, "SpecificCharacterSet": b"\\ISO 2022 IR 87", "PatientName": JAPANESE}
    seen = read(header)
    assert "山田" in str(seen.PatientName)
    assert all(str(item) for item in seen)
    fresh = builder.build(read(header), instance_of(read(header)), prediction(labels=2))
    assert builder.build(seen, instance_of(seen), prediction(labels=2)).data == fresh.data
