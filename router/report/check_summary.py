"""The check between building a study's summary and spooling it: is it filed as its reports are, and does it say what they say?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.core.ports import ResultObject
from router.report import codes
from router.report.codes import Code
from router.report.context import IDENTITY
from router.report.readback import Item, Level, code_in, items_in, read_file, text_in, value_in
from router.report.summary import Summarised, highest


def check_summary(result: ResultObject, report: bytes, summarised: Sequence[Summarised]) -> list[str]:
    """What is wrong with a summary of these, in plain English without values; empty when nothing is. Raises nothing."""
    try:
        meta, document = read_file(result.data)
        return [
            *_identity(meta, document, result, read_file(report)[1]),
            *_evidence(document, summarised),
            *_findings(document, summarised),
        ]
    except Exception as error:  # noqa: BLE001 - whatever broken bytes do to their reader, they must not leave
        return [f"the summary cannot be read back ({type(error).__name__})"]


def _identity(meta: Level, document: Level, result: ResultObject, report: Level) -> Iterator[str]:
    for keyword in ("SpecificCharacterSet", "StudyInstanceUID", *IDENTITY):
        if value_in(document, keyword) != value_in(report, keyword):
            yield f"{keyword} is not that of the report"
    told = {"SOPInstanceUID": result.sop_instance_uid, "SeriesInstanceUID": result.series_instance_uid}
    for keyword, uid in told.items():
        if text_in(document, keyword) != uid:
            yield f"{keyword} is not the one announced"
        if text_in(report, keyword) == uid:
            yield f"{keyword} is that of a report"
    if text_in(meta, "MediaStorageSOPInstanceUID") != result.sop_instance_uid:
        yield "File Meta Information does not fit the data set"


def _evidence(document: Level, summarised: Sequence[Summarised]) -> Iterator[str]:
    evidence = {
        text_in(instance, "ReferencedSOPInstanceUID")
        for study in items_in(document, "CurrentRequestedProcedureEvidenceSequence")
        for series in items_in(study, "ReferencedSeriesSequence")
        for instance in items_in(series, "ReferencedSOPSequence")
    }
    images = {one.image.sop_instance_uid for one in summarised}
    reports = {one.report.sop_instance_uid for one in summarised}
    if evidence != images | reports:
        yield "the evidence is not exactly the images and their reports"
    if {_uid(item) for item in _named(document, codes.SOURCE_REPORT)} != reports:
        yield "the reports are not exactly those of the images"


def _findings(document: Level, summarised: Sequence[Summarised]) -> Iterator[str]:
    wanted = {finding.label: (finding, one.image.sop_instance_uid) for one, finding in highest(summarised)}
    groups = [
        group
        for measurements in _named(document, codes.IMAGING_MEASUREMENTS)
        for group in _named(measurements, codes.MEASUREMENT_GROUP)
    ]
    if len(groups) != len(wanted):
        yield "there is not exactly one group for each finding"
    for number, group in enumerate(groups, start=1):
        (label,) = (text_in(item, "TextValue") for item in _named(group, codes.TRACKING_IDENTIFIER))
        (number_item,) = _named(group, codes.CERTAINTY)
        (found,) = (code_in(item, "ConceptCodeSequence") for item in _named(group, codes.FINDING))
        (answer,) = (code_in(item, "ConceptCodeSequence") for item in _named_by(group, found))
        (image,) = (_uid(item) for item in _named(group, codes.SOURCE_OF_MEASUREMENT))
        finding, image_uid = wanted[label]
        percent = float(text_in(items_in(number_item, "MeasuredValueSequence")[0], "NumericValue"))
        if abs(percent - 100 * finding.score) > 0.01 or image != image_uid:
            yield f"finding {number}: the score is not the highest, or not of its image"
        if answer != (codes.PRESENT if finding.present else codes.ABSENT)[:2]:
            yield f"finding {number}: present or absent contradicts the score"


def _named(item: Level, concept: Code) -> list[Item]:
    return _named_by(item, concept[:2])


def _named_by(item: Level, concept: tuple[str, ...]) -> list[Item]:
    return [
        child for child in items_in(item, "ContentSequence") if code_in(child, "ConceptNameCodeSequence") == concept
    ]


def _uid(item: Level) -> str:
    return text_in(items_in(item, "ReferencedSOPSequence")[0], "ReferencedSOPInstanceUID")
