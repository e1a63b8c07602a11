"""Defects seen in received headers, written as raw bytes: what the SR takes over, what it repairs, what it inherits."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite

from router.errors import NotReportable
from router.report.check import check
from router.report.context import IDENTITY, context_of, raw_value
from router.report.sr import SrBuilder
from tests.report.made import HEADER, dciodvfy_errors, dsrdump, element, encoded, instance_of, meta, prediction, read

#: dciodvfy prints this line after those that name an element.
SUMMARY = "Error - Dicom dataset contains invalid data values for Value Representations"
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう".encode("iso2022_jp")
KOREAN = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"


@dataclass(frozen=True)
class Defect:
    """What is changed in a good header, and what must come of it."""

    name: str
    changed: dict[str, bytes | tuple[str, bytes] | None]
    """None: absent."""
    written: dict[str, bytes | None] = field(default_factory=dict)
    """Elements of the SR without trailing padding; None: absent."""
    inherited: str = ""
    """Keyword of the identifying element whose defect the SR has too."""
    unknown_to_validator: bool = False
    """dciodvfy of 2022 does not know the character set, in the image either."""
    remarked: str = ""
    """Part of a remark that must be among the repairs."""


def absent(keyword: str) -> Defect:
    return Defect(f"{keyword} absent", {keyword: None}, {keyword: b""}, remarked=f"{keyword} absent")


DEFECTS = [
    Defect("none", {}),
    *(
        absent(keyword)
        for keyword in (
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
            "AccessionNumber",
            "StudyID",
            "StudyDate",
            "StudyTime",
            "ReferringPhysicianName",
        )
    ),
    Defect("InstanceNumber absent", {"InstanceNumber": None}, {"InstanceNumber": b"1"}),
    Defect("SeriesNumber absent", {"SeriesNumber": None}),
    Defect("Modality absent", {"Modality": None}, {"Modality": b"SR"}),
    Defect("SOPClassUID absent", {"SOPClassUID": None}),
    Defect("PatientID empty", {"PatientID": b""}, {"PatientID": b""}, remarked="PatientID empty"),
    Defect(
        "every Type 2 element empty",
        dict.fromkeys(
            (
                "PatientID",
                "PatientName",
                "PatientBirthDate",
                "PatientSex",
                "AccessionNumber",
                "StudyID",
                "StudyDate",
                "StudyTime",
                "ReferringPhysicianName",
            ),
            b"",
        ),
        {"PatientName": b"", "StudyDate": b""},
    ),
    # UIDs: the archive files by this very text
    Defect(
        "StudyInstanceUID of 70 characters",
        {"StudyInstanceUID": b"1.2.840" + b".123456789" * 6 + b".1"},
        inherited="StudyInstanceUID",
    ),
    Defect(
        "UID component with leading zero", {"StudyInstanceUID": b"1.2.840.0113619.2.05.7"}, inherited="StudyInstanceUID"
    ),
    Defect("UID padded with a space", {"StudyInstanceUID": b"1.2.840.1 "}, {"StudyInstanceUID": b"1.2.840.1"}),
    Defect("UID with letters", {"StudyInstanceUID": b"1.2.840.11a619.2"}, inherited="StudyInstanceUID"),
    # dates and times
    Defect("StudyDate as ACR-NEMA wrote it", {"StudyDate": b"2025.01.02"}, {"StudyDate": b"20250102"}),
    Defect("StudyDate 00000000", {"StudyDate": b"00000000"}, {"StudyDate": b""}, remarked="StudyDate is not valid"),
    Defect("StudyDate of two values", {"StudyDate": b"20250102\\20250103"}, {"StudyDate": b""}),
    Defect("PatientBirthDate of 4 digits", {"PatientBirthDate": b"1970"}, {"PatientBirthDate": b""}),
    Defect("PatientBirthDate that never was", {"PatientBirthDate": b"19700230"}, {"PatientBirthDate": b""}),
    Defect("StudyTime with colons", {"StudyTime": b"10:11:12"}, {"StudyTime": b"101112"}),
    Defect("StudyTime after midnight's end", {"StudyTime": b"256199"}, {"StudyTime": b""}),
    Defect("StudyTime with 7 decimals", {"StudyTime": b"101112.1234567"}, {"StudyTime": b"101112.123456"}),
    Defect("StudyTime of hours alone", {"StudyTime": b"10"}, {"StudyTime": b"10"}),
    Defect("time zone not valid", {"TimezoneOffsetFromUTC": b"CET"}, {"TimezoneOffsetFromUTC": None}),
    # patient
    Defect("PatientSex MALE", {"PatientSex": b"MALE"}, {"PatientSex": b"M"}),
    Defect("PatientSex U", {"PatientSex": b"U"}, {"PatientSex": b""}),
    Defect("PatientSex nonsense", {"PatientSex": b"?"}, {"PatientSex": b""}),
    Defect("PatientAge of digits alone", {"PatientAge": b"62"}, {"PatientAge": None}, remarked="PatientAge"),
    Defect("PatientAge valid", {"PatientAge": b"062Y"}, {"PatientAge": b"062Y"}),
    Defect("decimal commas", {"PatientWeight": b"70,5", "PatientSize": b"1,8"}, {"PatientWeight": None}),
    Defect("PatientID with spaces round", {"PatientID": b"  P 1  "}, {"PatientID": b"  P 1"}),
    Defect("PatientID padded with NUL", {"PatientID": b"P-1\0"}, {"PatientID": b"P-1"}),
    Defect("PatientID of 80 characters", {"PatientID": b"P" * 80}, inherited="PatientID"),
    Defect("PatientID with backslash", {"PatientID": b"AB\\CD"}, inherited="PatientID"),
    Defect("PatientID with a tabulator", {"PatientID": b"AB\tCD"}, inherited="PatientID"),
    Defect("PatientID as UN", {"PatientID": ("UN", b"P-1 ")}, {"PatientID": b"P-1"}),
    Defect("IssuerOfPatientID", {"IssuerOfPatientID": b"HOSPITAL"}, {"IssuerOfPatientID": b"HOSPITAL"}),
    Defect("AccessionNumber of 24 characters", {"AccessionNumber": b"A" * 24}, inherited="AccessionNumber"),
    Defect("AccessionNumber with backslash", {"AccessionNumber": b"A1\\A2"}, inherited="AccessionNumber"),
    Defect("PatientName with 4 groups", {"PatientName": b"A=B=C=D"}, remarked="inherited: PatientName"),
    Defect("PatientName with 7 components", {"PatientName": b"A^B^C^D^E^F^G"}, inherited="PatientName"),
    Defect("PatientName of one component", {"PatientName": b"Doe, Jane"}),
    Defect("PatientName of 100 characters", {"PatientName": b"N" * 100}, inherited="PatientName"),
    Defect("ReferringPhysicianName too long", {"ReferringPhysicianName": b"R" * 90}, {"ReferringPhysicianName": b""}),
    # study
    Defect("StudyID of 20 characters", {"StudyID": b"S" * 20}, {"StudyID": b"S" * 16}, remarked="StudyID"),
    Defect("StudyDescription of 90 characters", {"StudyDescription": b"D" * 90}, {"StudyDescription": b"D" * 64}),
    Defect("StudyDescription with backslash", {"StudyDescription": b"AP\\LAT"}, {"StudyDescription": b"AP/LAT"}),
    Defect("StudyDescription with line break", {"StudyDescription": b"AP\r\nLAT"}, {"StudyDescription": b"APLAT"}),
    # character sets
    Defect(
        "no character set, Latin-1 bytes",
        {"SpecificCharacterSet": None, "PatientName": b"M\xfcller^J\xf6rg"},
        {"SpecificCharacterSet": b"ISO_IR 100"},
        remarked="ISO_IR 100 assumed",
    ),
    Defect(
        "no character set, UTF-8 bytes",
        {"SpecificCharacterSet": None, "PatientName": "Müller^Jörg".encode()},
        {"SpecificCharacterSet": b"ISO_IR 192"},
        remarked="ISO_IR 192 assumed",
    ),
    Defect("ISO_IR 100 declared, UTF-8 bytes", {"PatientName": "Müller^Jörg".encode()}),
    Defect(
        "ISO-IR 100",
        {"SpecificCharacterSet": b"ISO-IR 100", "PatientName": b"M\xfcller"},
        {"SpecificCharacterSet": b"ISO_IR 100"},
    ),
    Defect(
        "iso_ir 100",
        {"SpecificCharacterSet": b"iso_ir 100", "PatientName": b"M\xfcller"},
        {"SpecificCharacterSet": b"ISO_IR 100"},
    ),
    Defect(
        "UTF-8",
        {"SpecificCharacterSet": b"UTF-8", "PatientName": "Müller".encode()},
        {"SpecificCharacterSet": b"ISO_IR 192"},
    ),
    Defect(
        "ISO_IR 999",
        {"SpecificCharacterSet": b"ISO_IR 999", "PatientName": b"M\xfcller"},
        {"SpecificCharacterSet": b"ISO_IR 100"},
        remarked="character set unknown",
    ),
    Defect("ISO_IR 999, ASCII", {"SpecificCharacterSet": b"ISO_IR 999"}, {"SpecificCharacterSet": None}),
    Defect("ISO_IR 6", {"SpecificCharacterSet": b"ISO_IR 6"}, {"SpecificCharacterSet": None}),
    Defect(
        "ISO 2022 IR 100 alone",
        {"SpecificCharacterSet": b"ISO 2022 IR 100", "PatientName": b"M\xfcller"},
        {"SpecificCharacterSet": b"ISO_IR 100"},
    ),
    Defect(
        "ISO 2022 IR 87 alone",
        {"SpecificCharacterSet": b"ISO 2022 IR 87", "PatientName": JAPANESE},
        {"SpecificCharacterSet": b"\\ISO 2022 IR 87"},
    ),
    Defect(
        "ISO_IR 100 beside ISO_IR 192",
        {"SpecificCharacterSet": b"ISO_IR 100\\ISO_IR 192", "PatientName": "Müller".encode()},
        {"SpecificCharacterSet": b"ISO_IR 192"},
    ),
    Defect(
        "ISO_IR 192 beside ISO_IR 100",
        {"SpecificCharacterSet": b"ISO_IR 192\\ISO_IR 100", "PatientName": b"M\xfcller"},
        {"SpecificCharacterSet": b"ISO_IR 100"},
    ),
    Defect(
        "ISO_IR 100 beside ISO_IR 144",
        {"SpecificCharacterSet": b"ISO_IR 100\\ISO_IR 144"},
        {"SpecificCharacterSet": b"ISO 2022 IR 100\\ISO 2022 IR 144"},
    ),
    Defect(
        "Japanese in UTF-8",
        {"SpecificCharacterSet": b"ISO_IR 192", "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう".encode()},
    ),
    Defect(
        "Japanese as most modalities write it",
        {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "PatientName": JAPANESE},
        {"SpecificCharacterSet": b"\\ISO 2022 IR 87"},
    ),
    Defect(
        "Japanese, half-width kana first",
        {
            "SpecificCharacterSet": b"ISO 2022 IR 13\\ISO 2022 IR 87",
            "PatientName": b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
        },
        {"SpecificCharacterSet": b"ISO 2022 IR 13\\ISO 2022 IR 87"},
    ),
    Defect(
        "Japanese, half-width kana alone",
        {"SpecificCharacterSet": b"ISO_IR 13", "PatientName": b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3"},
        {"SpecificCharacterSet": b"ISO_IR 13"},
        inherited="PatientName",
        unknown_to_validator=True,
    ),
    Defect(
        "Japanese StudyDescription with byte 0x5C inside a character",
        {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "StudyDescription": "暴".encode("iso2022_jp")},
    ),
    Defect(
        "Japanese StudyDescription of 90 characters",
        {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "StudyDescription": ("胸" * 90).encode("iso2022_jp")},
        {"StudyDescription": ("胸" * 29).encode("iso2022_jp")},
    ),
    Defect(
        "Korean",
        {"SpecificCharacterSet": b"\\ISO 2022 IR 149", "PatientName": KOREAN},
        {"SpecificCharacterSet": b"\\ISO 2022 IR 149"},
    ),
    Defect(
        "Chinese in GB18030", {"SpecificCharacterSet": b"GB18030", "PatientName": "Wang^X=王^小东".encode("gb18030")}
    ),
    Defect(
        "Chinese in GBK",
        {"SpecificCharacterSet": b"GBK", "PatientName": "Wang^X=王^小东".encode("gbk")},
        {"SpecificCharacterSet": b"GBK"},
        inherited="PatientName",
        unknown_to_validator=True,
    ),
    Defect(
        "Cyrillic",
        {"SpecificCharacterSet": b"ISO_IR 144", "PatientName": "Люкceмбypг".encode("iso8859_5")},
        {"SpecificCharacterSet": b"ISO_IR 144"},
    ),
    Defect("Greek", {"SpecificCharacterSet": b"ISO_IR 126", "PatientName": "Διονυσιος".encode("iso8859_7")}),
    Defect("Arabic", {"SpecificCharacterSet": b"ISO_IR 127", "PatientName": "قباني^لنزار".encode("iso8859_6")}),
    Defect("Thai", {"SpecificCharacterSet": b"ISO_IR 166", "PatientName": "นามสกุล^ชื่อ".encode("iso8859_11")}),
    # what kind of image
    Defect("Secondary Capture with Modality CR", {"SOPClassUID": b"1.2.840.10008.5.1.4.1.1.7"}),
    Defect("DX for presentation", {"SOPClassUID": b"1.2.840.10008.5.1.4.1.1.1.1", "Modality": b"DX"}),
    Defect("Modality XR", {"Modality": b"XR"}),
    Defect("Modality in lower case", {"Modality": b"cr"}),
    Defect("private SOP class", {"SOPClassUID": b"1.2.840.113619.4.27"}),
    Defect("unknown SOP class", {"SOPClassUID": b"1.2.3.4.5"}),
    # numbers
    Defect("InstanceNumber 1.0", {"InstanceNumber": b"1.0"}, {"InstanceNumber": b"1"}),
    Defect("InstanceNumber too large", {"InstanceNumber": b"9999999999999"}, {"InstanceNumber": b"1"}),
    Defect("InstanceNumber with letters", {"InstanceNumber": b"IMG1"}, {"InstanceNumber": b"1"}),
    Defect("NumberOfFrames 1", {"NumberOfFrames": b"1"}),
    Defect("NumberOfFrames empty", {"NumberOfFrames": b""}),
    Defect("Rows empty", {"Rows": b""}),
    Defect("Rows of two values", {"Rows": struct.pack("<HH", 4, 4)}),
    Defect("PixelSpacing 0", {"PixelSpacing": b"0\\0"}),
    Defect("PixelSpacing NaN", {"PixelSpacing": b"NaN\\NaN"}),
    # sequences that a writer must not take over
    Defect("empty item of other patient IDs", {"OtherPatientIDsSequence": b"\xfe\xff\x00\xe0\0\0\0\0"}),
    Defect("empty item of referenced study", {"ReferencedStudySequence": b"\xfe\xff\x00\xe0\0\0\0\0"}),
    Defect("empty item of procedure code", {"ProcedureCodeSequence": b"\xfe\xff\x00\xe0\0\0\0\0"}),
    Defect("empty issuer sequence", {"IssuerOfPatientIDQualifiersSequence": b""}),
    Defect("an animal", {"PatientSpeciesDescription": b"Canis", "PatientBreedDescription": b"?"}),
]


@pytest.fixture(scope="module")
def builder() -> SrBuilder:
    return SrBuilder()


def with_defect(defect: Defect) -> Dataset:
    changed = {keyword: value for keyword, value in {**HEADER, **defect.changed}.items() if value is not None}
    return read(changed)


def stored(dataset: Dataset, keyword: str) -> bytes | None:
    return raw_value(dataset, keyword).rstrip(b"\0 ") if keyword in dataset else None


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defective_header_gives_a_valid_sr_of_the_same_patient(
    defect: Defect, builder: SrBuilder, tmp_path: Path
) -> None:
    source = with_defect(defect)
    result = builder.build(source, instance_of(source), prediction(labels=2))
    assert check(result, with_defect(defect)) == []

    document = dcmread(BytesIO(result.data))
    for keyword in ("StudyInstanceUID", *IDENTITY):
        assert (stored(document, keyword) or b"") == (stored(with_defect(defect), keyword) or b""), keyword
    for keyword, value in defect.written.items():
        assert stored(document, keyword) == value, keyword
    assert any(defect.remarked in note for note in result.notes) or not defect.remarked, result.notes

    path = tmp_path / "sr.dcm"
    path.write_bytes(result.data)
    errors = [line for line in dciodvfy_errors(path) if line != SUMMARY]
    if defect.inherited:
        element = document[defect.inherited]
        name = f"(0x{element.tag.group:04x},0x{element.tag.element:04x})"
        assert errors
        assert [line for line in errors if name not in line and f"<{defect.inherited}>" not in line] == []
        said = any(note.startswith(f"inherited: {defect.inherited}") for note in result.notes)
        assert said or defect.unknown_to_validator
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
        context_of(with_defect(Defect("", {keyword: value})))


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
