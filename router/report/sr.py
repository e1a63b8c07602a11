"""A prediction as a DICOM Structured Report in the study of its image: `docs/sr.md` explains every part.

The same image, classifier and writer give the same SOP Instance UID, and the same arguments give the same bytes.
Sources: PS3.3 A.35.13 (Comprehensive 3D SR), C.17; PS3.16 TID 1500, TID 1501, TID 4019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from router.core.findings import ClassifierIdentity, Prediction
from router.core.instance import InstanceKind, Reference, SopInstance
from router.core.ports import ResultObject
from router.core.uids import digest, result_series_instance_uid, result_sop_instance_uid
from router.errors import NotReportable
from router.report import tid1500
from router.report.codes import Confirmation, ascii_text, finding_code, writer_digest
from router.report.context import context_of_received
from router.report.document import DEMONSTRATION, NOT_FOR_DIAGNOSIS, Document, encoded
from router.settings import Table

COMPREHENSIVE_3D_SR = str(Comprehensive3DSRStorage)

NO_CLINICAL_MEANING = "DEMONSTRATION no clinical meaning"
SCORES = (
    "NOT FOR DIAGNOSIS. Scores are not probabilities of disease: a score at its threshold (see Algorithm Parameters) "
    "is at the classifier's operating point."
)
_SERIES_DESCRIPTION_LENGTH_MAX = 64


class SrBuilder:
    """Result builder «sr» (entry point router.results): one Structured Report per prediction."""

    class Settings(Table):
        """Nothing to set."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()
        self._writer = writer_digest()

    def build(self, source: Any, instance: SopInstance, prediction: Prediction) -> ResultObject:
        """The SR as a DICOM file, explicit VR little endian; `source` is the image's header as pydicom read it.

        Raises NotReportable when the image cannot be referred to, or the prediction has nothing or nonsense to report.
        """
        return self.build_after(source, instance, prediction, ())

    def build_after(
        self, source: Any, instance: SopInstance, prediction: Prediction, made_before: Sequence[Reference]
    ) -> ResultObject:
        """`build`, and the document names the first of `made_before` that another classifier's identity made.

        `made_before`: documents of the same image by the classifier of the same name here, newest first.
        """
        context = context_of_received(source, instance)
        refuse_nonsense(prediction)
        classifier = prediction.classifier
        parameters = digest(what_scores_depend_on(prediction))
        series_instance_uid = result_series_instance_uid(
            kind=InstanceKind.SR.value,
            study_instance_uid=context.study_instance_uid,
            weights_sha256=classifier.weights_sha256,
            parameters=parameters,
        )
        # The series follows from the classifier's identity: the same series, the same identity.
        predecessor = next((one for one in made_before if one.series_instance_uid != series_instance_uid), None)
        sop_instance_uid = result_sop_instance_uid(
            kind=InstanceKind.SR.value,
            source_sop_instance_uid=context.sop_instance_uid,
            source_digest=instance.digest,
            weights_sha256=classifier.weights_sha256,
            parameters=parameters,
            sop_class_uid=COMPREHENSIVE_3D_SR,
            writer=self._writer,
            predecessor=predecessor.sop_instance_uid if predecessor else "",
        )
        document = Document(
            context=context,
            sop_class_uid=COMPREHENSIVE_3D_SR,
            sop_instance_uid=sop_instance_uid,
            series_instance_uid=series_instance_uid,
            series_description=series_description(classifier),
            classifier=classifier,
            deed="Classified the image",
            received_at=instance.received_at,
            template=tid1500.TEMPLATE,
            content=tid1500.measurement_report(context, prediction, _comments(prediction)),
            private_codes=any(
                finding_code(finding.label).confirmation is Confirmation.LOCAL for finding in prediction.findings
            ),
            predecessor=predecessor,
        )
        return ResultObject(
            kind=InstanceKind.SR,
            data=encoded(document),
            sop_instance_uid=sop_instance_uid,
            sop_class_uid=COMPREHENSIVE_3D_SR,
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


def refuse_nonsense(prediction: Prediction) -> None:
    """Raises NotReportable for a prediction without findings, or with findings that cannot be."""
    labels = [finding.label for finding in prediction.findings]
    if not labels:
        raise NotReportable("the prediction has no findings")
    if len(set(labels)) < len(labels) or not all(label.strip() for label in labels):
        raise NotReportable("the prediction has findings without a name of their own")
    for finding in prediction.findings:
        for value in (finding.score, finding.raw, finding.threshold):
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise NotReportable(f"{finding.label}: score, sigmoid and threshold must be in [0, 1]")


def what_scores_depend_on(prediction: Prediction) -> dict[str, object]:
    """All of a classifier's identity but its weights, and the thresholds: part of a document's UID."""
    """JSON-able; part of the UIDs of everything that is made of a prediction."""
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
