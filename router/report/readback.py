"""A finished file's elements, read again: explicit VR little endian, every length looked at. It shares no code with the writer.

Stricter than a parser that has to live with what others write: ascending tags, even lengths, nothing beyond an end.
Source: PS3.10 7.1; PS3.5 7.1.2, 7.5, A.4 (encapsulated pixel data is stepped over).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from pydicom.datadict import keyword_for_tag, tag_for_keyword

#: VR -> bytes of its length field.
_LENGTH_SIZES = dict.fromkeys(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(), 2
) | dict.fromkeys(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split(), 4)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PREAMBLE_LENGTH = 132
_PIXEL_DATA = 0x7FE00010
_META_GROUP = 0x0002
_SHORT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<HH2sxxI")
_DELIMITER = struct.Struct("<HHI")

#: Items whose reading is remembered, and the longest of them: codes and the like, which every document of a kind has again.
_KEPT, _KEPT_LENGTH_MAX = 1024, 512

Level = Mapping[int, "bytes | list[Item]"]
"""An item or the data set, to look at: tag -> value as stored, or the items of a sequence."""


class Item(dict[int, "bytes | list[Item]"]):
    """An item, not to be changed: one object may stand wherever the same bytes stand, in other documents too."""

    @cached_property
    def name(self) -> tuple[str, str]:
        """As a content item: the concept that names it."""
        return code_in(self, "ConceptNameCodeSequence")

    @cached_property
    def code(self) -> tuple[str, str]:
        """As an item of a code sequence: value and scheme designator."""
        return text_in(self, "CodeValue"), text_in(self, "CodingSchemeDesignator")


@dataclass(frozen=True, slots=True)
class Element:
    """Where one element of the outermost level lies: data[start:end] is all of it."""

    tag: int
    start: int
    end: int


@cache
def tag_of(keyword: str) -> int:
    """Of a keyword of PS3.6. Raises KeyError for any other."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag)


def keyword_of(tag: int) -> str:
    """The keyword of a tag in PS3.6, or the tag itself."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def read_file(data: bytes) -> tuple[Level, Level]:
    """File Meta Information and data set of a DICOM file. Raises ValueError when it is broken."""
    start = data_set_start(data)
    meta, _ = _read_level(data, _PREAMBLE_LENGTH, start)
    data_set, _ = _read_level(data, start, len(data))
    return meta, data_set


def items_in(item: Level, keyword: str) -> list[Item]:
    """The items of a sequence; none when it is absent."""
    value = item.get(tag_of(keyword))
    return value if isinstance(value, list) else []


def value_in(item: Level, keyword: str) -> bytes:
    """As stored; empty when it is absent."""
    value = item.get(tag_of(keyword))
    return value if isinstance(value, bytes) else b""


def text_in(item: Level, keyword: str) -> str:
    """Without padding; empty when it is absent."""
    return value_in(item, keyword).decode("latin-1").rstrip("\0 ")


def code_in(item: Level, keyword: str) -> tuple[str, str]:
    """Value and scheme designator of the first code in a code sequence; empty when there is none."""
    concepts = items_in(item, keyword)
    return concepts[0].code if concepts else ("", "")


def pixel_fragments(data: bytes) -> list[bytes]:
    """What encapsulated Pixel Data holds behind its offset table (PS3.5 A.4). Raises ValueError; none without pixels."""
    for element in top_elements(data, data_set_start(data)):
        if element.tag == _PIXEL_DATA:
            at, fragments = element.start + 12, []
            while (found := _delimiter(data, at, element.end))[0] == _ITEM:
                fragments.append(data[at + 8 : at + 8 + found[1]])
                at += 8 + found[1]
            return fragments[1:]
    return []


def data_set_start(data: bytes) -> int:
    """Where the data set begins. Raises ValueError."""
    if data[_PREAMBLE_LENGTH - 4 : _PREAMBLE_LENGTH] != b"DICM":
        raise ValueError("not a DICOM file")
    at = _PREAMBLE_LENGTH
    for element in top_elements(data, at):
        if element.tag >> 16 != _META_GROUP:
            break
        at = element.end
    return at


def top_elements(data: bytes, start: int) -> Iterator[Element]:
    """The outermost elements from `start` to the end of `data`. Raises ValueError."""
    at = start
    while at < len(data):
        tag, _, end = _read_element(data, at, len(data))
        yield Element(tag, at, end)
        at = end


def _read_level(data: bytes, at: int, end: int, *, delimited: bool = False) -> tuple[Item, int]:
    """The elements up to `end`, or up to an item's delimiter, and where what follows begins."""
    level = Item()
    last = -1
    while at < end:
        if delimited and _delimiter(data, at, end) == (_ITEM_END, 0):
            return level, at + 8
        tag, value, at = _read_element(data, at, end)
        if tag <= last:
            raise ValueError("elements are not in ascending order")
        level[tag] = value
        last = tag
    if delimited:
        raise ValueError("an item does not end")
    return level, at


def _read_element(data: bytes, at: int, end: int) -> tuple[int, bytes | list[Item], int]:
    """Tag, value, and where the next one begins."""
    try:
        group, number, vr, length = _SHORT.unpack_from(data, at)
        size = _LENGTH_SIZES.get(vr)
        if size == 4:
            length = _LONG.unpack_from(data, at)[3]
    except struct.error:
        raise ValueError("an element is cut off") from None
    if size is None:
        raise ValueError("an element has no value representation")
    tag = group << 16 | number
    start = at + 4 + 2 * size
    if length == _UNDEFINED:
        if vr != b"SQ":
            return tag, b"", _after_fragments(data, start, end)
        items, stop = _read_items(data, start, end, delimited=True)
        return tag, items, stop
    stop = start + length
    if stop > end or length % 2:
        raise ValueError("an element's length does not fit")
    if vr == b"SQ":
        return tag, _read_items(data, start, stop)[0], stop
    return tag, data[start:stop], stop


def _read_items(data: bytes, at: int, end: int, *, delimited: bool = False) -> tuple[list[Item], int]:
    items: list[Item] = []
    while at < end:
        tag, length = _delimiter(data, at, end)
        at += 8
        if delimited and tag == _SEQUENCE_END:
            return items, at
        if tag != _ITEM:
            raise ValueError("a sequence holds something else than items")
        if length == _UNDEFINED:
            item, at = _read_level(data, at, end, delimited=True)
        elif at + length > end:
            raise ValueError("an item's length does not fit")
        elif length > _KEPT_LENGTH_MAX:
            item, at = _read_level(data, at, at + length)
        else:
            item, at = _read_item(data[at : at + length]), at + length
        items.append(item)
    if delimited:
        raise ValueError("a sequence does not end")
    return items, at


@lru_cache(_KEPT)
def _read_item(value: bytes) -> Item:
    """An item of known length. All that is in it is in these bytes, so that the same bytes need not be read again."""
    return _read_level(value, 0, len(value))[0]


def _after_fragments(data: bytes, at: int, end: int) -> int:
    while True:
        tag, length = _delimiter(data, at, end)
        at += 8
        if tag == _SEQUENCE_END:
            return at
        at += length
        if tag != _ITEM or at > end:
            raise ValueError("encapsulated pixel data is cut off")


def _delimiter(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at + 8 > end:
        raise ValueError("an item is cut off")
    group, number, length = _DELIMITER.unpack_from(data, at)
    return group << 16 | number, length
