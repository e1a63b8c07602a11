"""`router trace UID --fhir`: from the ledger and the spool of a node, patient data on standard output and nowhere else."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fhirclient.models import bundle

from router.core.findings import NotAnalysed
from router.reported import as_fhir
from router.settings import parse
from tests.cli.conftest import Site
from tests.report.made import HEADER, prediction
from tests.whole import test_study_summary as study

STUDY = HEADER["StudyInstanceUID"].decode()


def reports(made: Any) -> list[str]:
    """SOP Instance UIDs of the SRs that a bundle tells of."""
    resources = [entry["resource"] for entry in made["entry"]]
    found = [r["identifier"][0]["value"] for r in resources if r["resourceType"] == "DiagnosticReport"]
    return sorted(uid.removeprefix("urn:oid:") for uid in found)


def test_an_instance_its_report_and_its_study_tell_the_same_valid_bundle(site: Site) -> None:
    image = site.receive()
    (report,) = site.analyse()
    told = [site.here("trace", uid, "--fhir") for uid in (image.sop_instance_uid, report.sop_instance_uid, STUDY)]
    assert [done.code for done in told] == [0, 0, 0]
    assert told[0].json == told[1].json == told[2].json
    assert reports(told[0].json) == [report.sop_instance_uid]
    assert bundle.Bundle(told[0].json).as_json() == told[0].json
    scores = {
        r["code"]["text"]: r["valueQuantity"]["value"]
        for r in (entry["resource"] for entry in told[0].json["entry"])
        if r["resourceType"] == "Observation"
    }
    assert scores == {f.label: round(100 * f.score, 2) for f in prediction().findings}


def test_a_study_tells_every_image_and_of_each_classifier_the_newest_report(site: Site) -> None:
    site.receive()
    (old,) = site.analyse()
    site.deliver()
    site.forget()
    site.receive()  # again, after its bytes were freed
    (new,) = site.analyse(prediction(weights="d0" * 32))
    site.receive({"SOPInstanceUID": b"1.2.3.4"})
    (other,) = site.analyse()
    done = site.here("trace", STUDY, "--fhir")
    assert (done.code, done.err) == (0, "")
    assert reports(done.json) == sorted([new.sop_instance_uid, other.sop_instance_uid])
    done = site.here("trace", old.sop_instance_uid, "--fhir")
    assert (done.code, done.out) == (1, ""), "the old one is asked for by its own UID, and its bytes are freed"


def test_bytes_that_were_freed_or_are_gone_are_a_clear_line(site: Site) -> None:
    image = site.receive()
    (report,) = site.analyse()
    site.deliver()
    site.forget()
    done = site.here("trace", image.sop_instance_uid, "--fhir")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"SR {report.sop_instance_uid}: its bytes were freed at 20")
    assert "ask the archive" in done.err


def test_what_is_missing_is_named_and_the_rest_is_told(site: Site) -> None:
    site.receive()
    site.receive({"SOPInstanceUID": b"1.2.3.4"})
    first, second = site.analyse()
    (file,) = site.folder.glob(f"spool/objects/*/{first.spool_key}")
    file.unlink()
    done = site.here("trace", STUDY, "--fhir")
    assert done.code == 1
    assert reports(done.json) == [second.sop_instance_uid]
    assert done.err == f"SR {first.sop_instance_uid}: spool file {first.spool_key} is gone\n"


def test_what_has_no_report_is_said_in_one_line(site: Site) -> None:
    image = site.receive()
    for uid in (image.sop_instance_uid, "1.2.3.4.5"):
        done = site.here("trace", uid, "--fhir")
        assert (done.code, done.out) == (1, "")
        assert f"no Structured Report was made of what {uid} names" in done.err
        assert done.err.count("\n") == 1


def test_a_summary_of_a_study_is_told_by_its_own_uid_and_not_beside_the_reports_that_it_sums_up(tmp_path: Path) -> None:
    with closing(study.Site(tmp_path)) as site:
        site.receive(3)
        site.receive(7)
        site.classify()
        ((summary, _),) = site.after_quiet()
        settings = parse({"spool": {"path": str(tmp_path / "spool")}})
        alone = as_fhir(settings, site.ledger.queries, summary.sop_instance_uid).bundle
        whole = as_fhir(settings, site.ledger.queries, STUDY).bundle
    assert alone
    assert whole
    assert reports(alone) == [summary.sop_instance_uid]
    assert len(reports(whole)) == 2
    assert summary.sop_instance_uid not in reports(whole)
    urls = [entry["fullUrl"] for entry in alone["entry"]]
    assert len(urls) == len(set(urls))


def test_a_not_analysed_report_is_told_as_cancelled(site: Site) -> None:
    image = site.receive()
    site.analyse(NotAnalysed(code="lateral", reason="a lateral view"))
    done = site.here("trace", image.sop_instance_uid, "--fhir")
    assert done.code == 0
    assert '"status": "cancelled"' in done.out


def test_patient_data_stands_on_standard_output_and_nowhere_else(site: Site, recwarn: pytest.WarningsRecorder) -> None:
    planted = {"PatientID": b"PID-4711-X", "AccessionNumber": b"ACC-0815", "PatientName": b"Geheim^Gerda"}
    image = site.receive(planted | {"IssuerOfPatientID": b"x" * 70})  # too long: pydicom warns, with the value
    site.analyse()
    recwarn.clear()
    done = site.here("trace", image.sop_instance_uid, "--fhir")
    assert [str(warning.message) for warning in recwarn] == [], "Python prints them on standard error"
    assert done.code == 0
    assert "PID-4711-X" in done.out
    assert "ACC-0815" in done.out
    assert "Geheim" not in done.out
    assert done.err == ""


def test_without_the_library_one_line_says_what_to_install(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    image = site.receive()
    site.analyse()
    monkeypatch.setitem(sys.modules, "fhirclient.models", None)
    done = site.here("trace", image.sop_instance_uid, "--fhir")
    assert (done.code, done.out) == (1, "")
    assert "pip install 'dicom-ai-router[fhir]'" in done.err


def test_json_and_fhir_together_are_wrong_use(site: Site) -> None:
    assert site.here("trace", STUDY, "--fhir", "--json").code == 2
