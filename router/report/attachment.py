"""What every result object but an SR has round its content: identity, equipment, a series of its own, the source image.

Sources: PS3.3 C.7.1.1, C.7.2.1 (Patient, General Study), C.7.3.1 (General Series), C.7.5.1 (General Equipment), C.12.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian

from router.core import provenance
from router.core.findings import ClassifierIdentity, Finding, Prediction
from router.core.instance import InstanceKind, Reference, SopInstance
from router.core.ports import ResultObject
from router.core.uids import digest, result_series_instance_uid, result_sop_instance_uid
from router.report.codes import Code, ascii_text, software_versions
from router.report.content import concept
from router.report.context import Context, context_of_received
from router.report.document import NOT_FOR_DIAGNOSIS, content_time, equipment
from router.report.elements import data_set, element, item, sequence, text
from router.report.part10 import part10
from router.report.sr import refuse_nonsense, what_scores_depend_on

#: Raise it with every change that makes another object of the same prediction. The versions of Pillow and ReportLab are not
#: part of it: another JPEG encoder gives other bytes, but not another picture.
WRITER_VERSION = "1"

#: PS3.16 CID 7202.
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
_SERIES_DESCRIPTION_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """A kind of result object."""

    kind: InstanceKind
    sop_class_uid: str
    modality: str
    series_number: int
    """Above those of modalities and behind that of the SR, so that viewers list ours last and in this order."""
    title: str
    """Of its series, at most 24 characters."""
    deed: str
    """What the classifier did, for Contributing Equipment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One object in the making."""

    sort: Sort
    context: Context
    sop_instance_uid: str
    series_instance_uid: str
    elements: Mapping[str, bytes]
    """DICOM keyword -> encoded element, of what all kinds have."""

    @property
    def image(self) -> Reference:
        """The image it belongs to."""
        return Reference(
            sop_class_uid=self.context.sop_class_uid,
            sop_instance_uid=self.context.sop_instance_uid,
            series_instance_uid=self.context.series_instance_uid,
            study_instance_uid=self.context.study_instance_uid,
        )


def attachment(sort: Sort, source: Any, instance: SopInstance, prediction: Prediction) -> Attachment:
    """Identity copied byte for byte, the rest of the header cleaned, UIDs that follow from image and classifier.

    Raises NotReportable when the image cannot be referred to, or when the prediction is nonsense.
    """
    context = context_of_received(source, instance)
    refuse_nonsense(prediction)
    classifier = prediction.classifier
    parameters = digest(what_scores_depend_on(prediction))
    sop_instance_uid = result_sop_instance_uid(
        kind=sort.kind.value,
        source_sop_instance_uid=context.sop_instance_uid,
        source_digest=instance.digest,
        weights_sha256=classifier.weights_sha256,
        parameters=parameters,
        sop_class_uid=sort.sop_class_uid,
        writer=digest({"writer": WRITER_VERSION, "software": software_versions()})[:16],
    )
    series_instance_uid = result_series_instance_uid(
        kind=sort.kind.value,
        study_instance_uid=context.study_instance_uid,
        weights_sha256=classifier.weights_sha256,
        parameters=parameters,
    )
    at = content_time(instance.received_at, context)
    day = at.strftime("%Y%m%d")
    time = at.strftime("%H%M%S") + (f".{at.microsecond:06d}" if at.microsecond else "")
    elements = {keyword: element(keyword, value) for keyword, value in context.header.items()}
    texts = {
        "InstanceCreationDate": day,
        "InstanceCreationTime": time,
        "SOPClassUID": sort.sop_class_uid,
        "SOPInstanceUID": sop_instance_uid,
        "ContentDate": day,
        "ContentTime": time,
        "Modality": sort.modality,
        "Manufacturer": provenance.MANUFACTURER,
        "SeriesDescription": _series_description(sort, classifier),
        "ManufacturerModelName": provenance.MODEL_NAME,
        "DeviceSerialNumber": "software",
        "ContentQualification": "RESEARCH",
        "SeriesInstanceUID": series_instance_uid,
        "SeriesNumber": str(sort.series_number),
        "InstanceNumber": str(context.instance_number),
    }
    elements |= {keyword: text(keyword, value) for keyword, value in texts.items()}
    elements["SoftwareVersions"] = text("SoftwareVersions", *software_versions())
    elements["ContributingEquipmentSequence"] = sequence(
        "ContributingEquipmentSequence", *equipment(classifier, deed=sort.deed, received_at=instance.received_at)
    )
    return Attachment(
        sort=sort,
        context=context,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=series_instance_uid,
        elements=elements,
    )


def finished(
    begun: Attachment,
    elements: Mapping[str, bytes],
    *,
    without: tuple[str, ...] = (),
    transfer_syntax_uid: str = str(ExplicitVRLittleEndian),
    last: bytes = b"",
) -> ResultObject:
    """The object with `elements` of its own, and without those of all kinds that are not its; `last` stands at its end."""
    together = {keyword: value for keyword, value in begun.elements.items() if keyword not in without} | dict(elements)
    return ResultObject(
        kind=begun.sort.kind,
        data=part10(
            data_set(together) + last,
            sop_class_uid=begun.sort.sop_class_uid,
            sop_instance_uid=begun.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
        ),
        sop_instance_uid=begun.sop_instance_uid,
        sop_class_uid=begun.sort.sop_class_uid,
        study_instance_uid=begun.context.study_instance_uid,
        series_instance_uid=begun.series_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        notes=begun.context.repairs,
    )


def referenced(image: Reference, *, purpose: Code | None = None) -> bytes:
    """An item that names the image (PS3.3 10.3), with a purpose where the sequence wants one."""
    return item(
        text("ReferencedSOPClassUID", image.sop_class_uid),
        text("ReferencedSOPInstanceUID", image.sop_instance_uid),
        sequence("PurposeOfReferenceCodeSequence", concept(purpose)) if purpose else b"",
    )


def present(prediction: Prediction) -> list[Finding]:
    """The findings at or above their operating points, strongest first."""
    found = [finding for finding in prediction.findings if finding.present]
    return sorted(found, key=lambda finding: (-finding.score, finding.label))


def scored(finding: Finding) -> str:
    """A score in two digits that never says 1.00 where the network is not certain."""
    return ">0.99" if 0.995 <= finding.score < 1 else f"{finding.score:.2f}"


def named(label: str) -> str:
    """A classifier's label as people read it: «Pleural_Thickening» has a blank."""
    return ascii_text(label.replace("_", " "), 48)


def _series_description(sort: Sort, classifier: ClassifierIdentity) -> str:
    room = _SERIES_DESCRIPTION_LENGTH_MAX - len(NOT_FOR_DIAGNOSIS) - 1
    who = "DEMONSTRATION" if classifier.demonstration else classifier.algorithm
    return f"{ascii_text(f'{sort.title} {who}', room)} {NOT_FOR_DIAGNOSIS}"
