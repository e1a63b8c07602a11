"""The cheap check between building a result object and spooling it: what fails is held back, and the image goes on without it.

It reads the finished bytes again by `router.report.readback`, so it shares no code with what wrote them. It is no validator:
it asks whether this object would be filed under the right patient and study, and says what a reader needs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydicom.datadict import keyword_for_tag

from router.core.instance import InstanceKind
from router.core.ports import ResultObject
from router.core.provenance import is_ours
from router.report import codes
from router.report.check_seen import seen_problems
from router.report.context import IDENTITY, raw_value
from router.report.readback import Item, Level, read_file, tag_of
from router.report.readback import code_in as _code
from router.report.readback import items_in as _items
from router.report.readback import text_in as _text
from router.report.readback import value_in as _value

#: Type 1 in the SR document IODs (PS3.3 A.35), in the data set's own level.
_TYPE_1 = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "ContentDate",
    "ContentTime",
    "CompletionFlag",
    "VerificationFlag",
    "ValueType",
    "ContinuityOfContent",
)
_CONTENT = tag_of("ContentSequence")
_GROUP = codes.MEASUREMENT_GROUP[:2]


def check(result: ResultObject, source: Any) -> list[str]:
    """What is wrong with an object made of `source` (pydicom Dataset), in plain English without values; empty when nothing is.

    Raises nothing: bytes that cannot be read are a finding.
    """
    try:
        meta, document = read_file(result.data)
        return [
            *_identity(meta, document, result, source),
            *_provenance(document),
            *(_report(document, source) if result.kind is InstanceKind.SR else seen_problems(result, document, source)),
        ]
    except Exception as error:  # noqa: BLE001 - whatever broken bytes do to their reader, they must not leave
        return [f"the document cannot be read back ({type(error).__name__})"]


def _identity(meta: Level, document: Level, result: ResultObject, source: Any) -> Iterator[str]:
    for keyword in ("StudyInstanceUID", *IDENTITY):
        if _value(document, keyword).rstrip(b"\0 ") != raw_value(source, keyword).rstrip(b"\0 "):
            yield f"{keyword} is not that of the image"
    told = {
        "SOPInstanceUID": result.sop_instance_uid,
        "SOPClassUID": result.sop_class_uid,
        "StudyInstanceUID": result.study_instance_uid,
        "SeriesInstanceUID": result.series_instance_uid,
    }
    for keyword, uid in told.items():
        if _text(document, keyword) != uid:
            yield f"{keyword} is not the one announced"
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        if _text(document, keyword) == _of_source(source, keyword):
            yield f"{keyword} is that of the image itself"
    announced = (result.sop_instance_uid, result.sop_class_uid, result.transfer_syntax_uid)
    stored = ("MediaStorageSOPInstanceUID", "MediaStorageSOPClassUID", "TransferSyntaxUID")
    if tuple(_text(meta, keyword) for keyword in stored) != announced:
        yield "File Meta Information does not fit the data set"


def _report(document: Level, source: Any) -> Iterator[str]:
    content = _content_items(document)
    yield from _type_1(document, content)
    yield from _evidence(document, source)
    yield from _content(document, content, source)


def _type_1(document: Level, content: Sequence[Item]) -> Iterator[str]:
    for keyword in _TYPE_1:
        if not document.get(tag_of(keyword)):
            yield f"{keyword} is empty"
    for item in content:
        if not all(item.values()):
            yield from (f"{keyword_for_tag(tag)} is empty in the content" for tag, value in item.items() if not value)


def _provenance(document: Level) -> Iterator[str]:
    for item in _items(document, "ContributingEquipmentSequence"):
        purpose = _code(item, "PurposeOfReferenceCodeSequence")
        if is_ours(
            manufacturer=_text(item, "Manufacturer"),
            model_name=_text(item, "ManufacturerModelName"),
            purpose_code=purpose[0],
            purpose_scheme=purpose[1],
        ):
            return
    yield "Contributing Equipment does not name the router: another node would classify the result"


def _evidence(document: Level, source: Any) -> Iterator[str]:
    referenced = {
        (
            _text(study, "StudyInstanceUID"),
            _text(series, "SeriesInstanceUID"),
            _text(image, "ReferencedSOPInstanceUID"),
        )
        for study in _items(document, "CurrentRequestedProcedureEvidenceSequence")
        for series in _items(study, "ReferencedSeriesSequence")
        for image in _items(series, "ReferencedSOPSequence")
    }
    wanted = tuple(_of_source(source, k) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    if referenced != {wanted}:
        yield "the evidence is not exactly the image"


def _content(document: Level, content: Sequence[Item], source: Any) -> Iterator[str]:
    if _code(document, "ConceptNameCodeSequence") != codes.IMAGING_MEASUREMENT_REPORT[:2]:
        yield "the root is not an Imaging Measurement Report"
    groups = [_by_name(item) for item in content if item.name == _GROUP]
    if not groups and not _says_not_analysed(document):
        yield "no finding is reported"
    source_uid = _of_source(source, "SOPInstanceUID")
    for number, group in enumerate(groups, start=1):
        for problem in _group(group, source_uid):
            yield f"finding {number}: {problem}"
    tracking_uids = {_text(item, "UID") for group in groups for item in group[codes.TRACKING_UNIQUE_IDENTIFIER[:2]]}
    if len(tracking_uids) != len(groups):
        yield "findings do not have a Tracking Unique Identifier each"


def _says_not_analysed(document: Level) -> bool:
    """A document without findings says so where people and machines look."""
    statuses = [
        _code(item, "ConceptCodeSequence")
        for evaluations in _by_name(document)[codes.QUALITATIVE_EVALUATIONS[:2]]
        for item in _by_name(evaluations)[codes.SUMMARY_OF_ANALYSES[:2]]
    ]
    comments = [_text(item, "TextValue") for item in _by_name(document)[codes.COMMENT[:2]]]
    return (
        statuses in ([codes.FAILED[:2]], [codes.NOT_ATTEMPTED[:2]])
        and any(comment.startswith("NOT ANALYSED") for comment in comments)
        and _text(document, "CompletionFlag") == "PARTIAL"
    )


def _group(group: _Named, source_uid: str) -> Iterator[str]:
    for concept in (codes.TRACKING_IDENTIFIER, codes.TRACKING_UNIQUE_IDENTIFIER, codes.FINDING, codes.CERTAINTY):
        if len(group[concept[:2]]) != 1:
            yield f"has not exactly one {concept.meaning}"
            return
    number = group[codes.CERTAINTY[:2]][0]
    measured = _items(number, "MeasuredValueSequence")[0]
    percent = float(_text(measured, "NumericValue"))
    if not (math.isfinite(percent) and 0 <= percent <= 100):
        yield "the score is not in 0..100"
    if _code(measured, "MeasurementUnitsCodeSequence") != codes.PERCENT[:2]:
        yield "the score is not in percent"
    methods = _by_name(number)[codes.MEASUREMENT_METHOD[:2]]
    if [_code(item, "ConceptCodeSequence") for item in methods] != [codes.ARTIFICIAL_INTELLIGENCE[:2]]:
        yield "the score does not say that artificial intelligence made it"
    yield from _answer(group, percent)
    referenced = [
        [_text(image, "ReferencedSOPInstanceUID") for image in _items(item, "ReferencedSOPSequence")]
        for item in group[codes.SOURCE_OF_MEASUREMENT[:2]]
    ]
    if referenced != [[source_uid]]:
        yield "does not refer to the image"


def _answer(group: _Named, percent: float) -> Iterator[str]:
    found = _code(group[codes.FINDING[:2]][0], "ConceptCodeSequence")
    answers = [_code(item, "ConceptCodeSequence") for item in group[found]]
    if answers not in ([codes.PRESENT[:2]], [codes.ABSENT[:2]]):
        yield "is neither present nor absent"
        return
    texts = [_text(item, "TextValue") for item in group[codes.ALGORITHM_PARAMETERS[:2]]]
    thresholds = [float(text[len("threshold=") : -1]) for text in texts if text.startswith("threshold=")]
    if len(thresholds) != 1:
        yield "has not exactly one threshold"
    # A score on the threshold may be rounded to it from below.
    elif percent != thresholds[0] and (percent > thresholds[0]) != (answers[0] == codes.PRESENT[:2]):
        yield "present or absent contradicts score and threshold"


_Named = Mapping[tuple[str, str], "list[Item]"]


def _by_name(item: Level) -> _Named:
    """The items under one, by the concept that names them; none for a concept that is not there."""
    found: defaultdict[tuple[str, str], list[Item]] = defaultdict(list)
    for child in _items(item, "ContentSequence"):
        found[child.name].append(child)
    return found


def _content_items(item: Level) -> list[Item]:
    """All that are under one, in the order in which they stand."""
    found: list[Item] = []
    for child in _items(item, "ContentSequence"):
        found.append(child)
        if _CONTENT in child:
            found += _content_items(child)
    return found


def _of_source(source: Any, keyword: str) -> str:
    return raw_value(source, keyword).decode("latin-1").rstrip("\0 ")
