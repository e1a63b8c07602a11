"""The attributes of the objects that we create, and where their values come from: seen in objects that were made for this.

Two objects of two images that differ everywhere are compared, and a third one of an image that has hardly a header. What is
the same in the first two is fixed; what is as in its image is copied; the rest is generated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement

from router.conformance.samples import Sample

_VALUE_LENGTH_MAX = 60
#: Its content is laid out by a template (TID), not by a table of attributes.
_NOT_ENTERED = ("ContentSequence",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One row; `path` begins with > for each level inside a sequence."""

    path: str
    tag: str
    vr: str
    value: str
    presence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """One kind of object."""

    name: str
    sop_class_uid: str
    transfer_syntax_uid: str
    attributes: tuple[Attribute, ...]


@cache
def created(name: str) -> Created:
    """What the result builder of this name makes. Raises KeyError, ImportError."""
    first, second, bare = Sample(1), Sample(2), Sample(1, bare=True)
    made = first.made_by(name)
    objects = [dcmread(BytesIO(one.made_by(name).data)) for one in (first, second, bare)]
    return Created(
        name=name,
        sop_class_uid=made.sop_class_uid,
        transfer_syntax_uid=made.transfer_syntax_uid,
        attributes=tuple(_rows(objects[0], objects[1], objects[2], (first.header, second.header))),
    )


def _rows(
    one: Dataset, other: Dataset, bare: Dataset | None, headers: tuple[Dataset, Dataset], depth: int = 0
) -> Iterator[Attribute]:
    for element in one:
        twin = other.get(element.tag)
        always = bare is not None and element.tag in bare
        yield Attribute(
            path=">" * depth + element.keyword,
            tag=f"({element.tag.group:04X},{element.tag.element:04X})",
            vr=element.VR,
            value=_value(element, twin, headers),
            presence="always" if always else "if the image has it" if depth == 0 else "if there",
        )
        if element.VR == "SQ" and element.keyword not in _NOT_ENTERED and element.value and twin and twin.value:
            below = bare[element.tag].value if bare is not None and always else []
            yield from _rows(element.value[0], twin.value[0], below[0] if below else None, headers, depth + 1)


def _value(element: DataElement, twin: DataElement | None, headers: tuple[Dataset, Dataset]) -> str:
    if element.keyword in _NOT_ENTERED:
        return "by its template"
    if element.VR == "SQ":
        return "" if element.value else "empty"
    if twin is not None and element.value == twin.value:
        text = str(element.value) if element.VM <= 1 else "\\".join(map(str, element.value))
        return "empty" if text in ("", "None") else f"`{text}`" if len(text) <= _VALUE_LENGTH_MAX else "fixed"
    copied = [header.get(element.keyword) for header in headers]
    if twin is not None and copied == [element.value, twin.value]:
        return "copied from the image"
    if element.keyword.startswith("Referenced") and element.VR == "UI":
        return "of the image, or of what is referred to"
    return "generated"
