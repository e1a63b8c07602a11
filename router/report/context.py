"""What a result object takes over from the received image: its identity byte for byte, everything else repaired or left out.

Archives file an object under the exact text of Patient ID and Study Instance UID, so a «repaired» Patient ID files the
result under another patient (seen with Orthanc). Everything else in a received header is only as good as its modality: what
is not valid would make our own document invalid, or make the library that writes it raise. So the writer never sees the
received data set, only this.
Sources: PS3.5 6.2 (lengths and characters of each VR), PS3.3 C.7.1.1, C.7.2.1, C.12.1.1.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag, Tag

from router.core.admission import UID_LENGTH_MAX, UID_TEXT_LENGTH_MAX
from router.core.instance import SopInstance
from router.errors import NotReportable
from router.report.charset import decoded, encoded, settled_terms
from router.report.repair import REPAIRS

#: Copied as stored, even when not valid; with the most characters that are valid.
IDENTITY: Mapping[str, int] = {"PatientID": 64, "PatientName": 64, "IssuerOfPatientID": 64, "AccessionNumber": 16}
_TEXTS = {"StudyID": 16, "StudyDescription": 64}
#: Written even when empty: Type 2 in the Patient and General Study modules.
_TYPE_2 = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
#: An element of explicit VR with a 16-bit length cannot hold more (PS3.5 7.1.2).
_VALUE_BYTE_COUNT_MAX = 0xFFFE
#: Of VR US.
_NUMBERS = frozenset({"Rows", "Columns"})
_BINARY_VRS = frozenset({"OB", "OW", "UN"})
_VALID_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The received image as a result object may refer to it."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    header: Mapping[str, bytes]
    """DICOM keyword -> encoded value of even length, ready to write; Specific Character Set fits the rest."""
    modality: str
    """CS; «OT» when the image has none."""
    rows: int | None
    columns: int | None
    instance_number: int
    """1 when the image has none."""
    utc_offset: str
    """«+0100»; empty when the image does not say."""
    repairs: tuple[str, ...]
    """What was repaired, left out or inherited although not valid; names attributes, never quotes their values."""


def context_of_received(source: Any, instance: SopInstance) -> Context:
    """`context_of` the data set of a received instance. Raises NotReportable, also when it is another instance's."""
    context = context_of(source, sop_class_uid=instance.sop_class_uid)
    if context.sop_instance_uid != instance.sop_instance_uid:
        raise NotReportable("the data set is not of the instance that was received")
    return context


