"""One document on all images of a study: valid, readable, deterministic, and nothing in it that its reports do not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import highdicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.coding import Code

from router import registry
from router.core.findings import NotAnalysed, Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.ports import Explainer, ResultBuilder, ResultObject
from router.core.provenance import is_ours
from router.errors import NotReportable
from router.report.check_summary import check_summary
from router.report.sr import SrBuilder
from router.report.summary import StudySummaryBuilder, Summarised
from router.report.told import told
from router.report.variant import variant
from tests.report.made import HEADER, RECEIVED_AT, dciodvfy_errors, dsrdump, instance_of, prediction, read, validated

BUILDER = StudySummaryBuilder()
JAPANESE = "Yamada^Tarou=山田^太郎".encode("iso2022_jp")


def analysed(
    number: int, scores: dict[str, float], *, weights: str = "c0" * 32, **header: bytes
) -> tuple[Summarised, bytes]:
    """An image of the study with its report, and the report's file."""
    uid = f"1.2.826.0.1.3680043.8.498.1.3.{number}".encode()
    source = read({**HEADER, **header, "SOPInstanceUID": uid})
    said = prediction(labels=3, weights=weights)
    said = replace(said, findings=tuple(replace(f, score=scores.get(f.label, f.score)) for f in said.findings))
    image = instance_of(source, digest=f"{number:064x}", received_at=RECEIVED_AT + timedelta(minutes=number))
    report = SrBuilder().build(source, image, said)
    entered = replace(
        image,
        kind=InstanceKind.SR,
        sop_class_uid=report.sop_class_uid,
        sop_instance_uid=report.sop_instance_uid,
        series_instance_uid=report.series_instance_uid,
    )
    return Summarised(image=replace(image, header={"Modality": "CR"}), prediction=said, report=entered), report.data


FIRST, FIRST_REPORT = analysed(1, {"Atelectasis": 0.2, "Consolidation": 0.9})
SECOND, SECOND_REPORT = analysed(2, {"Atelectasis": 0.7, "Consolidation": 0.3})


def summary(
    *of: Summarised, report: bytes = SECOND_REPORT, before: Sequence[SopInstance] = (), **more: object
) -> ResultObject:
    result = BUILDER.summary(report, of or (FIRST, SECOND), made_before=before, **more)  # type: ignore[arg-type]
    assert result is not None
    assert check_summary(result, report, BUILDER.alike(of or (FIRST, SECOND))) == []
    return result


def entered(result: ResultObject) -> SopInstance:
    """As the ledger has it afterwards."""
    return replace(
        FIRST.image,
        kind=result.kind,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
    )


def document_of(result: ResultObject) -> Dataset:
    return dcmread(BytesIO(result.data))


def test_it_is_found_by_its_entry_point_and_makes_nothing_of_one_image() -> None:
    assert registry.load("router.results", "study-summary") is StudySummaryBuilder
    assert not isinstance(BUILDER, ResultBuilder | Explainer)


def test_of_each_finding_it_has_the_highest_score_and_the_image_that_has_it(tmp_path: Path) -> None:
    dump = validated(summary().data, tmp_path)
    assert dump.count('"Derivation")=(56851009,SCT,"Maximum")') == 3
    assert "Summary of 2 images of this study" in dump
    path = tmp_path / "sr.dcm"
    said = {
        f.label: (f.score_percent, f.presence.meaning if f.presence else "", f.image_uid) for f in told(path).findings
    }
    assert said["Atelectasis"] == (70.0, "Present", SECOND.image.sop_instance_uid)
    assert said["Consolidation"] == (90.0, "Present", FIRST.image.sop_instance_uid)
    groups = highdicom.sr.srread(path).content.get_image_measurement_groups()
    scores = {
        g.tracking_identifier: g.get_measurements(name=Code("111012", "DCM", "Certainty of Finding"))[0].value
        for g in groups
    }
    assert scores == {label: score for label, (score, *_) in said.items()}


def test_it_refers_to_every_image_and_to_every_report() -> None:
    document = document_of(summary())
    evidence = {
        (str(series.SeriesInstanceUID), str(one.ReferencedSOPInstanceUID))
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert len(document.CurrentRequestedProcedureEvidenceSequence) == 1
    assert evidence == {
        (one.series_instance_uid, one.sop_instance_uid) for each in (FIRST, SECOND) for one in (each.image, each.report)
    }
    reports = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Source report"
    ]
    assert reports == [FIRST.report.sop_instance_uid, SECOND.report.sop_instance_uid]


def test_the_same_images_give_the_same_bytes_and_one_more_gives_another_document_that_names_it() -> None:
    first, again = summary(FIRST, report=FIRST_REPORT), summary(FIRST, report=FIRST_REPORT)
    assert first.data == again.data
    later = summary(before=[entered(first)])
    assert later.sop_instance_uid != first.sop_instance_uid
    assert later.series_instance_uid == first.series_instance_uid
    (study,) = document_of(later).PredecessorDocumentsSequence
    named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == first.sop_instance_uid
    assert "PredecessorDocumentsSequence" not in document_of(first)


