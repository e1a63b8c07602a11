"""What the node knows of one SOP instance without looking at its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

#: Top-level attributes (DICOM keywords, PS3.6) that the routing header always holds when the data set has them.
#: Rules may name more; `receive.header.read_header` is told which.
ROUTING_KEYWORDS: tuple[str, ...] = (
    "SpecificCharacterSet",
    "ImageType",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "InstitutionName",
    "StationName",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "BurnedInAnnotation",
    "PresentationIntentType",
    "PatientID",
    "AccessionNumber",
    "StudyDate",
    "SeriesNumber",
    "InstanceNumber",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
)


class InstanceKind(StrEnum):
    """Where an instance comes from."""

    ORIGINAL = "original"
    """A peer sent it."""
    SR = "sr"
    """A Structured Report that this node made."""
    HEATMAP = "heatmap"
    """A Secondary Capture that this node made."""
    GSPS = "gsps"
    """A Grayscale Softcopy Presentation State that this node made."""
    KEY_OBJECT = "key-object"
    """A Key Object Selection that this node made."""
    SUMMARY = "summary"
    """A Structured Report on all images of a study that this node made."""
    PDF = "pdf"
    """An Encapsulated PDF that this node made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SopInstance:
    """Identity and routing header of one SOP instance; never its pixels.

    `header` maps DICOM keywords to text: several values are joined by a backslash, padding is gone, absent attributes
    are absent. It may hold patient data: it is stored in the ledger and never logged.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    """Of the data set's encoded bytes (without preamble and File Meta Information), as `core.digest` writes it."""
    byte_count: int
    """Of the data set's encoded bytes."""
    spool_key: str
    """Where the bytes are: `Spool.path(spool_key)` is a DICOM file (PS3.10) with exactly these data-set bytes."""
    received_at: datetime
    """Aware, UTC: when the last byte was in."""
    kind: InstanceKind = InstanceKind.ORIGINAL
    calling_ae_title: str = ""
    called_ae_title: str = ""
    peer_host: str = ""
    made_by_router: bool = False
    """True for a result object of any router node (UID root or Contributing Equipment): never classified."""
    header: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An instance as another document names it (PS3.3 C.17.2.1)."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
