"""Content items of an SR document as bytes (PS3.3 C.17.3). Those that most documents share are joined once."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from pydicom.uid import UID

from router.report import elements
from router.report.codes import Code
from router.report.elements import sequence, text

#: Items kept: a document has some twenty different ones, and some hundred of its own that would only push those out.
_KEPT = 2048


class Relationship(StrEnum):
    """Relationship Type (0040,A010): how an item belongs to the one above it."""

    CONTAINS = "CONTAINS"
    PROPERTY = "HAS CONCEPT MOD"
    OBSERVATION = "HAS OBS CONTEXT"
    ACQUISITION = "HAS ACQ CONTEXT"


@lru_cache(_KEPT)
def concept(code: Code) -> bytes:
    """The item of a code sequence (PS3.3 8.8)."""
    return elements.item(
        text("CodeValue", code.value),
        text("CodingSchemeDesignator", code.scheme),
        text("CodeMeaning", code.meaning),
    )


@lru_cache(_KEPT)
def coded(relationship: Relationship, name: Code, value: Code) -> bytes:
    """A CODE item."""
    return elements.item(
        _head(relationship, "CODE", name),
        sequence("ConceptCodeSequence", concept(value)),
    )


@lru_cache(_KEPT)
def worded(relationship: Relationship, name: Code, value: str) -> bytes:
    """A TEXT item. `value` is ASCII and not empty."""
    return elements.item(_head(relationship, "TEXT", name), text("TextValue", value))


def identified(relationship: Relationship, name: Code, uid: str) -> bytes:
    """A UIDREF item."""
    return elements.item(_head(relationship, "UIDREF", name), text("UID", uid))


def counted(relationship: Relationship, name: Code, value: int, unit: Code) -> bytes:
    """A NUM item of a whole number."""
    return _numeric(relationship, name, text("NumericValue", str(value)), unit)


def measured(relationship: Relationship, name: Code, value: float, unit: Code, *below: bytes) -> bytes:
    """A NUM item; a binary copy stands beside the decimal one, as PS3.3 C.18.1 asks where they could differ.

    `value` has few enough digits for the 16 characters of VR DS.
    """
    both = elements.number("FloatingPointValue", value) + text("NumericValue", repr(value))
    return _numeric(relationship, name, both, unit, *below)


def referring(name: Code, sop_class_uid: str, sop_instance_uid: str, *below: bytes) -> bytes:
    """An IMAGE item; of a private SOP class a COMPOSITE item, because readers refuse an «image» that they do not know."""
    value_type = "IMAGE" if known(sop_class_uid) else "COMPOSITE"
    return _reference(value_type, name, sop_class_uid, sop_instance_uid, *below)


def citing(name: Code, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """A COMPOSITE item: of another document."""
    return _reference("COMPOSITE", name, sop_class_uid, sop_instance_uid)


def _reference(value_type: str, name: Code, sop_class_uid: str, sop_instance_uid: str, *below: bytes) -> bytes:
    return elements.item(
        sequence(
            "ReferencedSOPSequence",
            elements.item(
                text("ReferencedSOPClassUID", sop_class_uid), text("ReferencedSOPInstanceUID", sop_instance_uid)
            ),
        ),
        _head(Relationship.CONTAINS, value_type, name),
        _below(below),
    )


def container(name: Code, *below: bytes, template: str = "") -> bytes:
    """A CONTAINER item; every item in it is a statement of its own, not a part of running text (SEPARATE)."""
    return elements.item(_head(Relationship.CONTAINS, "CONTAINER", name), *inside(below, template=template).values())


def inside(below: tuple[bytes, ...], *, template: str) -> dict[str, bytes]:
    """What a CONTAINER holds after its name, the document's root too: keyword -> element; `template` is a TID of PS3.16."""
    return {
        "ContinuityOfContent": text("ContinuityOfContent", "SEPARATE"),
        "ContentTemplateSequence": sequence("ContentTemplateSequence", _template(template)) if template else b"",
        "ContentSequence": _below(below),
    }


@lru_cache(_KEPT)
def _head(relationship: Relationship, value_type: str, name: Code) -> bytes:
    return (
        text("RelationshipType", relationship)
        + text("ValueType", value_type)
        + sequence("ConceptNameCodeSequence", concept(name))
    )


def _numeric(relationship: Relationship, name: Code, value: bytes, unit: Code, *below: bytes) -> bytes:
    measured_value = elements.item(sequence("MeasurementUnitsCodeSequence", concept(unit)), value)
    return elements.item(
        _head(relationship, "NUM", name), sequence("MeasuredValueSequence", measured_value), _below(below)
    )


def _below(items: tuple[bytes, ...]) -> bytes:
    return sequence("ContentSequence", *items) if items else b""


@lru_cache(_KEPT)
def _template(identifier: str) -> bytes:
    return elements.item(text("MappingResource", "DCMR"), text("TemplateIdentifier", identifier))


@lru_cache(_KEPT)
def known(sop_class_uid: str) -> bool:
    """Whether a SOP class is one of the Standard, for images; readers refuse an IMAGE item of any other."""
    return "Image Storage" in UID(sop_class_uid).name
