"""«Of interest»: a Key Object Selection that points at an image with a finding, for worklists and viewers that sort by it.

Sources: PS3.3 A.35.4, C.17.6 (Key Object Selection); PS3.16 TID 2010, CID 7010, TID 1004 (device observer).
"""

from __future__ import annotations

from typing import Any

from pydicom.uid import KeyObjectSelectionDocumentStorage

from router.core.findings import Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.ports import ResultObject
from router.core.uids import device_uid
from router.report import codes
from router.report.attachment import Sort, attachment, finished, named, present, referenced, scored
from router.report.codes import Code, ascii_text
from router.report.content import Relationship, coded, concept, identified, inside, known, worded
from router.report.document import DEMONSTRATION, NOT_FOR_DIAGNOSIS, hierarchy
from router.report.elements import item, sequence, text
from router.settings import Table

SORT = Sort(
    kind=InstanceKind.KEY_OBJECT,
    sop_class_uid=str(KeyObjectSelectionDocumentStorage),
    modality="KO",
    series_number=9904,
    title="AI key image",
    deed="Classified the image",
)
OF_INTEREST = Code("113000", "DCM", "Of Interest")
DESCRIPTION = Code("113012", "DCM", "Key Object Description")
_TEMPLATE = "2010"
_LINE_LENGTH_MAX = 64


class KeyObjectBuilder:
    """Result builder «key-object» (entry point router.results): one Key Object Selection for an image with a finding."""

    class Settings(Table):
        """Nothing to set."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def build(self, source: Any, instance: SopInstance, prediction: Prediction) -> ResultObject | None:
        """The document as a DICOM file, explicit VR little endian; None when no finding is present. Raises NotReportable."""
        begun = attachment(SORT, source, instance, prediction)
        if not present(prediction):
            return None
        classifier = prediction.classifier
        content = (
            coded(Relationship.OBSERVATION, codes.OBSERVER_TYPE, codes.DEVICE),
            identified(
                Relationship.OBSERVATION,
                codes.DEVICE_OBSERVER_UID,
                device_uid(weights_sha256=classifier.weights_sha256),
            ),
            worded(
                Relationship.OBSERVATION,
                codes.DEVICE_OBSERVER_NAME,
                ascii_text(classifier.algorithm, _LINE_LENGTH_MAX),
            ),
            worded(Relationship.CONTAINS, DESCRIPTION, _description(prediction)),
            item(
                sequence("ReferencedSOPSequence", referenced(begun.image)),
                text("RelationshipType", Relationship.CONTAINS),
                text("ValueType", "IMAGE" if known(begun.image.sop_class_uid) else "COMPOSITE"),
            ),
        )
        elements = {
            "ReferencedPerformedProcedureStepSequence": sequence("ReferencedPerformedProcedureStepSequence"),
            "ValueType": text("ValueType", "CONTAINER"),
            "ConceptNameCodeSequence": sequence("ConceptNameCodeSequence", concept(OF_INTEREST)),
            "CurrentRequestedProcedureEvidenceSequence": sequence(
                "CurrentRequestedProcedureEvidenceSequence", hierarchy(begun.image)
            ),
        }
        return finished(begun, elements | inside(content, template=_TEMPLATE), without=("ContentQualification",))


def _description(prediction: Prediction) -> str:
    first = f"{DEMONSTRATION} " if prediction.classifier.demonstration else ""
    found = ", ".join(f"{named(finding.label)} {scored(finding)}" for finding in present(prediction))
    return ascii_text(f"{first}AI result, {NOT_FOR_DIAGNOSIS}: {found}", 1024)
