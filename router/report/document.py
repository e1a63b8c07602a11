"""What every SR document of ours has around its content: identity, equipment, evidence, and how far it may be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from router.core import provenance
from router.core.findings import ClassifierIdentity
from router.core.instance import Reference
from router.core.uids import device_uid
from router.report import codes
from router.report.codes import PRIVATE_SCHEME, ascii_text, software_versions
from router.report.content import concept, inside
from router.report.context import Context
from router.report.elements import data_set, element, item, sequence, text
from router.report.part10 import part10

NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS"
DEMONSTRATION = (
    "DEMONSTRATION: this classifier was trained on drawings, not on patients. Its findings have no clinical meaning."
)
#: Above what modalities use, so that a viewer lists our series last.
SERIES_NUMBER = 9901
_CONTRIBUTION_DESCRIPTION_LENGTH_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document; how its content is laid out is `template`, a TID of PS3.16."""

    context: Context
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    series_description: str
    classifier: ClassifierIdentity
    deed: str
    """What the classifier did with the image, e.g. «Classified the image»."""
    received_at: datetime
    template: str
    content: tuple[bytes, ...]
    partial: str = ""
    """Why the content is not all that was asked for, at most 64 characters; empty: it is."""
    private_codes: bool = False
    predecessor: Reference | None = None
    """The document that this one takes the place of."""
    evidence: tuple[Reference, ...] = ()
    """What the content refers to, where that is not the one image of `context`."""
    series_number: int = SERIES_NUMBER


def encoded(document: Document) -> bytes:
    """The document as a DICOM file. PS3.3 A.35 (SR document IODs), C.17.2 (SR Document General)."""
    context = document.context
    at = content_time(document.received_at, context)
    day = at.strftime("%Y%m%d")
    time = at.strftime("%H%M%S") + (f".{at.microsecond:06d}" if at.microsecond else "")
    elements = {keyword: element(keyword, value) for keyword, value in context.header.items()}
    texts = {
        "InstanceCreationDate": day,
        "InstanceCreationTime": time,
        "SOPClassUID": document.sop_class_uid,
        "SOPInstanceUID": document.sop_instance_uid,
        "ContentDate": day,
        "ContentTime": time,
        "Modality": "SR",
        "Manufacturer": provenance.MANUFACTURER,
        "SeriesDescription": document.series_description,
        "ManufacturerModelName": provenance.MODEL_NAME,
        # Type 1 in the Enhanced General Equipment module; a program has none.
        "DeviceSerialNumber": "software",
        "ContentQualification": "RESEARCH",
        "SeriesInstanceUID": document.series_instance_uid,
        "SeriesNumber": str(document.series_number),
        "InstanceNumber": str(context.instance_number),
        "ValueType": "CONTAINER",
        "CompletionFlag": "PARTIAL" if document.partial else "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
        "PreliminaryFlag": "PRELIMINARY",
    }
    if document.partial:
        texts["CompletionFlagDescription"] = document.partial
    elements |= {keyword: text(keyword, value) for keyword, value in texts.items()}
    elements["SoftwareVersions"] = text("SoftwareVersions", *software_versions())
    image = Reference(
        sop_class_uid=context.sop_class_uid,
        sop_instance_uid=context.sop_instance_uid,
        series_instance_uid=context.series_instance_uid,
        study_instance_uid=context.study_instance_uid,
    )
    sequences: dict[str, tuple[bytes, ...]] = {
        "ReferencedPerformedProcedureStepSequence": (),
        "ContributingEquipmentSequence": equipment(
            document.classifier, deed=document.deed, received_at=document.received_at
        ),
        "ConceptNameCodeSequence": (concept(codes.IMAGING_MEASUREMENT_REPORT),),
        "PerformedProcedureCodeSequence": (),
        "CurrentRequestedProcedureEvidenceSequence": hierarchies(document.evidence or (image,)),
    }
    if document.predecessor is not None:
        sequences["PredecessorDocumentsSequence"] = (hierarchy(document.predecessor),)
    if document.private_codes:
        sequences["CodingSchemeIdentificationSequence"] = (_private_scheme(),)
    elements |= {keyword: sequence(keyword, *items) for keyword, items in sequences.items()}
    return part10(
        data_set(elements | inside(document.content, template=document.template)),
        sop_class_uid=document.sop_class_uid,
        sop_instance_uid=document.sop_instance_uid,
    )


