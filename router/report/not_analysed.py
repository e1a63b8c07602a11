"""«Not analysed, and why» as a Structured Report, for sites that want to see a missing result where they look for results.

TID 1500 wants measurements or qualitative evaluations. This document has one qualitative evaluation, of the analysis and
not of the patient: it was not attempted, or it failed. An empty list of findings would read as «nothing found».
Sources: PS3.16 TID 1500 (Qualitative Evaluations), CID 6042 (status of results); PS3.3 C.17.2 (Completion Flag).
"""

from __future__ import annotations

from typing import Any

from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from router.core.findings import ClassifierIdentity, NotAnalysed
from router.core.instance import InstanceKind, SopInstance
from router.core.ports import ResultObject
from router.core.uids import digest, result_series_instance_uid, result_sop_instance_uid
from router.report import codes, tid1500
from router.report.codes import ascii_text, writer_digest
from router.report.content import Relationship, coded, container, worded
from router.report.context import context_of_received
from router.report.document import DEMONSTRATION, NOT_FOR_DIAGNOSIS, Document, encoded
from router.settings import Table

SERIES_DESCRIPTION = f"AI NOT ANALYSED, no result {NOT_FOR_DIAGNOSIS}"
NOTHING_SAID = "This document says nothing about what the image shows: nothing was found, and nothing was ruled out."
#: Codes of reasons for which the classifier was at work and could not finish; with all others it declined.
_FAILURES = frozenset({"unreadable", "unreadable_pixels", "too_large", "child_died"})
_KIND = "not-analysed"
_LINE_LENGTH_MAX = 64


class NotAnalysedBuilder:
    """Result builder «not-analysed» (entry point router.results): a document where there is no prediction."""

    class Settings(Table):
        """Nothing to set."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()
        self._writer = writer_digest()

    def explain(
        self, source: Any, instance: SopInstance, outcome: NotAnalysed, classifier: ClassifierIdentity
    ) -> ResultObject:
        """The SR as a DICOM file, explicit VR little endian. Raises NotReportable when the image cannot be referred to."""
        context = context_of_received(source, instance)
        identity = {
            "algorithm": classifier.algorithm,
            "version": classifier.version,
            "parameters": dict(classifier.parameters),
        }
        sop_class_uid = str(Comprehensive3DSRStorage)
        sop_instance_uid = result_sop_instance_uid(
            kind=_KIND,
            source_sop_instance_uid=context.sop_instance_uid,
            source_digest=instance.digest,
            weights_sha256=classifier.weights_sha256,
            parameters=digest({**identity, "code": outcome.code, "reason": outcome.reason}),
            sop_class_uid=sop_class_uid,
            writer=self._writer,
        )
        series_instance_uid = result_series_instance_uid(
            kind=_KIND,
            study_instance_uid=context.study_instance_uid,
            weights_sha256=classifier.weights_sha256,
            parameters=digest(identity),
        )
        status = codes.FAILED if outcome.code in _FAILURES else codes.NOT_ATTEMPTED
        reason = ascii_text(f"{outcome.code}: {outcome.reason}", 1024)
        first = (DEMONSTRATION,) if classifier.demonstration else ()
        document = Document(
            context=context,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            series_instance_uid=series_instance_uid,
            series_description=SERIES_DESCRIPTION,
            classifier=classifier,
            deed="Did not classify the image",
            received_at=instance.received_at,
            template=tid1500.TEMPLATE,
            content=(
                *tid1500.opening(classifier),
                *tid1500.commented((*first, f"NOT ANALYSED. {outcome.reason}", NOTHING_SAID)),
                tid1500.image_library(context),
                container(
                    codes.QUALITATIVE_EVALUATIONS,
                    coded(Relationship.CONTAINS, codes.SUMMARY_OF_ANALYSES, status),
                    worded(Relationship.CONTAINS, codes.COMMENT, reason),
                ),
            ),
            partial=ascii_text(f"Not analysed: {outcome.code}", _LINE_LENGTH_MAX),
        )
        return ResultObject(
            kind=InstanceKind.SR,
            data=encoded(document),
            sop_instance_uid=sop_instance_uid,
            sop_class_uid=sop_class_uid,
            study_instance_uid=context.study_instance_uid,
            series_instance_uid=series_instance_uid,
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            notes=context.repairs,
        )
