"""The check between building and spooling, seen to fail on every kind of broken document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from router.core.ports import ResultObject
from router.report.check import check
from router.report.sr import SrBuilder
from tests.report.made import HEADER, instance_of, prediction, read


@pytest.fixture(scope="module")
def good() -> ResultObject:
    source = read(HEADER)
    return SrBuilder().build(source, instance_of(source), prediction(labels=3))


def group(document: Dataset) -> Dataset:
    return document.ContentSequence[-1].ContentSequence[0]


def child(item: Dataset, code: str) -> Dataset:
    return next(c for c in item.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == code)


def without(item: Dataset, code: str) -> None:
    item.ContentSequence = [c for c in item.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue != code]


def score(document: Dataset) -> Dataset:
    return child(group(document), "111012")


def answer_with(document: Dataset, value: str) -> None:
    finding = child(group(document), "121071").ConceptCodeSequence[0].CodeValue
    child(group(document), finding).ConceptCodeSequence[0].CodeValue = value


def image_uid(document: Dataset) -> Any:
    return document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]


SABOTAGE: dict[str, tuple[Callable[[Dataset], Any], str]] = {
    "another study": (lambda d: setattr(d, "StudyInstanceUID", "1.2.3"), "StudyInstanceUID is not that of the image"),
    "another patient": (lambda d: setattr(d, "PatientID", "P-2"), "PatientID is not that of the image"),
    "a repaired patient": (lambda d: setattr(d, "PatientID", "P1"), "PatientID is not that of the image"),
    "no patient ID": (lambda d: d.pop("PatientID"), "PatientID is not that of the image"),
    "another name": (lambda d: setattr(d, "PatientName", "X"), "PatientName is not that of the image"),
    "another order": (lambda d: setattr(d, "AccessionNumber", "X"), "AccessionNumber is not that of the image"),
    "an issuer": (lambda d: setattr(d, "IssuerOfPatientID", "X"), "IssuerOfPatientID is not that of the image"),
    "in place of the image": (
        lambda d: setattr(d, "SOPInstanceUID", HEADER["SOPInstanceUID"].decode()),
        "SOPInstanceUID is that of the image itself",
    ),
    "in the series of the image": (
        lambda d: setattr(d, "SeriesInstanceUID", HEADER["SeriesInstanceUID"].decode()),
        "SeriesInstanceUID is that of the image itself",
    ),
    "another SOP class than announced": (lambda d: setattr(d, "SOPClassUID", "1.2.3"), "not the one announced"),
    "meta of another": (lambda d: setattr(d.file_meta, "MediaStorageSOPInstanceUID", "1.2.3"), "File Meta Information"),
    "empty Type 1": (lambda d: setattr(d, "CompletionFlag", ""), "CompletionFlag is empty"),
    "absent Type 1": (lambda d: d.pop("ContentDate"), "ContentDate is empty"),
    "empty in the content": (
        lambda d: setattr(child(group(d), "112039"), "TextValue", ""),
        "TextValue is empty in the content",
    ),
    "not signed": (lambda d: d.pop("ContributingEquipmentSequence"), "does not name the router"),
    "signed for another purpose": (
        lambda d: setattr(d.ContributingEquipmentSequence[1].PurposeOfReferenceCodeSequence[0], "CodeValue", "109101"),
        "does not name the router",
    ),
    "no evidence": (lambda d: d.pop("CurrentRequestedProcedureEvidenceSequence"), "the evidence is not exactly"),
    "evidence of another": (
        lambda d: setattr(image_uid(d), "ReferencedSOPInstanceUID", "1.2.3"),
        "the evidence is not exactly",
    ),
    "another root": (
        lambda d: setattr(d.ConceptNameCodeSequence[0], "CodeValue", "126001"),
        "not an Imaging Measurement Report",
    ),
    "no findings": (lambda d: setattr(d.ContentSequence[-1], "ContentSequence", []), "no finding is reported"),
    "no tracking identifier": (lambda d: without(group(d), "112039"), "finding 1: has not exactly one Tracking Ident"),
    "no tracking UID": (lambda d: without(group(d), "112040"), "finding 1: has not exactly one Tracking Unique"),
    "the same tracking UID": (
        lambda d: setattr(
            child(group(d), "112040"), "UID", child(d.ContentSequence[-1].ContentSequence[1], "112040").UID
        ),
        "Tracking Unique Identifier each",
    ),
    "no finding": (lambda d: without(group(d), "121071"), "finding 1: has not exactly one Finding"),
    "no score": (lambda d: without(group(d), "111012"), "finding 1: has not exactly one Certainty"),
    "a score of 101": (
        lambda d: setattr(score(d).MeasuredValueSequence[0], "NumericValue", "101"),
        "score is not in 0..100",
    ),
    "another unit": (
        lambda d: setattr(score(d).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0], "CodeValue", "1"),
        "score is not in percent",
    ),
    "no method": (lambda d: score(d).pop("ContentSequence"), "artificial intelligence"),
    "a third answer": (lambda d: answer_with(d, "373068000"), "neither present nor absent"),
    "the contrary answer": (
        lambda d: setattr(score(d).MeasuredValueSequence[0], "NumericValue", "3"),
        "contradicts score and threshold",
    ),
    "no threshold": (lambda d: without(group(d), "111002"), "not exactly one threshold"),
    "no reference": (lambda d: without(group(d), "121112"), "does not refer to the image"),
    "reference to another": (
        lambda d: setattr(child(group(d), "121112").ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "does not refer to the image",
    ),
}


def sabotaged(good: ResultObject, change: Callable[[Dataset], Any]) -> ResultObject:
    document = dcmread(BytesIO(good.data))
    change(document)
    buffer = BytesIO()
    document.save_as(buffer)
    return replace(good, data=buffer.getvalue())


def test_a_good_document_passes_and_survives_being_written_again(good: ResultObject) -> None:
    assert check(good, read(HEADER)) == []
    assert check(sabotaged(good, lambda _: None), read(HEADER)) == []


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_broken_document_is_held_back(name: str, good: ResultObject) -> None:
    change, problem = SABOTAGE[name]
    problems = check(sabotaged(good, change), read(HEADER))
    assert any(problem in found for found in problems), problems


@pytest.mark.parametrize("data", [b"", b"rubbish", bytes(128) + b"DICM"], ids=["nothing", "rubbish", "a preamble"])
def test_bytes_that_are_no_document_are_held_back(data: bytes, good: ResultObject) -> None:
    assert check(replace(good, data=data), read(HEADER)) != []


def test_half_a_document_is_held_back(good: ResultObject) -> None:
    for length in range(200, len(good.data), 997):
        assert check(replace(good, data=good.data[:length]), read(HEADER)) != [], length


def test_no_problem_quotes_a_value(good: ResultObject) -> None:
    told = " ".join(
        check(good, read({**HEADER, "PatientID": b"Q7Q7", "PatientName": b"Q7^Q7", "AccessionNumber": b"Q7"}))
    )
    assert "PatientID" in told
    assert "Q7" not in told
    assert "P-1" not in told


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_broken_document_is_held_back_after_many_good_ones(name: str, good: ResultObject) -> None:
    """What the check remembers of good documents says nothing of a broken one, and the other way round."""
    change, problem = SABOTAGE[name]
    broken = sabotaged(good, change)
    for _ in range(2):
        assert check(good, read(HEADER)) == []
        assert any(problem in found for found in check(broken, read(HEADER)))
