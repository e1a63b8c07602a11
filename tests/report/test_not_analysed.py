"""«Not analysed» as a document: valid, deterministic, and nothing that could be taken for a finding or for its absence."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom
import pytest
from pydicom import Dataset, dcmread

from router import child, registry
from router.core.childproto import Request, decode_request, encode_request
from router.core.findings import NotAnalysed
from router.core.ports import Explainer, ResultBuilder, ResultObject
from router.core.provenance import is_ours
from router.errors import NotReportable
from router.report.check import check
from router.report.not_analysed import NotAnalysedBuilder
from router.report.variant import variant
from tests.report.made import HEADER, encoded, instance_of, meta, prediction, read, validated

LATERAL = NotAnalysed(code="lateral", reason="a lateral view; the classifier was trained on frontal ones")
BROKEN = NotAnalysed(code="unreadable_pixels", reason="the pixel data is cut off")
CLASSIFIER = prediction().classifier


def made(outcome: NotAnalysed = LATERAL, *, demonstration: bool = False) -> ResultObject:
    source = read(HEADER)
    classifier = replace(CLASSIFIER, demonstration=demonstration)
    return NotAnalysedBuilder().explain(source, instance_of(source), outcome, classifier)


def evaluations(document: Dataset) -> dict[str, str]:
    (container,) = [i for i in document.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "C0034375"]
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.ConceptCodeSequence[0].CodeMeaning
        if item.ValueType == "CODE"
        else item.TextValue
        for item in container.ContentSequence
    }


def test_it_is_found_by_its_entry_point_and_makes_nothing_of_a_prediction() -> None:
    assert registry.load("router.results", "not-analysed") is NotAnalysedBuilder
    assert isinstance(NotAnalysedBuilder(), Explainer)
    assert not isinstance(NotAnalysedBuilder(), ResultBuilder)


@pytest.mark.parametrize(("outcome", "status"), [(LATERAL, "Not Attempted"), (BROKEN, "Failed")])
def test_it_says_whether_it_was_declined_or_failed_and_why(outcome: NotAnalysed, status: str, tmp_path: Path) -> None:
    result = made(outcome)
    assert check(result, read(HEADER)) == []
    dump = validated(result.data, tmp_path)
    assert f"NOT ANALYSED. {outcome.reason}" in dump
    document = dcmread(BytesIO(result.data))
    assert evaluations(document) == {"Summary of Analyses": status, "Comment": f"{outcome.code}: {outcome.reason}"}
    assert (document.CompletionFlag, document.CompletionFlagDescription) == (
        "PARTIAL",
        f"Not analysed: {outcome.code}",
    )
    assert document.SeriesDescription == "AI NOT ANALYSED, no result NOT FOR DIAGNOSIS"


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (b"1.2.840.10008.5.1.4.1.1.88.33", b"SR"),
        (b"1.2.840.10008.5.1.4.1.1.481.5", b"RTPLAN"),
        (b"1.2.840.10008.5.1.4.1.1.9.1.1", b"ECG "),
        (b"1.2.840.10008.5.1.4.1.1.6.1", b"US"),
        (b"1.2.840.10008.5.1.4.1.1.7", b"OT"),
        (b"1.2.840.10008.5.1.4.1.1.104.1", b"CR"),
    ],
)
def test_what_is_no_radiograph_or_no_image_at_all_has_a_valid_one(
    sop_class: bytes, modality: bytes, tmp_path: Path
) -> None:
    source = read({**HEADER, "SOPClassUID": sop_class, "Modality": modality})
    result = NotAnalysedBuilder().explain(source, instance_of(source), LATERAL, CLASSIFIER)
    assert check(result, source) == []
    dump = validated(result.data, tmp_path)
    assert ("Image Library" in dump) == (modality == b"CR"), "TID 1602 takes a modality of CID 29 alone"


def test_nothing_in_it_can_be_read_as_a_finding(tmp_path: Path) -> None:
    dump = validated(made().data, tmp_path)
    for word in ("Measurement Group", "Certainty", "Present", "Absent", "threshold"):
        assert word not in dump
    path = tmp_path / "sr.dcm"
    assert highdicom.sr.srread(path).content.get_image_measurement_groups() == []


def test_a_demonstration_says_so(tmp_path: Path) -> None:
    assert "trained on drawings" in validated(made(demonstration=True).data, tmp_path)


def test_the_same_again_has_the_same_bytes_and_another_reason_another_uid_in_the_same_series() -> None:
    assert made().data == made().data
    assert made(BROKEN).sop_instance_uid != made().sop_instance_uid
    assert made(BROKEN).series_instance_uid == made().series_instance_uid


def test_it_is_signed_by_the_router_and_has_a_variant_for_older_destinations(tmp_path: Path) -> None:
    document = dcmread(BytesIO(made().data))
    item = document.ContributingEquipmentSequence[1]
    assert is_ours(
        manufacturer=item.Manufacturer,
        model_name=item.ManufacturerModelName,
        purpose_code=item.PurposeOfReferenceCodeSequence[0].CodeValue,
        purpose_scheme=item.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator,
    )
    other = variant(made().data)
    assert other is not None
    assert check(other, read(HEADER)) == []
    validated(other.data, tmp_path)


@pytest.mark.parametrize("keyword", ["CompletionFlag", "ContentSequence"])
def test_a_document_without_findings_that_does_not_say_so_is_held_back(keyword: str) -> None:
    result = made()
    document = dcmread(BytesIO(result.data))
    if keyword == "CompletionFlag":
        document.CompletionFlag = "COMPLETE"
    else:
        document.ContentSequence = document.ContentSequence[:-1]
    buffer = BytesIO()
    document.save_as(buffer)
    assert check(replace(result, data=buffer.getvalue()), read(HEADER)) == ["no finding is reported"]


#: A sequence that is not ended, where pydicom finds no next element.
UNREADABLE = b"SQ\0\0\xff\xff\xff\xff"


@pytest.mark.parametrize(("where", "documents"), [(b"\x40\0\x75\x02", 1), (b"\x20\0\x15\0", 1), (b"\x10\0\x02\x10", 0)])
def test_a_data_set_that_cannot_be_read_has_a_document_when_its_header_can(
    where: bytes, documents: int, tmp_path: Path
) -> None:
    header = encoded(HEADER)
    at = len(header) if where[0] == 0x40 else header.index(b"\x28\0\x10\0" if where[0] == 0x20 else b"\x20\0\x0d\0")
    path = tmp_path / "image.dcm"
    path.write_bytes(meta() + header[:at] + where + UNREADABLE)
    request = Request(
        classifier="cxr",
        instance=instance_of(dcmread(BytesIO(meta() + header))),
        path=path,
        results=("sr", "not-analysed"),
        given=None,
    )
    builders = {name: registry.load("router.results", name)() for name in request.results}

    class Blind:
        identity = CLASSIFIER

    analysis = child._analyse(Blind(), builders, request)
    assert isinstance(analysis.outcome, NotAnalysed)
    assert analysis.outcome.code == "unreadable"
    assert len(analysis.results) == documents
    for result in analysis.results:
        assert "unreadable: the data set cannot be read" in validated(result.data, tmp_path)


def test_an_outcome_that_is_given_is_said_and_the_pixels_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(meta() + encoded(HEADER))
    given = NotAnalysed(code="child_died", reason="the classifier's process died of this image 2 times")
    request = Request(
        classifier="cxr", instance=instance_of(dcmread(path)), path=path, results=("sr", "not-analysed"), given=given
    )
    request = decode_request(encode_request(request))
    builders = {name: registry.load("router.results", name)() for name in request.results}

    class Deadly:
        identity = CLASSIFIER

        def predict_dataset(self, _: Dataset) -> None:
            raise AssertionError("it was to be left alone")

    analysis = child._analyse(Deadly(), builders, request)
    assert analysis.outcome == given
    (result,) = analysis.results
    assert evaluations(dcmread(BytesIO(result.data)))["Summary of Analyses"] == "Failed"


def test_another_image_than_the_received_one_is_not_reportable() -> None:
    source = read(HEADER)
    with pytest.raises(NotReportable):
        NotAnalysedBuilder().explain(source, replace(instance_of(source), sop_instance_uid="1.2"), LATERAL, CLASSIFIER)
