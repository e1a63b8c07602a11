"""Reports in FHIR R4: what the classifier said is there, the library accepts it, and nothing refers to nothing."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
import pytest
from fhirclient.models import bundle

from router.core.findings import Finding, NotAnalysed, Prediction
from router.errors import RouterError
from router.report import fhir
from router.report.codes import finding_code
from router.report.fhir import bundle_of
from router.report.not_analysed import NotAnalysedBuilder
from router.report.sr import SrBuilder
from router.report.told import Told, told
from router.report.variant import variant
from tests.report.made import HEADER, RECEIVED_AT, instance_of, prediction, read

_numbers = itertools.count()


@pytest.fixture
def report(tmp_path: Path) -> Any:
    """report(prediction, header): what an SR of ours tells."""

    def make(outcome: Prediction | NotAnalysed, header: Mapping[str, Any] = HEADER) -> Told:
        source = read(header)
        if isinstance(outcome, NotAnalysed):
            built = NotAnalysedBuilder().explain(source, instance_of(source), outcome, prediction().classifier)
        else:
            built = SrBuilder().build(source, instance_of(source), outcome)
        path = tmp_path / f"{next(_numbers)}.dcm"
        path.write_bytes(built.data)
        return told(path)

    return make


def of_type(made: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in made["entry"] if entry["resource"]["resourceType"] == name]


def every(value: Any, key: str) -> list[Any]:
    """All values under `key`, anywhere."""
    if isinstance(value, list):
        return [found for one in value for found in every(one, key)]
    if not isinstance(value, dict):
        return []
    own = [value[key]] if key in value else []
    return own + [found for one in value.values() for found in every(one, key)]


def test_every_finding_is_an_observation_with_its_code_score_threshold_and_verdict(report: Any) -> None:
    said = prediction()
    observations = of_type(bundle_of([(report(said), RECEIVED_AT)]), "Observation")
    assert len(observations) == len(said.findings)
    for observation, finding in zip(observations, said.findings, strict=True):
        row = finding_code(finding.label)
        (coding,) = observation["code"]["coding"]
        assert (coding["code"], coding["display"]) == (row.code.value, row.code.meaning)
        assert observation["code"]["text"] == finding.label
        assert row.site
        assert observation["bodySite"]["coding"][0]["code"] == row.site.value
        quantity = observation["valueQuantity"]
        assert (quantity["value"], quantity["code"]) == (round(100 * finding.score, 2), "%")
        (threshold,) = observation["component"]
        assert (threshold["code"]["text"], threshold["valueQuantity"]["value"]) == ("Decision threshold", 50.0)
        (verdict,) = observation["interpretation"]
        assert [c["code"] for c in verdict["coding"]] == (
            ["POS", "52101004"] if finding.present else ["NEG", "272519000"]
        )
        assert observation["method"]["coding"][0]["code"] == "123110", "Artificial Intelligence"
        assert observation["status"] == "preliminary"


def test_what_the_bundle_refers_to_is_in_it_and_the_rest_is_an_identifier(report: Any) -> None:
    made = bundle_of([(report(prediction()), RECEIVED_AT)])
    urls = {entry["fullUrl"] for entry in made["entry"]}
    assert set(every(made, "reference")) <= urls
    assert {entry["fullUrl"].removeprefix("urn:uuid:") for entry in made["entry"]} == {
        entry["resource"]["id"] for entry in made["entry"]
    }
    (diagnosis,) = of_type(made, "DiagnosticReport")
    assert [r["reference"] for r in diagnosis["result"]] == [
        f"urn:uuid:{o['id']}" for o in of_type(made, "Observation")
    ]
    assert diagnosis["subject"] == {"type": "Patient", "identifier": {"value": "P-1"}}
    assert diagnosis["basedOn"][0]["identifier"]["value"] == "A4711"
    assert not of_type(made, "Patient"), "the router owns none"
    assert "Phantom" not in str(made), "no name, no birth date: the identifier is enough"
    assert "1970" not in str(made)


def test_study_series_and_instances_are_told_by_uid(report: Any) -> None:
    one = report(prediction())
    made = bundle_of([(one, RECEIVED_AT)])
    (study,) = of_type(made, "ImagingStudy")
    assert study["identifier"][0]["value"] == "urn:oid:" + HEADER["StudyInstanceUID"].decode()
    assert {(s["uid"], s["modality"]["code"], s["instance"][0]["uid"]) for s in study["series"]} == {
        (HEADER["SeriesInstanceUID"].decode(), "CR", HEADER["SOPInstanceUID"].decode()),
        (one.itself.series_instance_uid, "SR", one.itself.sop_instance_uid),
    }
    (diagnosis,) = of_type(made, "DiagnosticReport")
    assert diagnosis["identifier"][0]["value"] == f"urn:oid:{one.itself.sop_instance_uid}"
    image = of_type(made, "Observation")[0]["derivedFrom"]
    assert image[0]["reference"] == f"urn:uuid:{study['id']}"
    assert image[1]["identifier"]["value"] == "urn:oid:" + HEADER["SOPInstanceUID"].decode()


def test_the_device_is_the_algorithm_with_its_weights(report: Any) -> None:
    said = prediction(weights="ab" * 32)
    (device,) = of_type(bundle_of([(report(said), RECEIVED_AT)]), "Device")
    assert device["deviceName"][0]["name"] == "densenet121-res224-all"
    assert {v["type"]["text"]: v["value"] for v in device["version"]} == {
        "algorithm": "torchxrayvision 1.5.7",
        "weights SHA-256": "ab" * 32,
    }
    assert {p["type"]["text"]: p["valueCode"][0]["text"] for p in device["property"]} == {
        "normalisation": "op_norm",
        "preprocessing": "1",
    }


def test_the_conclusion_warns_first_and_names_what_is_over_its_threshold(report: Any) -> None:
    made = bundle_of([(report(prediction(demonstration=True, labels=3)), RECEIVED_AT)])
    (diagnosis,) = of_type(made, "DiagnosticReport")
    assert diagnosis["conclusion"].startswith("DEMONSTRATION: this classifier was trained on drawings")
    assert "NOT FOR DIAGNOSIS" in diagnosis["conclusion"]
    assert "Atelectasis 50 % (threshold 50 %), Infiltration 77.78 % (threshold 50 %)." in diagnosis["conclusion"]
    assert diagnosis["conclusion"].endswith("1 of 3 findings are not.")
    assert all("no clinical meaning" in str(o["note"]) for o in of_type(made, "Observation"))


def test_the_same_reports_give_the_same_bundle_and_two_reports_of_a_study_share_it(report: Any) -> None:
    pair = [(report(prediction()), RECEIVED_AT), (report(prediction(weights="d0" * 32)), RECEIVED_AT)]
    made = bundle_of(pair)
    assert made == bundle_of(pair)
    assert [len(of_type(made, name)) for name in ("DiagnosticReport", "Device", "ImagingStudy")] == [2, 2, 1]
    assert len(of_type(made, "Observation")) == 36
    assert len(of_type(made, "ImagingStudy")[0]["series"]) == 3


def test_what_was_not_analysed_is_cancelled_and_finds_nothing(report: Any) -> None:
    made = bundle_of([(report(NotAnalysed(code="lateral", reason="a lateral view")), RECEIVED_AT)])
    (diagnosis,) = of_type(made, "DiagnosticReport")
    assert diagnosis["status"] == "cancelled"
    assert diagnosis["conclusion"].startswith("NOT ANALYSED. a lateral view")
    assert "result" not in diagnosis
    assert of_type(made, "Device")[0]["version"][1]["value"] == "c0" * 32


def test_an_undetermined_finding_is_indeterminate(tmp_path: Path) -> None:
    source = read(HEADER)
    path = tmp_path / "sr.dcm"
    path.write_bytes(SrBuilder().build(source, instance_of(source), prediction(labels=1)).data)
    document = pydicom.dcmread(path)
    (group,) = document.ContentSequence[-1].ContentSequence
    (answer,) = (c for c in group.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "46621007")
    answer.ConceptCodeSequence[0].CodeValue = "373068000"
    answer.ConceptCodeSequence[0].CodeMeaning = "Undetermined"
    document.save_as(path)
    (observation,) = of_type(bundle_of([(told(path), RECEIVED_AT)]), "Observation")
    assert [c["code"] for c in observation["interpretation"][0]["coding"]] == ["IND", "373068000"]


def test_a_label_without_a_code_is_told_by_its_text(report: Any) -> None:
    one = prediction(labels=1)
    own = Prediction(classifier=one.classifier, findings=(Finding(label="Tracheal shift", score=0.75, raw=0.5),))
    (observation,) = of_type(bundle_of([(report(own), RECEIVED_AT)]), "Observation")
    assert observation["code"] == {"text": "Tracheal shift"}
    assert "bodySite" not in observation


@pytest.mark.parametrize(
    ("keyword", "stored", "subject"),
    [
        ("PatientID", b"", {"type": "Patient", "display": "The image has no Patient ID"}),
        ("PatientID", b"A\\B", {"type": "Patient", "identifier": {"value": "A\\B"}}),
        ("PatientID", b" \tA\x00", {"type": "Patient", "identifier": {"value": "A"}}),
        ("IssuerOfPatientID", b"WARD 7", {"type": "Patient", "identifier": {"value": "P-1", "assigner": {"display": "WARD 7"}}}),
        ("StudyDate", b"2025.01", {"type": "Patient", "identifier": {"value": "P-1"}}),
        ("AccessionNumber", b"", {"type": "Patient", "identifier": {"value": "P-1"}}),
    ],
)  # fmt: skip
def test_an_identity_of_any_kind_makes_valid_fhir(report: Any, keyword: str, stored: bytes, subject: Any) -> None:
    made = bundle_of([(report(prediction(labels=1), {**HEADER, keyword: stored}), RECEIVED_AT)])
    for resource in (*of_type(made, "ImagingStudy"), *of_type(made, "Observation"), *of_type(made, "DiagnosticReport")):
        assert resource["subject"] == subject
    assert not [value for value in (*every(made, "value"), *every(made, "display")) if value in ("", None)]


def test_an_identity_in_another_script_is_decoded(report: Any) -> None:
    header = {**HEADER, "SpecificCharacterSet": b"ISO_IR 192", "PatientID": "山田-1".encode()}
    made = bundle_of([(report(prediction(labels=1), header), RECEIVED_AT)])
    assert of_type(made, "DiagnosticReport")[0]["subject"]["identifier"]["value"] == "山田-1"


def test_the_same_document_in_another_sr_class_tells_the_same(tmp_path: Path) -> None:
    source = read(HEADER)
    built = SrBuilder().build(source, instance_of(source), prediction())
    first, other = tmp_path / "first.dcm", tmp_path / "other.dcm"
    first.write_bytes(built.data)
    replaced = variant(built.data)
    assert replaced is not None
    other.write_bytes(replaced.data)
    assert told(first).findings == told(other).findings
    assert told(first).itself != told(other).itself


def test_what_fhir_does_not_allow_is_not_printed(report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir, "_percent", lambda value: {"value": str(value)})
    with pytest.raises(RouterError, match="cannot be told in FHIR R4") as caught:
        bundle_of([(report(prediction(labels=1)), RECEIVED_AT)])
    assert "P-1" not in str(caught.value)


def test_what_the_library_would_drop_is_not_printed(report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir, "_drop_empty", dict)
    with pytest.raises(RouterError, match="drops a part"):
        bundle_of([(report(prediction(labels=1), {**HEADER, "AccessionNumber": b""}), RECEIVED_AT)])


def test_what_the_library_reads_is_what_we_wrote(report: Any) -> None:
    made = bundle_of([(report(prediction()), RECEIVED_AT)])
    assert bundle.Bundle(made).as_json() == made


def test_without_the_library_there_is_one_clear_line(report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fhirclient.models", None)
    with pytest.raises(RouterError, match=r"pip install 'dicom-ai-router\[fhir\]'"):
        bundle_of([(report(prediction(labels=1)), RECEIVED_AT)])


def test_what_is_no_report_of_measurements_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    ds = read(HEADER)
    ds.save_as(path)
    with pytest.raises(ValueError, match="not a report of measurements"):
        told(path)
