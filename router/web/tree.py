"""A Structured Report of ours as DICOM has it: its content tree with relationships, types and codes, and every other element.

Bounded in size, depth and number, as `web.report` is: a document too large to be shown is no reason for a page that never comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from router.web.report import PLAIN, Line, open_report

_NODES_MAX = 4000
_DEPTH_MAX = 16
_VALUE_LENGTH_MAX = 512
_CONTENT = 0x0040A730
_TRACKING_IDENTIFIER = "112039"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A code (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A content item (PS3.3 C.17.3)."""

    relationship: str
    value_type: str
    name: Coded | None
    value: str
    code: Coded | None
    """The value of a CODE, or the unit of a NUM."""
    below: Sequence[Item]

    @property
    def told_by(self) -> str:
        """What tells a container from others of its kind while it is folded: its Tracking Identifier."""
        return next((one.value for one in self.below if one.name and one.name.value == _TRACKING_IDENTIFIER), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """A data element: a value, or for a sequence its items."""

    tag: str
    vr: str
    name: str
    value: str
    items: Sequence[Sequence[Element]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A whole document."""

    content: Item
    header: Sequence[Element]
    """File meta information and everything but the content tree."""
    cut: bool
    """There is more than is shown."""


def read_tree(path: Path) -> Tree:
    """Raises UnreadableReport. The last ones are kept: reading a hundred items takes tens of milliseconds."""
    with suppress(OSError):  # told by whoever opens it
        facts = path.stat()
        return _read(path, facts.st_mtime_ns, facts.st_size)
    return _read(path, 0, 0)


@lru_cache(maxsize=16)
def _read(path: Path, _mtime_ns: int, _byte_count: int) -> Tree:
    with open_report(path) as data_set:
        room = _Room()
        content = _item(data_set, 0, room)
        header = [*_elements(data_set.file_meta, 0, room), *_elements(data_set, 0, room)]
        return Tree(content=content, header=header, cut=room.cut)


def lines_of(item: Item, depth: int = 0) -> list[Line]:
    """Every content item in the order of the document, as people read it."""
    name = item.name.meaning if item.name else ""
    return [
        Line(depth=depth, name=name, value=_told(item)),
        *(line for one in item.below for line in lines_of(one, depth + 1)),
    ]


def _told(item: Item) -> str:
    match item.value_type:
        case "NUM":
            unit = item.code.meaning if item.code else ""
            return f"{item.value} {'' if unit == 'no units' else unit}".strip()
        case "CODE":
            return item.code.meaning if item.code else ""
        case "CONTAINER":
            return ""
        case _:
            return item.value


class _Room:
    """How much more may be shown."""

    def __init__(self) -> None:
        self._left = _NODES_MAX
        self.cut = False

    def taken(self, depth: int) -> bool:
        self._left -= 1
        if self._left < 0 or depth > _DEPTH_MAX:
            self.cut = True
            return False
        return True


def _item(item: Any, depth: int, room: _Room) -> Item:
    value, code = _value(item)
    return Item(
        relationship=str(item.get("RelationshipType", "")),
        value_type=str(item.get("ValueType", "")),
        name=_coded(item.get("ConceptNameCodeSequence")),
        value=_short(value),
        code=code,
        below=[_item(child, depth + 1, room) for child in item.get("ContentSequence") or () if room.taken(depth + 1)],
    )


def _value(item: Any) -> tuple[str, Coded | None]:
    match str(item.get("ValueType", "")):
        case "NUM":
            for measured in item.get("MeasuredValueSequence") or ():
                return str(measured.get("NumericValue", "")), _coded(measured.get("MeasurementUnitsCodeSequence"))
            return "no value", None
        case "CODE":
            return "", _coded(item.get("ConceptCodeSequence"))
        case "IMAGE" | "COMPOSITE":
            pairs = item.get("ReferencedSOPSequence") or ()
            named = (f"{_sop_class(one)} {one.get('ReferencedSOPInstanceUID', '')}" for one in pairs)
            return ", ".join(islice(named, 20)), None
        case "CONTAINER":
            templates = item.get("ContentTemplateSequence") or ()
            return ", ".join(f"TID {one.get('TemplateIdentifier', '')}" for one in islice(templates, 2)), None
        case plain:
            return str(item.get(PLAIN.get(plain, ""), "")) if plain in PLAIN else "", None


def _sop_class(one: Any) -> str:
    uid = one.get("ReferencedSOPClassUID", "")
    return str(getattr(uid, "name", uid))


def _coded(sequence: Any) -> Coded | None:
    if not sequence:
        return None
    one = sequence[0]
    names = ("CodeValue", "LongCodeValue", "URNCodeValue")
    return Coded(
        value=next((str(one.get(name)) for name in names if one.get(name)), ""),
        scheme=str(one.get("CodingSchemeDesignator", "")),
        meaning=_short(str(one.get("CodeMeaning", ""))),
    )


def _elements(data_set: Any, depth: int, room: _Room) -> Iterator[Element]:
    for element in data_set:
        if (depth == 0 and element.tag == _CONTENT) or not room.taken(depth):
            continue
        sequence = element.VR == "SQ"
        yield Element(
            tag=f"({element.tag.group:04X},{element.tag.element:04X})",
            vr=str(element.VR),
            name=str(element.name),
            value=_count(element.value) if sequence else _plain(element),
            items=[list(_elements(item, depth + 1, room)) for item in element.value] if sequence else None,
        )


def _count(items: Any) -> str:
    return "1 item" if len(items) == 1 else f"{len(items)} items"


def _plain(element: Any) -> str:
    value = element.value
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if element.VR == "UI" and value:
        name = getattr(value, "name", value)
        return str(value) if name == value else f"{value} ({name})"
    many = isinstance(value, Sequence) and not isinstance(value, str)
    return _short("\\".join(map(str, value)) if many else "" if value is None else str(value))


def _short(text: str) -> str:
    return text if len(text) <= _VALUE_LENGTH_MAX else text[:_VALUE_LENGTH_MAX] + " …"