def content_time(received_at: datetime, context: Context) -> datetime:
    """In the image's own time zone when it names one, else UTC: the host's zone would make other bytes on another host."""
    if not context.utc_offset:
        return received_at.astimezone(UTC)
    sign = -1 if context.utc_offset[0] == "-" else 1
    hours, minutes = int(context.utc_offset[1:3]), int(context.utc_offset[3:])
    return received_at.astimezone(timezone(sign * timedelta(hours=hours, minutes=minutes)))


def equipment(classifier: ClassifierIdentity, *, deed: str, received_at: datetime) -> tuple[bytes, ...]:
    """Items of Contributing Equipment: who analysed, and the router's signature (`core.provenance`)."""
    said = f"{DEMONSTRATION} " if classifier.demonstration else ""
    algorithm = _contribution(
        manufacturer=classifier.manufacturer,
        model_name=classifier.algorithm,
        versions=(classifier.version,),
        description=f"{said}{deed}; weights sha256 {classifier.weights_sha256}",
        device=device_uid(weights_sha256=classifier.weights_sha256),
        at=received_at,
    )
    router = _contribution(
        manufacturer=provenance.MANUFACTURER,
        model_name=provenance.MODEL_NAME,
        versions=software_versions(),
        description=f"{said}Routed the image and wrote this result. {NOT_FOR_DIAGNOSIS}",
        at=received_at,
    )
    return algorithm, router


def _contribution(
    *, manufacturer: str, model_name: str, versions: Sequence[str], description: str, at: datetime, device: str = ""
) -> bytes:
    # The one time that always says its zone.
    when = at.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    return item(
        text("Manufacturer", ascii_text(manufacturer, 64)),
        text("ManufacturerModelName", ascii_text(model_name, 64)),
        text("DeviceUID", device) if device else b"",
        text("SoftwareVersions", *(ascii_text(version, 64) for version in versions)),
        text("ContributionDateTime", when),
        text("ContributionDescription", ascii_text(description, _CONTRIBUTION_DESCRIPTION_LENGTH_MAX)),
        sequence("PurposeOfReferenceCodeSequence", concept(codes.Code(*provenance.PURPOSE))),
    )


def hierarchy(to: Reference) -> bytes:
    """Hierarchical SOP Instance Reference (PS3.3 C.17.2.1)."""
    (one,) = hierarchies((to,))
    return one


def hierarchies(references: Sequence[Reference]) -> tuple[bytes, ...]:
    """The same for several instances: one item for each study, in the order given."""
    studies: dict[str, dict[str, list[bytes]]] = {}
    for to in references:
        instance = item(
            text("ReferencedSOPClassUID", to.sop_class_uid), text("ReferencedSOPInstanceUID", to.sop_instance_uid)
        )
        studies.setdefault(to.study_instance_uid, {}).setdefault(to.series_instance_uid, []).append(instance)
    return tuple(
        item(
            sequence("ReferencedSeriesSequence", *(_series(uid, instances) for uid, instances in of_study.items())),
            text("StudyInstanceUID", study),
        )
        for study, of_study in studies.items()
    )


def _series(series_instance_uid: str, instances: Sequence[bytes]) -> bytes:
    return item(sequence("ReferencedSOPSequence", *instances), text("SeriesInstanceUID", series_instance_uid))


def _private_scheme() -> bytes:
    """PS3.3 C.12.1.1.7: what a private Coding Scheme Designator stands for."""
    return item(
        text("CodingSchemeDesignator", PRIVATE_SCHEME),
        text("CodingSchemeName", "Labels of classifiers without a standard code"),
        text("CodingSchemeResponsibleOrganization", provenance.MANUFACTURER),
    )
