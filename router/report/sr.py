"""A prediction as a DICOM Structured Report in the study of its image: `docs/sr.md` explains every part.

The same image, classifier and writer give the same SOP Instance UID, and the same arguments give the same bytes.
Sources: PS3.3 A.35.13 (Comprehensive 3D SR), C.17; PS3.16 TID 1500, TID 1501, TID 4019.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage, ExplicitVRLittleEndian

from router.core import provenance
from router.core.findings import ClassifierIdentity, Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.ports import ResultObject
from router.core.uids import device_uid, digest, result_series_instance_uid, result_sop_instance_uid
from router.errors import NotReportable
from router.report.codes import PRIVATE_SCHEME, Confirmation, ascii_text, finding_code, software_versions, writer_digest
from router.report.context import Context, context_of
from router.report.part10 import part10
from router.settings import Table

COMPREHENSIVE_3D_SR = str(Comprehensive3DSRStorage)
ENHANCED_SR = str(EnhancedSRStorage)
COMPREHENSIVE_SR = str(ComprehensiveSRStorage)

NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS"
NO_CLINICAL_MEANING = "DEMONSTRATION no clinical meaning"
SCORES = (
    "NOT FOR DIAGNOSIS. Scores are not probabilities of disease: a score at its threshold (see Algorithm Parameters) "
    "is at the classifier's operating point."
)
DEMONSTRATION = (
    "DEMONSTRATION: this classifier was trained on drawings, not on patients. Its findings have no clinical meaning."
)

#: Above what modalities use, so that a viewer lists our series last.
SERIES_NUMBER = 9901
_SERIES_DESCRIPTION_LENGTH_MAX = 64
_CONTRIBUTION_DESCRIPTION_LENGTH_MAX = 1024


class SrBuilder:
    """Result builder «sr» (entry point router.results): one Structured Report per prediction.

    Making one imports highdicom, which takes about a second: only the process that classifies does.
    """

    class Settings(Table):
        """Nothing to set."""

    def __init__(self, settings: Settings | None = None, *, sop_class_uid: str = COMPREHENSIVE_3D_SR) -> None:
        """`sop_class_uid`: Comprehensive 3D, Enhanced or Comprehensive SR; the content is the same in all three."""
        from router.report import tid1500

        if sop_class_uid not in (COMPREHENSIVE_3D_SR, ENHANCED_SR, COMPREHENSIVE_SR):
            raise ValueError(f"no SR of SOP class {sop_class_uid}")
        self.settings = settings or self.Settings()
        self._sop_class_uid = sop_class_uid
        self._document = tid1500.document
        self._writer = writer_digest()

    def build(self, source: Any, instance: SopInstance, prediction: Prediction) -> ResultObject:
        """The SR as a DICOM file, explicit VR little endian; `source` is the image's header as pydicom read it.

        Raises NotReportable when the image cannot be referred to, or the prediction has nothing or nonsense to report.
        """
        context = context_of(source, sop_class_uid=instance.sop_class_uid)
        if context.sop_instance_uid != instance.sop_instance_uid:
            raise NotReportable("the data set is not of the instance that was received")
        _refuse_nonsense(prediction)
        classifier = prediction.classifier
        parameters = digest(_what_scores_depend_on(prediction))
        sop_instance_uid = result_sop_instance_uid(
            kind=InstanceKind.SR.value,
            source_sop_instance_uid=context.sop_instance_uid,
            source_sha256=instance.sha256,
            weights_sha256=classifier.weights_sha256,
            parameters=parameters,
            sop_class_uid=self._sop_class_uid,
            writer=self._writer,
        )
        series_instance_uid = result_series_instance_uid(
            kind=InstanceKind.SR.value,
            study_instance_uid=context.study_instance_uid,
            weights_sha256=classifier.weights_sha256,
            parameters=parameters,
        )
        document = self._document(
            context,
            prediction,
            sop_class_uid=self._sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            series_instance_uid=series_instance_uid,
            series_number=SERIES_NUMBER,
            series_description=series_description(classifier),
            comments=_comments(prediction),
            at=_content_time(instance.received_at, context),
        )
        document.ContributingEquipmentSequence = _equipment(classifier, instance.received_at)
        if any(finding_code(finding.label).confirmation is Confirmation.LOCAL for finding in prediction.findings):
            document.CodingSchemeIdentificationSequence = [_private_scheme()]
        return ResultObject(
            kind=InstanceKind.SR,
            data=part10(document, context.header),
            sop_instance_uid=sop_instance_uid,
            sop_class_uid=self._sop_class_uid,
            study_instance_uid=context.study_instance_uid,
            series_instance_uid=series_instance_uid,
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            notes=context.repairs,
        )


def series_description(classifier: ClassifierIdentity) -> str:
    """What a viewer shows in its list of series, at most 64 characters; the warning is never what is cut off."""
    if classifier.demonstration:
        return f"AI {NO_CLINICAL_MEANING} {NOT_FOR_DIAGNOSIS}"
    room = _SERIES_DESCRIPTION_LENGTH_MAX - len(NOT_FOR_DIAGNOSIS) - 1
    return f"{ascii_text(f'AI result {classifier.algorithm}', room)} {NOT_FOR_DIAGNOSIS}"


def _refuse_nonsense(prediction: Prediction) -> None:
    labels = [finding.label for finding in prediction.findings]
    if not labels:
        raise NotReportable("the prediction has no findings")
    if len(set(labels)) < len(labels) or not all(label.strip() for label in labels):
        raise NotReportable("the prediction has findings without a name of their own")
    for finding in prediction.findings:
        for value in (finding.score, finding.raw, finding.threshold):
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise NotReportable(f"{finding.label}: score, sigmoid and threshold must be in [0, 1]")


def _what_scores_depend_on(prediction: Prediction) -> dict[str, object]:
    classifier = prediction.classifier
    return {
        "algorithm": classifier.algorithm,
        "version": classifier.version,
        "manufacturer": classifier.manufacturer,
        "demonstration": classifier.demonstration,
        "parameters": dict(classifier.parameters),
        "thresholds": {finding.label: finding.threshold for finding in prediction.findings},
    }


def _comments(prediction: Prediction) -> tuple[str, ...]:
    first = (DEMONSTRATION,) if prediction.classifier.demonstration else ()
    # No group for these: a group without a number stops the OHIF viewer, and 50 % would be a lie.
    not_trained = ", ".join(prediction.not_trained)
    last = (f"Not trained, therefore not reported: {not_trained}.",) if not_trained else ()
    return (*first, SCORES, *prediction.notes, *last)


def _content_time(received_at: datetime, context: Context) -> datetime:
    """In the image's own time zone when it names one, else UTC: the host's zone would make other bytes on another host."""
    if not context.utc_offset:
        return received_at.astimezone(UTC)
    sign = -1 if context.utc_offset[0] == "-" else 1
    hours, minutes = int(context.utc_offset[1:3]), int(context.utc_offset[3:])
    return received_at.astimezone(timezone(sign * timedelta(hours=hours, minutes=minutes)))


def _equipment(classifier: ClassifierIdentity, received_at: datetime) -> list[Dataset]:
    """Contributing Equipment: who analysed, and the router's signature (`core.provenance`)."""
    said = f"{DEMONSTRATION} " if classifier.demonstration else ""
    algorithm = _contribution(
        manufacturer=classifier.manufacturer,
        model_name=classifier.algorithm,
        versions=(classifier.version,),
        description=f"{said}Classified the image; weights sha256 {classifier.weights_sha256}",
        at=received_at,
    )
    algorithm.DeviceUID = device_uid(weights_sha256=classifier.weights_sha256)
    router = _contribution(
        manufacturer=provenance.MANUFACTURER,
        model_name=provenance.MODEL_NAME,
        versions=software_versions(),
        description=f"{said}Routed the image and wrote this result. {NOT_FOR_DIAGNOSIS}",
        at=received_at,
    )
    return [algorithm, router]


def _contribution(
    *, manufacturer: str, model_name: str, versions: tuple[str, ...], description: str, at: datetime
) -> Dataset:
    value, scheme, meaning = provenance.PURPOSE
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = value, scheme, meaning
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = ascii_text(manufacturer, 64)
    item.ManufacturerModelName = ascii_text(model_name, 64)
    item.SoftwareVersions = [ascii_text(version, 64) for version in versions]
    item.ContributionDescription = ascii_text(description, _CONTRIBUTION_DESCRIPTION_LENGTH_MAX)
    # The one time that always says its zone.
    item.ContributionDateTime = at.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    return item


def _private_scheme() -> Dataset:
    """PS3.3 C.12.1.1.7: what a private Coding Scheme Designator stands for."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "Labels of classifiers without a standard code"
    item.CodingSchemeResponsibleOrganization = provenance.MANUFACTURER
    return item
