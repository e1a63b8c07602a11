"""More defects of received headers: structure, value representations, character sets, and texts that nobody would expect."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.report.defects import Defect
from tests.report.made import element

_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = b"\xff\xff\xff\xff"
_OTHER_PATIENT_IDS = 0x00101002


def _head(tag: int) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def item(*elements: bytes) -> bytes:
    """An item of defined length."""
    body = b"".join(elements)
    return _ITEM + struct.pack("<I", len(body)) + body


def open_item(*elements: bytes) -> bytes:
    """An item of undefined length, ended by its delimiter."""
    return _ITEM + _UNDEFINED + b"".join(elements) + _ITEM_END + bytes(4)


def open_sequence(tag: int, *items: bytes) -> bytes:
    """A sequence of undefined length, ended by its delimiter."""
    return _head(tag) + b"SQ\0\0" + _UNDEFINED + b"".join(items) + _SEQUENCE_END + bytes(4)


def with_elements(*elements: bytes) -> Callable[[bytes], bytes]:
    """Encoded elements put where their tags belong."""

    def mangled(data: bytes) -> bytes:
        for one in elements:
            at = _position(data, one[:4])
            data = data[:at] + one + data[at:]
        return data

    return mangled


def at_end(*elements: bytes) -> Callable[[bytes], bytes]:
    """Encoded elements after everything else, in order or not."""
    return lambda data: data + b"".join(elements)


def first(*elements: bytes) -> Callable[[bytes], bytes]:
    """Encoded elements before everything else."""
    return lambda data: b"".join(elements) + data


def with_bytes(tag: int, raw: bytes) -> Callable[[bytes], bytes]:
    """The element of this tag replaced by bytes as they are."""

    def mangled(data: bytes) -> bytes:
        start = _position(data, _head(tag))
        end = start + 8 + struct.unpack_from("<H", data, start + 6)[0]
        return data[:start] + raw + data[end:]

    return mangled


def _position(data: bytes, tag: bytes) -> int:
    """Where the first element is whose tag is not smaller."""
    wanted = struct.unpack("<HH", tag)
    at = 0
    while at < len(data) and struct.unpack_from("<HH", data, at) < wanted:
        long = data[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        length = struct.unpack_from("<I" if long else "<H", data, at + (8 if long else 6))[0]
        at += (12 if long else 8) + length
    return at


_IDENTIFIED = element(0x00100020, "LO", b"X1")
_NESTED = open_sequence(
    _OTHER_PATIENT_IDS, open_item(_IDENTIFIED, open_sequence(0x00100024, item(element(0x00400031, "UT", b"")), item()))
)

STRUCTURE = [
    Defect("sequences nested with undefined lengths", mangled=with_elements(_NESTED)),
    Defect("empty items of both kinds", mangled=with_elements(open_sequence(_OTHER_PATIENT_IDS, item(), open_item()))),
    Defect("sequence without items", mangled=with_elements(open_sequence(_OTHER_PATIENT_IDS))),
    Defect(
        "sequence that is not ended",
        mangled=with_elements(_head(_OTHER_PATIENT_IDS) + b"SQ\0\0" + _UNDEFINED + item(_IDENTIFIED)),
        refused="stands where an item belongs",
    ),
    Defect(
        "sequence not ended at the end of the data set",
        mangled=at_end(_head(0x00400275) + b"SQ\0\0" + _UNDEFINED + open_item(_IDENTIFIED)),
        refused="ends inside a sequence",
    ),
    Defect(
        "item not ended in the last sequence",
        mangled=at_end(_head(0x00400275) + b"SQ\0\0" + _UNDEFINED + _ITEM + _UNDEFINED + _IDENTIFIED),
        refused="ends inside a sequence",
    ),
    Defect(
        "item longer than its sequence",
        mangled=with_elements(element(_OTHER_PATIENT_IDS, "SQ", _ITEM + struct.pack("<I", 99) + _IDENTIFIED)),
        refused="longer than what it lies in",
    ),
    Defect("delimiter without a sequence", mangled=at_end(_SEQUENCE_END + bytes(4)), refused="none belongs"),
    Defect(
        "sequence of text",
        {"OtherPatientIDsSequence": ("SQ", b"X1, X2  ")},
        refused="stands where an item belongs",
    ),
    Defect("last element cut off", mangled=lambda data: data[:-1], refused="longer than what it lies in"),
    Defect(
        "pixel data cut off",
        mangled=at_end(_head(0x7FE00010) + b"OW\0\0" + struct.pack("<I", 2**20) + bytes(99)),
        refused="longer than what it lies in",
    ),
    Defect(
        "encapsulated pixel data not ended",
        mangled=at_end(_head(0x7FE00010) + b"OB\0\0" + _UNDEFINED + item() + item(b"\xff\xd8")),
        refused="ends inside a sequence",
    ),
    Defect("odd length of a text", mangled=with_bytes(0x00100010, element(0x00100010, "PN", b"Doe"))),
    Defect("odd length of an identifier", mangled=with_bytes(0x00100020, element(0x00100020, "LO", b"P-1"))),
    Defect("elements out of order", mangled=at_end(element(0x00081030, "LO", b"Chest AP"))),
    Defect("identity after everything else", {"PatientID": None}, mangled=at_end(element(0x00100020, "LO", b"P-1 "))),
    Defect("the same element twice", mangled=at_end(element(0x00081030, "LO", b"Another "))),
    Defect(
        "two patient identifiers that differ",
        mangled=at_end(element(0x00100020, "LO", b"P-2 ")),
        not_reportable="PatientID stands in the data set more than once",
    ),
    Defect(
        "two names that differ, one after the other",
        mangled=with_elements(element(0x00100010, "PN", b"Somebody^Else ")),
        not_reportable="PatientName stands in the data set more than once",
    ),
    Defect(
        "two study UIDs",
        mangled=at_end(element(0x0020000D, "UI", b"1.2.3\0")),
        refused="more than once",
    ),
    Defect("two character sets", mangled=at_end(element(0x00080005, "CS", b"ISO_IR 144"))),
    Defect("group lengths that are wrong", mangled=with_elements(element(0x00100000, "UL", b"\1\0\0\0"))),
    Defect("group length of another VR", mangled=with_elements(element(0x00100000, "LO", b"12"))),
    Defect("length to end", mangled=first(element(0x00080001, "UL", b"\xff\xff\0\0"))),
    Defect("private element without a creator", mangled=with_elements(element(0x00091001, "LO", b"nobody's"))),
    Defect(
        "private block with two creators",
        mangled=with_elements(
            element(0x00090010, "LO", b"ACME"), element(0x00090011, "LO", b"ACME"), element(0x00091101, "UN", b"\0\1")
        ),
    ),
    Defect("private creator that is binary", mangled=with_elements(element(0x00090010, "UN", b"\xff\xfe\0\1"))),
    Defect("huge private block", mangled=with_elements(element(0x00091001, "UN", bytes(range(256)) * 12_000))),
    Defect(
        "private sequence of undefined length as UN",
        mangled=with_elements(
            _head(0x00091001)
            + b"UN\0\0"
            + _UNDEFINED
            + item(_head(0x00100020) + struct.pack("<I", 2) + b"X1")
            + _SEQUENCE_END
            + bytes(4)
        ),
    ),
    Defect("data set trailing padding", mangled=at_end(element(0xFFFCFFFC, "OB", bytes(64)))),
    Defect(
        "retired elements", mangled=with_elements(element(0x00080041, "LO", b"ACR"), element(0x00200070, "LO", b"7"))
    ),
    Defect("overlay without its description", mangled=at_end(element(0x60003000, "OW", bytes(8)))),
    Defect("curves", mangled=at_end(element(0x50003000, "OW", bytes(8)))),
    Defect("element of an impossible tag", mangled=with_elements(element(0x00101FFF, "LO", b"??"))),
    Defect(
        "VR that no edition has",
        {"StudyDescription": None},
        mangled=with_elements(_head(0x00081030) + b"ZZ\0\0" + struct.pack("<I", 8) + b"Chest PA"),
        not_reportable="StudyInstanceUID is missing",  # pydicom loses its way there
    ),
    Defect("VR of two question marks", {"StudyDescription": ("??", b"Chest PA")}, refused="no valid VR"),
    Defect("another group before the data set", mangled=first(element(0x00040000, "UL", bytes(4))), refused="belong"),
]

REPRESENTATIONS = [
    Defect("identifiers as SH", {"PatientID": ("SH", b"P-1 "), "AccessionNumber": ("LO", b"A4711 ")}),
    Defect("PatientName as LO", {"PatientName": ("LO", b"Phantom^Drawn ")}),
    Defect("PatientName as UN", {"PatientName": ("UN", b"Phantom^Drawn ")}, {"PatientName": b"Phantom^Drawn"}),
    Defect("PatientID as UN with padding", {"PatientID": ("UN", b"P-1 ")}, not_reportable="PatientID is stored as UN"),
    Defect("PatientID as OB", {"PatientID": ("OB", b"P-1\0")}, not_reportable="PatientID is stored as OB"),
    Defect(
        "study UID as UN with padding",
        {"StudyInstanceUID": ("UN", b"1.2.826.0.1.3680043.8.498.9.1\0")},
        not_reportable="StudyInstanceUID is stored as UN",
    ),
    Defect("UIDs as LO", {"StudyInstanceUID": ("LO", b"1.2.826.0.1.3680043.8.498.9.1 ")}),
    Defect("UIDs as UN", {"SeriesInstanceUID": ("UN", b"1.2.826.0.1.3680043.8.498.9.2\0")}),
    Defect("character set as LO", {"SpecificCharacterSet": ("LO", b"ISO_IR 100")}),
    Defect("character set as UN", {"SpecificCharacterSet": ("UN", b"ISO_IR 100"), "PatientName": b"M\xfcller"}),
    Defect("StudyDate as LO", {"StudyDate": ("LO", b"20250101")}, {"StudyDate": b"20250101"}),
    Defect("StudyDate as binary", {"StudyDate": ("UL", b"\x01\x02\x03\x04")}, {"StudyDate": b""}),
    Defect("InstanceNumber as US", {"InstanceNumber": ("US", b"\7\0")}, {"InstanceNumber": b"1"}),
    Defect("Rows as DS", {"Rows": ("DS", b"2048")}),
    Defect("Rows as SS, negative", {"Rows": ("SS", b"\xff\xff")}),
    Defect("Rows of three bytes", mangled=with_bytes(0x00280010, element(0x00280010, "US", b"\0\1\2"))),
    Defect("Modality as SQ without items", {"Modality": ("SQ", b"")}),
    Defect("PatientID as SQ without items", {"PatientID": ("SQ", b"")}, {"PatientID": b""}),
    Defect("PatientSex as SQ without items", {"PatientSex": ("SQ", b"")}, {"PatientSex": b""}),
]

TEXTS = [
    # names
    Defect("PatientName of 5 components", {"PatientName": b"A^B^C^D^E "}, {"PatientName": b"A^B^C^D^E"}),
    Defect("PatientName of 65 characters in one group", {"PatientName": b"N" * 65}, inherited="PatientName"),
    Defect("PatientName of carets", {"PatientName": b"^^^^"}),
    Defect("PatientName of an ideographic group alone", {"PatientName": b"=Yamada "}),
    Defect("PatientName of two values", {"PatientName": b"A^B\\C^D"}, inherited="PatientName"),
    Defect("PatientName with a line break", {"PatientName": b"A^B\r\nC"}, inherited="PatientName"),
    Defect("PatientName with a NUL inside", {"PatientName": b"A\0B^C"}, inherited="PatientName"),
    Defect("PatientName of spaces", {"PatientName": b"    "}),
    Defect("PatientName of DEL", {"PatientName": b"A\x7fB "}, inherited="PatientName"),
    # identifiers
    Defect("PatientID with a line break", {"PatientID": b"AB\nCD"}, inherited="PatientID"),
    Defect("PatientID with a NUL inside", {"PatientID": b"AB\0CD "}, inherited="PatientID"),
    Defect("PatientID of NULs", {"PatientID": b"\0\0\0\0"}, {"PatientID": b""}),
    Defect("PatientID in Latin-1", {"PatientID": b"M\xfc-1"}),
    Defect("PatientID with an escape", {"PatientID": b"AB\x1bCD "}, inherited="PatientID"),
    Defect("AccessionNumber of 17 characters", {"AccessionNumber": b"A" * 17}, inherited="AccessionNumber"),
    Defect("AccessionNumber with control characters", {"AccessionNumber": b"A\x01\x02B"}, inherited="AccessionNumber"),
    Defect("IssuerOfPatientID of 100 characters", {"IssuerOfPatientID": b"I" * 100}, inherited="IssuerOfPatientID"),
    Defect("OtherPatientIDs of three values", {"OtherPatientIDs": b"X1\\X2\\X3"}),
    Defect(
        "issuer qualifiers without a type",
        mangled=with_elements(element(0x00100024, "SQ", item(element(0x00400032, "UT", b"1.2.3 ")))),
    ),
    # UIDs
    Defect("UID padded with NULs and spaces", {"StudyInstanceUID": b"1.2.840.1\0 \0"}),
    Defect("UID with a space before it", {"StudyInstanceUID": b" 1.2.840.1"}, inherited="StudyInstanceUID"),
    Defect("UID with an empty component", {"StudyInstanceUID": b"1.2..840.1"}, inherited="StudyInstanceUID"),
    Defect("UID with a dot at its end", {"StudyInstanceUID": b"1.2.840.1."}, inherited="StudyInstanceUID"),
    Defect("UID of one digit", {"StudyInstanceUID": b"7"}, inherited="StudyInstanceUID"),
    Defect("UID as a URN", {"StudyInstanceUID": b"urn:oid:1.2.3"}, inherited="StudyInstanceUID"),
    Defect("UID of 300 characters", {"StudyInstanceUID": b"1." * 150}, not_reportable="StudyInstanceUID has 300"),
    Defect("UID with a NUL inside", {"StudyInstanceUID": b"1.2\0.3 "}, not_reportable="StudyInstanceUID"),
    Defect(
        "series UID of 70 characters",
        {"SeriesInstanceUID": b"1.2.840" + b".123456789" * 6 + b".1"},
        inherited="SeriesInstanceUID",
    ),
    Defect("series UID with letters", {"SeriesInstanceUID": b"1.2.840.series "}, inherited="SeriesInstanceUID"),
    Defect("SOP class of two values", {"SOPClassUID": b"1.2.3\\1.2.4"}, refused="SOPClassUID"),
    Defect("SOP class empty", {"SOPClassUID": b""}),
    # dates, times, numbers
    Defect(
        "dates as ACR-NEMA wrote them",
        {"StudyDate": b"1998.01.02", "PatientBirthDate": b"1931.12.24"},
        {"StudyDate": b"19980102", "PatientBirthDate": b"19311224"},
    ),
    Defect("date with hyphens", {"StudyDate": b"1998-01-02"}, {"StudyDate": b"19980102"}),
    Defect("date as people write it", {"PatientBirthDate": b"24.12.1931"}, {"PatientBirthDate": b""}),
    Defect("date range", {"StudyDate": b"19980102-19990102 "}, {"StudyDate": b""}),
    Defect("date with its time", {"StudyDate": b"19980102101112"}, {"StudyDate": b""}),
    Defect("date of garbage", {"PatientBirthDate": b"\xff\xfe\0\1"}, {"PatientBirthDate": b""}),
    Defect("date in the year 1", {"StudyDate": b"00010101"}, {"StudyDate": b""}),
    Defect("dates in the future", {"StudyDate": b"99991231", "ContentDate": b"99991231"}, {"StudyDate": b""}),
    Defect("time as ACR-NEMA wrote it", {"StudyTime": b"10:11:12.345"}, {"StudyTime": b"101112.345"}),
    Defect("time of the 24th hour", {"StudyTime": b"240000"}, {"StudyTime": b""}),
    Defect("time with an empty fraction", {"StudyTime": b"101112. "}, {"StudyTime": b""}),
    Defect("time of two values", {"StudyTime": b"1011\\1012"}, {"StudyTime": b""}),
    *(
        Defect(f"time zone {zone.decode()}", {"TimezoneOffsetFromUTC": zone}, {"TimezoneOffsetFromUTC": None})
        for zone in (b"+9999", b"0100", b"+01:00", b"Z", b"+0160")
    ),
    Defect("time zone west of Greenwich", {"TimezoneOffsetFromUTC": b"-0330 "}, {"TimezoneOffsetFromUTC": b"-0330"}),
    Defect("time zone beyond the last", {"TimezoneOffsetFromUTC": b"-1359 "}, {"TimezoneOffsetFromUTC": None}),
    Defect("age in small letters", {"PatientAge": b"062y"}, {"PatientAge": None}),
    Defect("age of garbage", {"PatientAge": b"\xff\xff\xff\xff"}, {"PatientAge": None}),
    Defect("sex of two values", {"PatientSex": b"\\M"}, {"PatientSex": b""}),
    Defect(
        "numbers out of range",
        {"PatientWeight": b"1e999 ", "InstanceNumber": b"-2147483649", "SeriesNumber": b"1e9"},
        {"InstanceNumber": b"1"},
    ),
    Defect("InstanceNumber with a sign", {"InstanceNumber": b"+7"}),
    Defect("InstanceNumber of two values", {"InstanceNumber": b"7\\8 "}, {"InstanceNumber": b"1"}),
    Defect("InstanceNumber beyond IS", {"InstanceNumber": b"2147483648"}, {"InstanceNumber": b"1"}),
    Defect("InstanceNumber in Arabic digits", {"InstanceNumber": "\u0667".encode()}, {"InstanceNumber": b"1"}),
    Defect("Rows 0", {"Rows": b"\0\0"}),
    # study
    Defect("StudyID of control characters", {"StudyID": b"\x01\x02\x03\x04"}, {"StudyID": b""}),
    Defect("StudyID of 17 characters, the last a space", {"StudyID": b"S" * 16 + b" "}, {"StudyID": b"S" * 16}),
    Defect("StudyDescription of spaces", {"StudyDescription": b"      "}),
    Defect("StudyDescription of two values, one empty", {"StudyDescription": b"\\LAT"}, {"StudyDescription": b"/LAT"}),
    Defect(
        "StudyDescription of 60,000 characters", {"StudyDescription": b"D" * 60_000}, {"StudyDescription": b"D" * 64}
    ),
    Defect("Modality of 30 characters", {"Modality": b"C" * 30}),
    Defect("Modality of garbage", {"Modality": b"\xff\xfe"}),
    Defect("Modality of two values", {"Modality": b"CR\\DX "}),
]

CHARACTER_SETS = [
    Defect("ISO_IR 100 with an extension", {"SpecificCharacterSet": b"ISO_IR 100\\ISO 2022 IR 87"},
           {"SpecificCharacterSet": b"ISO 2022 IR 100\\ISO 2022 IR 87"}),
    Defect("ASCII named, with an extension", {"SpecificCharacterSet": b"ISO 2022 IR 6\\ISO 2022 IR 87"}),
    Defect("an empty term at the end", {"SpecificCharacterSet": b"ISO_IR 100\\"}),
    Defect("a backslash alone", {"SpecificCharacterSet": b"\\ "}),
    Defect("two two-byte sets", {"SpecificCharacterSet": b"\\ISO 2022 IR 149\\ISO 2022 IR 87"}),
    Defect("the same term twice", {"SpecificCharacterSet": b"ISO_IR 100\\ISO_IR 100"}),
    Defect("gb18030 in small letters", {"SpecificCharacterSet": b"gb18030 ", "PatientName": "Wang=王".encode("gb18030")},
           {"SpecificCharacterSet": b"GB18030"}),
    Defect("UTF-8 with extensions", {"SpecificCharacterSet": b"ISO_IR 192\\ISO 2022 IR 87", "PatientName": "Müller".encode()},
           {"SpecificCharacterSet": b"ISO_IR 192"}),
    Defect("UTF-8 declared, Latin-1 bytes", {"SpecificCharacterSet": b"ISO_IR 192", "PatientName": b"M\xfcller"},
           inherited="PatientName"),
    Defect("UTF-8 declared, cut inside a character",
           {"SpecificCharacterSet": b"ISO_IR 192", "PatientName": "Müller^山".encode()[:-1]}, inherited="PatientName"),
    Defect("UTF-8 with a byte order mark", {"SpecificCharacterSet": b"ISO_IR 192", "PatientName": "\ufeffMüller".encode()}),
    Defect("a term that is no text", {"SpecificCharacterSet": b"\xff\xfe\xfd\xfc"}),
    Defect("a term with a NUL inside", {"SpecificCharacterSet": b"ISO\0IR 100"}),
    Defect("a term of 1000 characters", {"SpecificCharacterSet": b"ISO_IR 100" * 100}),
    Defect("fifty terms", {"SpecificCharacterSet": b"\\".join([b"ISO 2022 IR 100"] * 50)}),
    Defect("Latin-1, Cyrillic and UTF-8 bytes in one name",
           {"SpecificCharacterSet": None, "PatientName": b"M\xfc\xd0\xb9^\xe5\xb1\xb1"}),
    Defect("escape that is cut off", {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "PatientName": b"Yamada=\x1b$"},
           inherited="PatientName"),
    Defect("escape that nobody knows", {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "PatientName": b"Yamada=\x1b(Z;3"},
           inherited="PatientName"),
    Defect("escape not undone before the caret",
           {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "PatientName": b"Y=\x1b$B;3ED^B@O:\x1b(B"}, inherited="PatientName"),
    Defect("escape to a set that is not declared", {"SpecificCharacterSet": b"\\ISO 2022 IR 149",
           "PatientName": b"Y=\x1b$B;3ED\x1b(B"}, inherited="PatientName"),
    Defect("escapes and nothing declared", {"SpecificCharacterSet": None, "PatientName": b"Y=\x1b$B;3ED\x1b(B"}),
    Defect("escapes in a description", {"SpecificCharacterSet": b"ISO_IR 100", "StudyDescription": b"\x1b$B;3ED\x1b(B"}),
]  # fmt: skip

WORSE = [*STRUCTURE, *REPRESENTATIONS, *TEXTS, *CHARACTER_SETS]
