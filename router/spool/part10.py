"""The head of a DICOM file: preamble and File Meta Information. Source: PS3.10 7.1."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from router.core.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.errors import SpoolDamaged

_PREFIX = b"\0" * 128 + b"DICM"
#: 12 bytes: File Meta Information Group Length (0002,0000) UL 4.
_GROUP_LENGTH = struct.Struct("<HH2sHL")
_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sHL")
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")


def file_head(
    *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str = ""
) -> bytes:
    """Everything before the data set; the same arguments give the same bytes. UIDs are ASCII text."""
    elements = b"".join(
        (
            _LONG.pack(2, 0x0001, b"OB", 0, 2) + b"\0\1",
            _text(0x0002, b"UI", sop_class_uid),
            _text(0x0003, b"UI", sop_instance_uid),
            _text(0x0010, b"UI", transfer_syntax_uid),
            _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _text(0x0016, b"AE", source_ae_title) if source_ae_title else b"",
        )
    )
    return _PREFIX + _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(elements)) + elements


def data_set_offset(path: Path) -> int:
    """Where the data set begins in a DICOM file, in bytes. Raises SpoolDamaged when it is none, OSError."""
    with path.open("rb") as file:
        return _offset(file)


def _text(element: int, vr: bytes, value: str) -> bytes:
    data = value.encode("ascii")
    if len(data) % 2:
        data += b"\0" if vr == b"UI" else b" "
    return _SHORT.pack(2, element, vr, len(data)) + data


def _offset(file: BinaryIO) -> int:
    head = file.read(144)
    if head[128:132] != b"DICM":
        raise SpoolDamaged("not a DICOM file: no DICM prefix after the preamble")
    if len(head) == 144:
        group, element, vr, length, value = _GROUP_LENGTH.unpack(head[132:])
        if (group, element, vr, length) == (2, 0, b"UL", 4):
            return 144 + int(value)
    # Other programs' files may lack the group length: walk to the first element of another group.
    offset = 132
    while True:
        file.seek(offset)
        header = file.read(12)
        if len(header) < 8 or header[:2] != b"\2\0":
            return offset
        _, _, vr, length = _SHORT.unpack(header[:8])
        offset += 8 + length
        if vr in _LONG_VRS:
            if len(header) < 12:
                raise SpoolDamaged("the File Meta Information is cut off")
            offset += 4 + int(_LONG.unpack(header)[4]) - length
