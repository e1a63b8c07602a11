"""Defects of received headers, as raw bytes: those of the study that this project began with, row by row.

`ROWS` says which defect is which row of that study's table; tests/report/worse.py has more.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.report.made import HEADER, encoded

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう".encode("iso2022_jp")
KOREAN = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"


@dataclass(frozen=True)
class Defect:
    """What is changed in a good header, and what must come of it."""

    name: str
    changed: Mapping[str, bytes | tuple[str, bytes] | None] = field(default_factory=dict)
    """None: absent."""
    written: Mapping[str, bytes | None] = field(default_factory=dict)
    """Elements of the SR without trailing padding; None: absent."""
    inherited: str = ""
    """Keyword of the identifying element whose defect the SR has too."""
    unknown_to_validator: bool = False
    """dciodvfy of 2022 does not know the character set, in the image either."""
    remarked: str = ""
    """Part of a remark that must be among the repairs."""
    not_reportable: str = ""
    """Part of the reason why there is no SR; empty: there is one."""
    refused: str = ""
    """Part of the reason why the image is not taken at all, so that nobody has been told it is safe; empty: it is."""
    mangled: Callable[[bytes], bytes] | None = None
    """What happens to the encoded data set besides."""

    def data_set(self, header: Mapping[str, bytes] = HEADER) -> bytes:
        """The whole defective data set, explicit VR little endian."""
        changed = {keyword: value for keyword, value in {**header, **self.changed}.items() if value is not None}
        data = encoded(changed)
        return self.mangled(data) if self.mangled else data


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
    *(
        Defect(f"{keyword} {name}", {keyword: value}, not_reportable=keyword)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        for name, value in (("absent", None), ("empty", b""), ("with two values", b"1.2.3\\1.2.4"))
        if (keyword, name) != ("SOPInstanceUID", "with two values")  # the door: not what the command says
    ),
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
    Defect("PatientID as UN", {"PatientID": ("UN", b"P-12")}, {"PatientID": b"P-12"}),
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
        "Japanese StudyDescription, character sets of two kinds",
        {
            "SpecificCharacterSet": b"ISO_IR 192\\GB18030",
            "PatientName": "Yamada^Tarou=山田^太郎".encode(),
            "StudyDescription": "胸部".encode(),
        },
        {"SpecificCharacterSet": b"ISO_IR 192", "StudyDescription": "胸部".encode()},
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

#: Row of the study's table -> name of the defect here. The table promises 111 rows and ends after the 72nd; what the page
#: beside it says of the others is in DEFECTS and in tests/report/worse.py.
ROWS = {
    0: "none",
    1: "PatientID absent",
    2: "PatientName absent",
    3: "PatientBirthDate absent",
    4: "PatientSex absent",
    5: "AccessionNumber absent",
    6: "StudyID absent",
    7: "StudyDate absent",
    8: "StudyTime absent",
    9: "ReferringPhysicianName absent",
    10: "InstanceNumber absent",
    11: "SeriesNumber absent",
    12: "Modality absent",
    13: "StudyInstanceUID absent",
    14: "SeriesInstanceUID absent",
    15: "SOPClassUID absent",
    16: "SOPInstanceUID absent",
    17: "PatientID empty",
    18: "every Type 2 element empty",
    19: "StudyInstanceUID empty",
    20: "StudyInstanceUID of 70 characters",
    21: "UID component with leading zero",
    22: "UID padded with a space",
    23: "UID with letters",
    24: "StudyInstanceUID with two values",
    25: "StudyDate as ACR-NEMA wrote it",
    26: "StudyDate 00000000",
    27: "PatientBirthDate of 4 digits",
    28: "PatientBirthDate that never was",
    29: "StudyTime with colons",
    30: "StudyTime after midnight's end",
    31: "StudyTime with 7 decimals",
    32: "PatientSex MALE",
    33: "PatientSex U",
    34: "PatientAge of digits alone",
    35: "decimal commas",
    36: "AccessionNumber of 24 characters",
    37: "StudyID of 20 characters",
    38: "PatientID of 80 characters",
    39: "PatientID with backslash",
    40: "PatientID with spaces round",
    41: "PatientID with a tabulator",
    42: "PatientName with 4 groups",
    43: "PatientName with 7 components",
    44: "PatientName of one component",
    45: "PatientName of 100 characters",
    46: "no character set, Latin-1 bytes",
    47: "no character set, UTF-8 bytes",
    48: "ISO_IR 100 declared, UTF-8 bytes",
    49: "ISO-IR 100",
    50: "UTF-8",
    51: "ISO_IR 999",
    52: "Japanese in UTF-8",
    53: "Japanese as most modalities write it",
    54: "Japanese, half-width kana first",
    55: "Korean",
    56: "Chinese in GB18030",
    57: "Japanese, half-width kana alone",
    58: "Japanese StudyDescription, character sets of two kinds",
    59: "Cyrillic",
    60: "Secondary Capture with Modality CR",
    61: "DX for presentation",
    62: "Modality XR",
    63: "private SOP class",
    64: "unknown SOP class",
    65: "InstanceNumber 1.0",
    66: "InstanceNumber too large",
    67: "InstanceNumber with letters",
    68: "NumberOfFrames 1",
    69: "NumberOfFrames empty",
    70: "PixelSpacing 0",
    71: "PixelSpacing NaN",
}
