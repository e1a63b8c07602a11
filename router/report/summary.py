"""What one classifier found in the images of a study, as one Structured Report: of each finding the highest score.

Everything in it comes from the ledger and from a report that this node wrote about one of the images; no received byte is
read again. The same images, reports and classifier give the same bytes. `docs/sr.md` explains every part.
Sources: PS3.16 TID 1500, TID 1501, TID 300 (Derivation); PS3.3 A.35.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from router.core.findings import ClassifierIdentity, Finding, NotAnalysed, Prediction
from router.core.instance import InstanceKind, Reference, SopInstance
from router.core.ports import ResultObject
from router.core.uids import digest, result_series_instance_uid, result_sop_instance_uid, tracking_uid
from router.errors import NotReportable
from router.report import codes, tid1500
from router.report.codes import Confirmation, ascii_text, finding_code, writer_digest
from router.report.content import Relationship, citing, coded, container, referring
from router.report.context import COPIED, Context
from router.report.document import DEMONSTRATION, NOT_FOR_DIAGNOSIS, Document, encoded
from router.report.readback import read_file, tag_of
from router.report.sr import NO_CLINICAL_MEANING, SCORES, what_scores_depend_on
from router.settings import Table

SERIES_NUMBER = 9903
_KIND = InstanceKind.SUMMARY.value
_LINE_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarised:
    """One image that was analysed and reported."""

    image: SopInstance
    prediction: Prediction
    report: SopInstance


class StudySummaryBuilder:
    """Result builder «study-summary» (entry point router.results): it makes nothing of one image, `summary` of several."""

    class Settings(Table):
        """Nothing to set."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()
        self._writer = writer_digest()

    def alike(self, analysed: Sequence[Summarised]) -> list[Summarised]:
        """Those that the classifier saw as it saw the last one: by the same weights and settings."""
        return [one for one in analysed if _identity(one.prediction) == _identity(analysed[-1].prediction)]

    def summary(
        self,
        report: bytes,
        analysed: Sequence[Summarised],
        *,
        not_analysed: Sequence[tuple[SopInstance, NotAnalysed]] = (),
        made_before: Sequence[SopInstance] = (),
    ) -> ResultObject | None:
        """The document; `report` is the file of one of the reports, from which the patient's identity is copied.

        `made_before`: summaries of this study by this classifier, newest first. None: the newest of them says the same.
        Raises NotReportable when there is nothing to summarise; ValueError when `report` is none of ours.
        """
        if not analysed:
            raise NotReportable("no image of the study has a report")
        alike = self.alike(analysed)
        newest = alike[-1].prediction
        others = len(analysed) - len(alike)
        classifier, parameters = newest.classifier, digest(what_scores_depend_on(newest))
        context = _context(report, alike[0].image)
        series_instance_uid = result_series_instance_uid(
            kind=_KIND,
            study_instance_uid=context.study_instance_uid,
            weights_sha256=classifier.weights_sha256,
            parameters=parameters,
        )
        said = digest(
            {
                "images": sorted([a.image.sop_instance_uid, a.image.digest, a.report.sop_instance_uid] for a in alike),
                "not analysed": sorted([image.sop_instance_uid, why.code] for image, why in not_analysed),
                "others": others,
            }
        )

        def uid_after(predecessor: str) -> str:
            return result_sop_instance_uid(
                kind=_KIND,
                source_sop_instance_uid=context.study_instance_uid,
                source_digest=said,
                weights_sha256=classifier.weights_sha256,
                parameters=parameters,
                sop_class_uid=str(Comprehensive3DSRStorage),
                writer=self._writer,
                predecessor=predecessor,
            )

        before = [one.sop_instance_uid for one in made_before]
        if before and before[0] in {uid_after(predecessor) for predecessor in ("", *before[1:])}:
            return None
        predecessor = reference_to(made_before[0]) if made_before else None
        document = Document(
            context=context,
            sop_class_uid=str(Comprehensive3DSRStorage),
            sop_instance_uid=uid_after(predecessor.sop_instance_uid if predecessor else ""),
            series_instance_uid=series_instance_uid,
            series_description=_series_description(classifier),
            classifier=classifier,
            deed=f"Classified {len(alike)} images of the study",
            received_at=max(one.image.received_at for one in alike),
            template=tid1500.TEMPLATE,
            content=_content(context, alike, _comments(alike, not_analysed, others)),
            private_codes=any(
                finding_code(finding.label).confirmation is Confirmation.LOCAL for finding in newest.findings
            ),
            predecessor=predecessor,
            evidence=tuple(reference_to(one) for each in alike for one in (each.image, each.report)),
            series_number=SERIES_NUMBER,
        )
        return ResultObject(
            kind=InstanceKind.SUMMARY,
            data=encoded(document),
            sop_instance_uid=document.sop_instance_uid,
            sop_class_uid=document.sop_class_uid,
            study_instance_uid=context.study_instance_uid,
            series_instance_uid=series_instance_uid,
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
        )


