"""Encoded values as text, leniently: a routing header is for matching and for showing, not for passing on.

Sources: PS3.5 6.1.2 (character sets), 6.2 (value representations).
"""

from __future__ import annotations

import re
import struct

#: VRs whose text depends on Specific Character Set (0008,0005).
_TEXT_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_PLAIN_VRS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"))
#: Backslash and outer spaces are part of the text here.
_ONE_VALUE_VRS = frozenset(("LT", "ST", "UR", "UT"))
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
#: A ledger on PostgreSQL cannot hold NUL, and nobody wants to see the others.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

#: Character sets without code extensions -> Python's name.
_CODECS = {
    "ISO_IR 6": "ascii",
    "ISO_IR 100": "latin_1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 127": "iso8859_6",
    "ISO_IR 126": "iso8859_7",
    "ISO_IR 138": "iso8859_8",
    "ISO_IR 148": "iso8859_9",
    "ISO_IR 203": "iso8859_15",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 166": "iso8859_11",
    "ISO_IR 192": "utf_8",
    "GB18030": "gb18030",
    "GBK": "gbk",
}


def text_of(vr: str, value: bytes, *, character_set: str, big_endian: bool) -> str | None:
    """The text of one value field, several values joined by a backslash, padding gone; None for a VR that holds no text.

    `character_set` is the text of Specific Character Set. Raises nothing: what cannot be decoded is replaced.
    """
    if vr in _NUMBERS:
        return _numbers(_NUMBERS[vr], value, big_endian=big_endian)
    if vr in _PLAIN_VRS:
        text = value.decode("latin_1")
    elif vr in _TEXT_VRS:
        text = _decode(value, character_set)
    else:
        return None
    if not text.isprintable():
        text = _CONTROLS.sub("", text)
    if vr in _ONE_VALUE_VRS:
        return text.rstrip()
    if "\\" not in text:  # one value, as most are
        return text.strip()
    return "\\".join(part.strip() for part in text.split("\\"))


def _numbers(code: str, value: bytes, *, big_endian: bool) -> str:
    size = struct.calcsize("=" + code)
    count = len(value) // size
    found = struct.unpack_from((">" if big_endian else "<") + code * count, value)
    return "\\".join(format(number, "g") if isinstance(number, float) else str(number) for number in found)


def _decode(value: bytes, character_set: str) -> str:
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    terms = [term.strip() for term in character_set.split("\\")]
    if len(terms) == 1 and terms[0] in _CODECS:
        return _first_that_fits(value, _CODECS[terms[0]], "utf_8")
    if b"\x1b" in value:
        return _with_extensions(value, terms)
    # Not declared, or declared as something that is no defined term: UTF-8 does not fit by chance.
    return _first_that_fits(
        value, "utf_8", _CODECS.get(terms[0].replace("2022 IR", "IR").replace("ISO IR", "ISO_IR"), "")
    )


def _first_that_fits(value: bytes, *codecs: str) -> str:
    for codec in filter(None, codecs):
        try:
            return value.decode(codec)
        except UnicodeDecodeError:
            continue
    return value.decode("latin_1")


def _with_extensions(value: bytes, terms: list[str]) -> str:
    """ISO 2022 escape sequences (PS3.5 6.1.2.5): pydicom knows them all."""
    from pydicom.charset import decode_bytes, python_encoding

    encodings = [python_encoding[term] for term in terms if term in python_encoding] or ["iso8859"]
    try:
        return str(decode_bytes(value, encodings, {"\\", "^", "="}))
    except (LookupError, ValueError):
        return value.decode("latin_1")
