"""The picture and a table of all findings on one page, as an Encapsulated PDF: for readers who print, and for archives that show no SR.

Sources: PS3.3 A.45.1 (Encapsulated PDF IOD), C.24.2 (Encapsulated Document).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from pydicom.uid import EncapsulatedPDFStorage

from router.core.findings import Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.ports import ResultObject
from router.core.sight import Sight
from router.report.attachment import Sort, attachment, finished, present, referenced
from router.report.elements import element, sequence, text
from router.settings import Table

SORT = Sort(
    kind=InstanceKind.PDF,
    sop_class_uid=str(EncapsulatedPDFStorage),
    modality="DOC",
    series_number=9905,
    title="AI result page",
    deed="Classified the image and said where its findings come from",
)
TITLE = "AI result, not for diagnostic use"


class PdfBuilder:
    """Result builder «pdf» (entry point router.results): one page for an image with a finding."""

    class Settings(Table):
        """Nothing to set."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def illustrate(
        self, source: Any, instance: SopInstance, prediction: Prediction, sight: Callable[[], Sight]
    ) -> ResultObject | None:
        """The document as a DICOM file, explicit VR little endian; None when no finding is present. Raises NotReportable."""
        begun = attachment(SORT, source, instance, prediction)
        if not present(prediction):
            return None
        from router.report.page import page

        document = page(sight(), prediction)
        texts = {
            "ConversionType": "SYN",
            "AcquisitionDateTime": "",
            "BurnedInAnnotation": "YES",
            "RecognizableVisualFeatures": "NO",
            "DocumentTitle": TITLE,
            "MIMETypeOfEncapsulatedDocument": "application/pdf",
        }
        elements = {keyword: text(keyword, value) for keyword, value in texts.items()}
        elements["ConceptNameCodeSequence"] = sequence("ConceptNameCodeSequence")
        elements["SourceInstanceSequence"] = sequence("SourceInstanceSequence", referenced(begun.image))
        elements["EncapsulatedDocument"] = element("EncapsulatedDocument", document)
        elements["EncapsulatedDocumentLength"] = element("EncapsulatedDocumentLength", struct.pack("<L", len(document)))
        return finished(begun, elements, without=("ContentQualification",))