def reference_to(instance: SopInstance) -> Reference:
    """As a document names it."""
    return Reference(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        study_instance_uid=instance.study_instance_uid,
    )


def highest(analysed: Sequence[Summarised]) -> list[tuple[Summarised, Finding]]:
    """Of each finding, in the classifier's own order, the highest score and its image; the earlier one of two alike."""
    best: dict[str, tuple[Summarised, Finding]] = {}
    for one in analysed:
        for finding in one.prediction.findings:
            found = best.get(finding.label)
            if found is None or finding.score > found[1].score:
                best[finding.label] = (one, finding)
    return list(best.values())


def _identity(prediction: Prediction) -> tuple[str, str]:
    return prediction.classifier.weights_sha256, digest(what_scores_depend_on(prediction))


def _context(report: bytes, image: SopInstance) -> Context:
    """The patient and study of a report of ours, as it took them over from its image."""
    _, document = read_file(report)
    values = {keyword: document.get(tag_of(keyword)) for keyword in COPIED}
    header = {keyword: value for keyword, value in values.items() if isinstance(value, bytes)}
    return Context(
        sop_class_uid=image.sop_class_uid,
        sop_instance_uid=image.sop_instance_uid,
        study_instance_uid=header["StudyInstanceUID"].decode("ascii").rstrip("\0 "),
        series_instance_uid=image.series_instance_uid,
        header=header,
        modality="OT",
        rows=None,
        columns=None,
        instance_number=1,
        utc_offset=header.get("TimezoneOffsetFromUTC", b"").decode("ascii").strip(),
        repairs=(),
    )


def _content(context: Context, alike: Sequence[Summarised], comments: tuple[str, ...]) -> tuple[bytes, ...]:
    maximum = coded(Relationship.PROPERTY, codes.DERIVATION, codes.MAXIMUM)
    groups = [
        tid1500.finding_group(
            tracking_uid(source_sop_instance_uid=context.study_instance_uid, label=finding.label),
            tid1500.algorithm_of(one.prediction.classifier),
            finding,
            referring(codes.SOURCE_OF_MEASUREMENT, one.image.sop_class_uid, one.image.sop_instance_uid),
            maximum,
        )
        for one, finding in highest(alike)
    ]
    entries = [
        tid1500.library_entry(
            one.image.sop_class_uid, one.image.sop_instance_uid, one.image.header.get("Modality", "").upper()
        )
        for one in alike
    ]
    return (
        *tid1500.opening(alike[-1].prediction.classifier),
        *tid1500.commented(comments),
        *(citing(codes.SOURCE_REPORT, one.report.sop_class_uid, one.report.sop_instance_uid) for one in alike),
        tid1500.library_of(*entries),
        container(codes.IMAGING_MEASUREMENTS, *groups),
    )


def _comments(
    alike: Sequence[Summarised], not_analysed: Sequence[tuple[SopInstance, NotAnalysed]], others: int
) -> tuple[str, ...]:
    prediction = alike[-1].prediction
    count = len(alike)
    images = "1 image" if count == 1 else f"{count} images"
    said = [DEMONSTRATION] if prediction.classifier.demonstration else []
    said += [
        SCORES,
        f"Summary of {images} of this study: of each finding the highest score, and the image that has it.",
    ]
    if prediction.not_trained:
        said.append(f"Not trained, therefore not reported: {', '.join(prediction.not_trained)}.")
    if not_analysed:
        reasons = ", ".join(sorted({why.code for _, why in not_analysed}))
        said.append(f"Not analysed, and not in this summary: {len(not_analysed)} ({reasons}).")
    if others:
        said.append(f"Analysed by other weights or settings, and not in this summary: {others}.")
    return tuple(said)


def _series_description(classifier: ClassifierIdentity) -> str:
    if classifier.demonstration:
        return f"AI summary {NO_CLINICAL_MEANING} {NOT_FOR_DIAGNOSIS}"
    room = _LINE_LENGTH_MAX - len(NOT_FOR_DIAGNOSIS) - 1
    return f"{ascii_text(f'AI study summary {classifier.algorithm}', room)} {NOT_FOR_DIAGNOSIS}"
