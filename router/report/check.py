"""The cheap check between building an SR and spooling it: what fails is held back, and the image goes its way without it.

It reads the finished bytes with pydicom alone, so it shares no code with the library that wrote them. It is no validator:
it asks whether this document would be filed under the right patient and study, and says what a reader needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread

from router.core.ports import ResultObject
from router.core.provenance import is_ours
from router.report import codes
from router.report.codes import Code
from router.report.context import IDENTITY, raw_value

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


def check(result: ResultObject, source: Any) -> list[str]:
    """What is wrong with an SR made of `source` (pydicom Dataset), in plain English without values; empty when nothing is.

    Raises nothing: bytes that cannot be read are a finding.
    """
    try:
        document = dcmread(BytesIO(result.data))
        return [
            *_identity(document, result, source),
            *_type_1(document),
            *_provenance(document),
            *_evidence(document, source),
            *_content(document, source),
        ]
    except Exception as error:  # noqa: BLE001 - whatever a parser says of broken bytes, they must not leave
        return [f"the document cannot be read back ({type(error).__name__})"]


def _identity(document: Dataset, result: ResultObject, source: Any) -> Iterator[str]:
    for keyword in ("StudyInstanceUID", *IDENTITY):
        if raw_value(document, keyword).rstrip(b"\0 ") != raw_value(source, keyword).rstrip(b"\0 "):
            yield f"{keyword} is not that of the image"
    told = {
        "SOPInstanceUID": result.sop_instance_uid,
        "SOPClassUID": result.sop_class_uid,
        "StudyInstanceUID": result.study_instance_uid,
        "SeriesInstanceUID": result.series_instance_uid,
    }
    for keyword, uid in told.items():
        if document.get(keyword) != uid:
            yield f"{keyword} is not the one announced"
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        if document.get(keyword) == _text(source, keyword):
            yield f"{keyword} is that of the image itself"
    meta = document.file_meta
    if (meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) != (
        result.sop_instance_uid,
        result.sop_class_uid,
        result.transfer_syntax_uid,
    ):
        yield "File Meta Information does not fit the data set"


def _type_1(document: Dataset) -> Iterator[str]:
    for keyword in _TYPE_1:
        if keyword not in document or document[keyword].is_empty:
            yield f"{keyword} is empty"
    for item in _content_items(document):
        for element in item:
            if element.is_empty:
                yield f"{element.keyword} is empty in the content"


def _provenance(document: Dataset) -> Iterator[str]:
    for item in document.get("ContributingEquipmentSequence", []):
        purpose = _code(item, "PurposeOfReferenceCodeSequence")
        if is_ours(
            manufacturer=item.get("Manufacturer", ""),
            model_name=item.get("ManufacturerModelName", ""),
            purpose_code=purpose[0],
            purpose_scheme=purpose[1],
        ):
            return
    yield "Contributing Equipment does not name the router: another node would classify the result"


def _evidence(document: Dataset, source: Any) -> Iterator[str]:
    referenced = {
        (study.StudyInstanceUID, series.SeriesInstanceUID, image.ReferencedSOPInstanceUID)
        for study in document.get("CurrentRequestedProcedureEvidenceSequence", [])
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    wanted = tuple(_text(source, k) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    if referenced != {wanted}:
        yield "the evidence is not exactly the image"


def _content(document: Dataset, source: Any) -> Iterator[str]:
    if _code(document, "ConceptNameCodeSequence") != codes.IMAGING_MEASUREMENT_REPORT[:2]:
        yield "the root is not an Imaging Measurement Report"
    groups = [item for item in _content_items(document) if _name(item) == codes.MEASUREMENT_GROUP[:2]]
    if not groups:
        yield "no finding is reported"
    for number, group in enumerate(groups, start=1):
        for problem in _group(group, _text(source, "SOPInstanceUID")):
            yield f"finding {number}: {problem}"
    tracking_uids = [item.UID for group in groups for item in _children(group, codes.TRACKING_UNIQUE_IDENTIFIER)]
    if len(set(tracking_uids)) != len(groups):
        yield "findings do not have a Tracking Unique Identifier each"


def _group(group: Dataset, source_uid: str) -> Iterator[str]:
    for concept in (codes.TRACKING_IDENTIFIER, codes.TRACKING_UNIQUE_IDENTIFIER, codes.FINDING, codes.CERTAINTY):
        if len(_children(group, concept)) != 1:
            yield f"has not exactly one {concept.meaning}"
            return
    number = _children(group, codes.CERTAINTY)[0]
    measured = number.MeasuredValueSequence[0]
    percent = float(measured.NumericValue)
    if not (math.isfinite(percent) and 0 <= percent <= 100):
        yield "the score is not in 0..100"
    if _code(measured, "MeasurementUnitsCodeSequence") != codes.PERCENT[:2]:
        yield "the score is not in percent"
    methods = _children(number, codes.MEASUREMENT_METHOD)
    if [_code(item, "ConceptCodeSequence") for item in methods] != [codes.ARTIFICIAL_INTELLIGENCE[:2]]:
        yield "the score does not say that artificial intelligence made it"
    yield from _answer(group, percent)
    images = _children(group, codes.SOURCE_OF_MEASUREMENT)
    if [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images] != [source_uid]:
        yield "does not refer to the image"


def _answer(group: Dataset, percent: float) -> Iterator[str]:
    found = _code(_children(group, codes.FINDING)[0], "ConceptCodeSequence")
    answers = [_code(item, "ConceptCodeSequence") for item in group.ContentSequence if _name(item) == found]
    if answers not in ([codes.PRESENT[:2]], [codes.ABSENT[:2]]):
        yield "is neither present nor absent"
        return
    texts = [item.TextValue for item in _children(group, codes.ALGORITHM_PARAMETERS)]
    thresholds = [float(text[len("threshold=") : -1]) for text in texts if text.startswith("threshold=")]
    if len(thresholds) != 1:
        yield "has not exactly one threshold"
    # A score on the threshold may be rounded to it from below.
    elif percent != thresholds[0] and (percent > thresholds[0]) != (answers[0] == codes.PRESENT[:2]):
        yield "present or absent contradicts score and threshold"


def _content_items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        yield child
        yield from _content_items(child)


def _children(item: Dataset, concept: Code) -> list[Dataset]:
    return [child for child in item.get("ContentSequence", []) if _name(child) == concept[:2]]


def _name(item: Dataset) -> tuple[str, str]:
    return _code(item, "ConceptNameCodeSequence")


def _code(item: Dataset, keyword: str) -> tuple[str, str]:
    sequence = item.get(keyword) or []
    return (str(sequence[0].CodeValue), str(sequence[0].CodingSchemeDesignator)) if sequence else ("", "")


def _text(source: Any, keyword: str) -> str:
    return raw_value(source, keyword).decode("latin-1").strip("\0 ")
