"""A bounded walk over an encoded data set: its structure is checked to the end, a few values are kept, no pixel is read.

Iterative, so that nesting costs no stack; what is nested deeper than NESTING_MAX is refused, because it kills other
programs (seen: a segmentation fault in two receivers at 10,000 nested sequences), and we would be the one to send it.
Tolerated, because devices send it: elements out of order, odd lengths, zeros after the last element, VRs that we do not
know. Sources: PS3.5 7.1 (data elements), 7.5 (nesting), 6.2.2 (UN), A.4 (encapsulated pixel data).
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, NoReturn

from router.core.admission import CANNOT_UNDERSTAND
from router.errors import RefusedError
from router.receive.window import Window

NESTING_MAX = 64
#: Elements, items and fragments. A walk takes about a microsecond for each.
ELEMENT_COUNT_MAX = 1_000_000
#: Of a value that is kept; the rest of a longer one is left out.
VALUE_BYTE_COUNT_MAX = 4096
#: Zeros that may follow the last element: some senders pad.
_PADDING_BYTE_COUNT_MAX = 2**16

_UNDEFINED = 0xFFFFFFFF
_OPEN = -1
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(),
)

CONTRIBUTING_EQUIPMENT = 0x0018A001
PURPOSE_OF_REFERENCE = 0x0040A170
_EQUIPMENT_TAGS = frozenset((0x00080070, 0x00081090))
_CODE_TAGS = frozenset((0x00080100, 0x00080102))


class Encoding(NamedTuple):
    """How elements are written."""

    implicit: bool
    header: struct.Struct
    """Explicit: group, element, VR, 16 bits of length. Implicit: group, element, 32 bits of length."""
    length: struct.Struct
    """32 bits of length."""


IMPLICIT_LITTLE = Encoding(implicit=True, header=struct.Struct("<HHL"), length=struct.Struct("<L"))
EXPLICIT_LITTLE = Encoding(implicit=False, header=struct.Struct("<HH2sH"), length=struct.Struct("<L"))
EXPLICIT_BIG = Encoding(implicit=False, header=struct.Struct(">HH2sH"), length=struct.Struct(">L"))


@dataclass(slots=True)
class Found:
    """What a walk kept."""

    values: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    """Tag -> (VR, or nothing where it is implicit; value)."""
    repeated: set[int] = field(default_factory=set)
    """Wanted tags that stood there more than once; the first value counts."""
    equipment: list[dict[int, bytes]] = field(default_factory=list)
    """The items of Contributing Equipment Sequence: tag -> value, the code of the purpose among them."""


class _Level(NamedTuple):
    """What the walk is inside of."""

    holds: str
    """"elements" (the data set, an item), "items" (a sequence), "fragments" (encapsulated pixel data)."""
    end: int
    """Where it ends, or _OPEN: then a delimiter ends it."""
    limit: int
    """Nothing inside may reach past this."""
    encoding: Encoding
    tag: int
    """Of the sequence; that of an item is its sequence's."""


@cache
def _sequences() -> frozenset[int]:
    """Tags of sequences, for data sets with implicit VRs."""
    from pydicom._dicom_dict import DicomDictionary

    return frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")


def _refuse(reason: str) -> NoReturn:
    raise RefusedError(reason, status=CANNOT_UNDERSTAND)