def context_of(source: Any, *, sop_class_uid: str = "") -> Context:
    """The cleaned context of a pydicom Dataset; `sop_class_uid` is used when the data set itself has none.

    Raises NotReportable when an instance cannot be referred to: a UID is missing, has several values, or an identifying
    text is longer than an element can be.
    """
    repairs: list[str] = []
    for keyword in ("PatientID", "StudyInstanceUID"):
        _refuse_untold_padding(source, keyword)
    uids = {
        keyword: _uid(source, keyword, fallback, repairs)
        for keyword, fallback in (
            ("SOPClassUID", sop_class_uid),
            ("SOPInstanceUID", ""),
            ("StudyInstanceUID", ""),
            ("SeriesInstanceUID", ""),
        )
    }
    raw = {keyword: _kept(source, keyword) for keyword in (*IDENTITY, *_TEXTS, "ReferringPhysicianName")}
    declared = _plain(source, "SpecificCharacterSet", "")
    terms, remarks = settled_terms(declared.split("\\") if declared else [], raw.values())
    repairs += remarks

    header: dict[str, bytes] = {}
    if any(terms):
        header["SpecificCharacterSet"] = _padded("\\".join(terms).encode())
    header["StudyInstanceUID"] = _padded(uids["StudyInstanceUID"].encode("latin-1"), b"\0")
    for keyword, length_max in IDENTITY.items():
        header[keyword] = _identity(keyword, raw[keyword], terms, length_max, repairs)
    for keyword, length_max in _TEXTS.items():
        header[keyword] = _text(keyword, raw[keyword], terms, length_max, repairs)
    header["ReferringPhysicianName"] = _physician(raw["ReferringPhysicianName"], terms, repairs)
    for keyword, repair in REPAIRS.items():
        value = _plain(source, keyword)
        fixed = repair(value)
        if fixed is None:
            repairs.append(f"{keyword} is not valid, left out")
        elif fixed != value:
            repairs.append(f"{keyword} rewritten as the Standard writes it")
        header[keyword] = _padded((fixed or "").encode())
    repairs += [f"{keyword} absent, written empty" for keyword in _TYPE_2 if keyword not in source]
    if not header["PatientID"]:
        repairs.append("PatientID empty: an archive may refuse the result as it refuses the image")
    return Context(
        sop_class_uid=uids["SOPClassUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        study_instance_uid=uids["StudyInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        header={keyword: value for keyword, value in header.items() if value or keyword in _TYPE_2},
        modality=_plain(source, "Modality").upper()[:16] or "OT",
        rows=_number(source, "Rows"),
        columns=_number(source, "Columns"),
        instance_number=_number(source, "InstanceNumber") or 1,
        utc_offset=header["TimezoneOffsetFromUTC"].decode().strip(),
        repairs=tuple(repairs),
    )


@cache
def _tag(keyword: str) -> BaseTag:
    """Of a keyword of PS3.6, made once: pydicom makes one of every number that it is given."""
    number = tag_for_keyword(keyword)
    if number is None:
        raise KeyError(keyword)
    return Tag(number)


def raw_value(source: Any, keyword: str) -> bytes:
    """The value of a top-level element as stored, trailing padding included; empty when it is absent.

    An element that pydicom has converted already is encoded again, in the character set the data set declares.
    """
    element = source.get_item(_tag(keyword))
    if element is None:
        return b""
    if element.is_raw:
        return bytes(element.value or b"")
    if element.VR == "SQ":
        return b""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_data_element(buffer, element, source.get("SpecificCharacterSet"))
    return bytes(buffer.getvalue()[8:])  # tag and length


def _kept(source: Any, keyword: str) -> bytes:
    """As stored; only NULs at the end go, which are padding of other VRs (PS3.5 6.2) and make a text invalid."""
    value = raw_value(source, keyword)
    if keyword in IDENTITY and len(value) > _VALUE_BYTE_COUNT_MAX:
        raise NotReportable(f"{keyword} has {len(value)} bytes: it cannot be copied as it is")
    return value.rstrip(b"\0")


def _refuse_untold_padding(source: Any, keyword: str) -> None:
    """Raises NotReportable when only the VR could say whether the last character belongs to the text, and it does not.

    Seen: Orthanc files an image with Patient ID «P-1 » of VR UN under another patient than one with «P-1» of VR LO.
    """
    element = source.get_item(_tag(keyword))
    untold = element is not None and element.is_raw and element.VR in _BINARY_VRS
    if untold and bytes(element.value or b"").endswith((b" ", b"\0")):
        raise NotReportable(f"{keyword} is stored as {element.VR} with padding: archives differ in what it says")


def _plain(source: Any, keyword: str, strip: str = " ") -> str:
    """The value as ASCII text; numbers as digits."""
    if keyword in _NUMBERS:
        try:
            value = source.get(keyword)
        except Exception:  # noqa: BLE001 - converting a malformed value raises whatever the value provokes
            return ""
        return str(value) if isinstance(value, int) else ""
    return raw_value(source, keyword).decode("latin-1").rstrip("\0 ").strip(strip)


def _uid(source: Any, keyword: str, fallback: str, repairs: list[str]) -> str:
    # Spaces before it stay: the image is filed under them, too.
    text = _plain(source, keyword, "")
    if not text.strip():
        meta = getattr(source, "file_meta", None)
        if keyword == "SOPClassUID" and meta is not None:
            fallback = fallback or str(meta.get("MediaStorageSOPClassUID", ""))
        text = fallback
    if not text:
        raise NotReportable(f"{keyword} is missing")
    if "\\" in text:
        raise NotReportable(f"{keyword} has {text.count(chr(92)) + 1} values")
    if not (text.isascii() and text.isprintable()):
        raise NotReportable(f"{keyword} is not text that can be referred to")
    if len(text) > UID_TEXT_LENGTH_MAX:
        raise NotReportable(f"{keyword} has {len(text)} characters")
    if len(text) > UID_LENGTH_MAX or not _VALID_UID.fullmatch(text):
        # The image is filed under this very text; a corrected one would name another study.
        repairs.append(f"inherited: {keyword} is not a valid UID")
    return text


def _identity(keyword: str, raw: bytes, terms: Sequence[str], length_max: int, repairs: list[str]) -> bytes:
    valid = _valid_name if keyword == "PatientName" else _valid_text
    if not valid(decoded(raw, terms), length_max):
        repairs.append(f"inherited: {keyword} is not valid")
    return _padded(raw)


def _text(keyword: str, raw: bytes, terms: Sequence[str], length_max: int, repairs: list[str]) -> bytes:
    text = decoded(raw, terms)
    if _valid_text(text, length_max):
        return _padded(raw)
    value = _shortened("".join(c for c in (text or "").replace("\\", "/") if c.isprintable()), terms, length_max)
    repairs.append(f"{keyword} is not valid, {'shortened or mended' if value else 'left out'}")
    return _padded(value)


def _shortened(text: str, terms: Sequence[str], length_max: int) -> bytes:
    """At most `length_max` characters (PS3.5 6.2), and bytes too, because there are archives that count bytes."""
    text = text.strip()[:length_max].rstrip()
    value = encoded(text, terms)
    while value is not None and len(value) > length_max:
        text = text[:-1].rstrip()
        value = encoded(text, terms)
    return value or b""


def _physician(raw: bytes, terms: Sequence[str], repairs: list[str]) -> bytes:
    if _valid_name(decoded(raw, terms), IDENTITY["PatientName"]):
        return _padded(raw)
    repairs.append("ReferringPhysicianName is not valid, left out")
    return b""


def _valid_text(text: str | None, length_max: int) -> bool:
    if text is None or "\\" in text:
        return False
    return len(text.rstrip()) <= length_max and all(c >= " " and c != "\x7f" for c in text)


def _valid_name(text: str | None, length_max: int) -> bool:
    if text is None:
        return False
    groups = text.split("=")
    return len(groups) <= 3 and all(_valid_text(group, length_max) and group.count("^") <= 4 for group in groups)


#: Every keyword that a context's header can hold.
COPIED = ("SpecificCharacterSet", "StudyInstanceUID", *IDENTITY, *_TEXTS, "ReferringPhysicianName", *REPAIRS)


def _number(source: Any, keyword: str) -> int | None:
    text = _plain(source, keyword)
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.A) and int(text) else None


def _padded(value: bytes, pad: bytes = b" ") -> bytes:
    return value + pad if len(value) % 2 else value