def test_nothing_is_made_when_the_newest_summary_says_the_same() -> None:
    first = entered(summary(FIRST, report=FIRST_REPORT))
    second = entered(summary(before=[first]))
    both = (FIRST, SECOND)
    assert BUILDER.summary(FIRST_REPORT, [FIRST], made_before=[first]) is None
    assert BUILDER.summary(SECOND_REPORT, both, made_before=[second, first]) is None
    assert BUILDER.summary(SECOND_REPORT, both, made_before=[first]) is not None


def test_other_bytes_of_an_image_or_another_report_of_it_give_another_document() -> None:
    other_bytes = replace(FIRST, image=replace(FIRST.image, digest="ff" * 32))
    other_report = replace(FIRST, report=replace(FIRST.report, sop_instance_uid="2.25.7"))
    uids = {summary(one, SECOND).sop_instance_uid for one in (FIRST, other_bytes, other_report)}
    assert len(uids) == 3


def test_what_is_not_in_it_is_said(tmp_path: Path) -> None:
    old, _ = analysed(3, {"Atelectasis": 1.0}, weights="d0" * 32)
    lateral = (replace(FIRST.image, sop_instance_uid="1.2.3.4"), NotAnalysed(code="lateral", reason="a lateral view"))
    result = summary(old, FIRST, SECOND, not_analysed=[lateral])
    dump = validated(result.data, tmp_path)
    assert "Not analysed, and not in this summary: 1 (lateral)." in dump
    assert "Analysed by other weights or settings, and not in this summary: 1." in dump
    assert '"100.0"' not in dump
    assert result.sop_instance_uid != summary(FIRST, SECOND).sop_instance_uid


@pytest.mark.parametrize(
    "header",
    [
        {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "PatientName": JAPANESE},
        {"PatientID": b"AB\\CD", "IssuerOfPatientID": b"HOSPITAL"},
        {"TimezoneOffsetFromUTC": b"+0900 "},
    ],
)
def test_the_patient_is_the_one_of_the_reports_byte_for_byte(header: dict[str, bytes], tmp_path: Path) -> None:
    one, report = analysed(1, {}, **header)
    path = tmp_path / "sr.dcm"
    path.write_bytes(summary(one, report=report).data)
    written, source = dcmread(path), dcmread(BytesIO(report))
    for keyword in (
        "SpecificCharacterSet",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "StudyDate",
        "ContentTime",
    ):
        if keyword in source:
            assert written.get_item(keyword).value == source.get_item(keyword).value, keyword
    assert [line for line in dciodvfy_errors(path) if "PatientID" not in line and "Dicom dataset" not in line] == []


def test_it_is_signed_says_that_it_is_not_for_diagnosis_and_goes_to_older_destinations(tmp_path: Path) -> None:
    result = summary()
    document = document_of(result)
    item = document.ContributingEquipmentSequence[1]
    assert is_ours(
        manufacturer=item.Manufacturer,
        model_name=item.ManufacturerModelName,
        purpose_code=item.PurposeOfReferenceCodeSequence[0].CodeValue,
        purpose_scheme=item.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator,
    )
    assert document.SeriesDescription == "AI study summary densenet121-res224-all NOT FOR DIAGNOSIS"
    assert "NOT FOR DIAGNOSIS" in dsrdump_of(result, tmp_path)
    other = variant(result.data)
    assert other is not None
    validated(other.data, tmp_path)


def dsrdump_of(result: ResultObject, folder: Path) -> str:
    path = folder / "sr.dcm"
    path.write_bytes(result.data)
    return dsrdump(path)


def test_a_demonstration_says_so(tmp_path: Path) -> None:
    demo = replace(FIRST.prediction, classifier=replace(FIRST.prediction.classifier, demonstration=True))
    result = summary(replace(FIRST, prediction=demo), report=FIRST_REPORT)
    assert "trained on drawings" in dsrdump_of(result, tmp_path)
    assert document_of(result).SeriesDescription == "AI summary DEMONSTRATION no clinical meaning NOT FOR DIAGNOSIS"


def test_nothing_to_summarise_is_not_reportable() -> None:
    with pytest.raises(NotReportable):
        BUILDER.summary(b"", [])


@pytest.mark.parametrize(
    "wrong", [lambda r: r[:-2], lambda r: r.replace(b"P-1 ", b"P-2 "), lambda r: r.replace(b"90.0", b"10.0")]
)
def test_what_is_not_what_the_reports_say_is_held_back(wrong: object) -> None:
    result = summary()
    bent = replace(result, data=wrong(result.data))  # type: ignore[operator]
    assert bent.data != result.data
    assert check_summary(bent, SECOND_REPORT, [FIRST, SECOND]) != []


def test_of_two_equal_scores_the_earlier_image_is_named(tmp_path: Path) -> None:
    same: Prediction = FIRST.prediction
    result = summary(FIRST, replace(SECOND, prediction=same))
    path = tmp_path / "sr.dcm"
    path.write_bytes(result.data)
    findings = {f.image_uid for f in told(path).findings}
    assert findings == {FIRST.image.sop_instance_uid}