def walk(window: Window, encoding: Encoding, wanted: Collection[int]) -> Found:  # noqa: PLR0912, PLR0915 - one hot loop
    """Every element from the first to the last. Raises RefusedError (0xC000) where the data set is not one, OSError."""
    found = Found()
    sequences = _sequences()
    stack: list[_Level] = []
    level = _Level("elements", _OPEN, window.end, encoding, 0)
    holds, end, limit, encoding, _ = level
    implicit, header, length32 = encoding
    data, base, position, count = b"", 0, 0, 0
    depth = 0

    while True:
        if position == end:  # of something with a defined length: it cannot be passed, because of `limit`
            level = stack.pop()
            holds, end, limit, encoding, _ = level
            implicit, header, length32 = encoding
            depth -= holds == "elements"
            continue
        index = position - base
        if index + 12 > len(data):
            data = window.load(position, 32 if holds == "fragments" else 2**15) if position < window.end else b""
            base, index = position, 0
            if len(data) < 8:
                if stack:
                    _refuse("the data set ends inside a sequence")
                if any(data) or position > window.end:
                    _refuse("the data set ends inside an element")
                return found
        count += 1
        if count > ELEMENT_COUNT_MAX:
            _refuse(f"the data set has more than {ELEMENT_COUNT_MAX} elements")

        if implicit:
            group, element, length = header.unpack_from(data, index)
            tag, vr, position = group << 16 | element, b"", position + 8
        else:
            group, element, vr, length = header.unpack_from(data, index)
            tag, position = group << 16 | element, position + 8
            if group == 0xFFFE:
                length = length32.unpack_from(data, index + 4)[0]
            elif vr in _LONG_VRS or (vr not in _SHORT_VRS and vr.isalpha() and vr.isupper()):
                # A VR that a later edition adds has 32 bits of length (PS3.5 7.1.2).
                if len(data) < index + 12:
                    _refuse("the data set ends inside an element")
                length = length32.unpack_from(data, index + 8)[0]
                position += 4
            elif vr not in _SHORT_VRS and holds == "elements" and (tag or stack):
                _refuse(f"element {_name(tag)} has no valid VR")

        if position > limit:
            _refuse(f"element {_name(tag)} is longer than what it lies in")
        if group == 0xFFFE:
            if tag == _ITEM:
                if length != _UNDEFINED and position + length > limit:
                    _refuse("an item is longer than what it lies in")
                if holds == "fragments" and length != _UNDEFINED:
                    position += length
                elif holds == "items":
                    if level.tag == CONTRIBUTING_EQUIPMENT and depth == 1:
                        found.equipment.append({})
                    stack.append(level)
                    if length == _UNDEFINED:
                        level = _Level("elements", _OPEN, limit, encoding, level.tag)
                    else:
                        level = _Level("elements", position + length, position + length, encoding, level.tag)
                    holds, end, limit = level.holds, level.end, level.limit
                else:
                    _refuse("an item stands where none belongs")
            elif (tag == _ITEM_END and holds == "elements" and stack) or (
                tag == _SEQUENCE_END and holds in ("items", "fragments")
            ):
                if end != _OPEN:
                    _refuse("a delimiter ends something that has a length")
                level = stack.pop()
                holds, end, limit, encoding, _ = level
                implicit, header, length32 = encoding
                depth -= holds == "elements"
            else:
                _refuse("a delimiter stands where none belongs")
            continue
        if holds != "elements":
            _refuse(f"element {_name(tag)} stands where an item belongs")
        if group < 0x0008 and not stack:
            if not tag and _only_zeros(window, position - 8):
                return found
            _refuse(f"element {_name(tag)} does not belong in a data set")

        undefined = length == _UNDEFINED
        if not undefined and position + length > limit:
            _refuse(f"element {_name(tag)} is longer than what it lies in")
        if vr == b"SQ" or (implicit and (tag in sequences or undefined)) or (undefined and vr == b"UN"):
            if depth == NESTING_MAX:
                _refuse(f"sequences are nested deeper than {NESTING_MAX}")
            depth += 1
            stack.append(level)
            if vr == b"UN":  # PS3.5 6.2.2: its items have implicit VRs, little endian
                encoding = IMPLICIT_LITTLE
                implicit, header, length32 = encoding
            if undefined:
                level = _Level("items", _OPEN, limit, encoding, tag)
            else:
                level = _Level("items", position + length, position + length, encoding, tag)
            holds, end, limit = level.holds, level.end, level.limit
        elif undefined:
            if vr not in (b"OB", b"OW"):
                _refuse(f"element {_name(tag)} has no length")
            depth += 1
            stack.append(level)
            level = _Level("fragments", _OPEN, limit, encoding, tag)
            holds, end = level.holds, level.end
        else:
            if not stack:
                if tag in wanted:
                    if tag in found.values:
                        found.repeated.add(tag)
                    else:
                        found.values[tag] = (vr, _value(window, position, length, data, base))
            elif found.equipment and stack[1].tag == CONTRIBUTING_EQUIPMENT:
                purpose = depth == 2 and level.tag == PURPOSE_OF_REFERENCE and tag in _CODE_TAGS
                if purpose or (depth == 1 and tag in _EQUIPMENT_TAGS):
                    found.equipment[-1].setdefault(tag, _value(window, position, length, data, base))
            position += length


def _value(window: Window, position: int, length: int, data: bytes, base: int) -> bytes:
    """The first VALUE_BYTE_COUNT_MAX bytes of a value, from the loaded bytes where they hold it all."""
    length = min(length, VALUE_BYTE_COUNT_MAX)
    start = position - base
    if start + length <= len(data):
        return data[start : start + length]
    value = window.load(position, length)[:length]
    if len(value) < length:
        _refuse("the data set ends inside an element")
    return value


def _only_zeros(window: Window, position: int) -> bool:
    """True when nothing but a few zeros is left."""
    if window.end - position > _PADDING_BYTE_COUNT_MAX:
        return False
    while data := window.load(position):
        if any(data):
            return False
        position += len(data)
        if position >= window.end:
            break
    return True


def _name(tag: int) -> str:
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
