"""What the pages show, do, and write into the audit trail."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from router.core.findings import ClassifierIdentity, Finding, NotAnalysed, Prediction
from router.core.instance import InstanceKind
from router.core.lifecycle import TaskKind
from router.core.ports import Produced
from router.ledger.search import Criteria
from router.report.sr import SrBuilder
from router.web.fixes import fix_for
from router.web.searches import _KEPT_MAX, Searches
from router.web.status import Lane
from tests.ledger.made import instance, plan
from tests.report.made import HEADER as HEADER_OF_AN_IMAGE
from tests.report.made import instance_of, prediction, read
from tests.web.site import Site, form_token, status

PATIENT, ACCESSION = "PID-4711", "ACC-0815"
HEADER = {"PatientID": PATIENT, "AccessionNumber": ACCESSION, "Modality": "CR", "StudyDescription": "<b>Thorax</b>"}
PREDICTION = Prediction(
    classifier=ClassifierIdentity(
        name="cxr",
        algorithm="densenet",
        version="1",
        manufacturer="m",
        weights_sha256="ab" * 32,
        parameters={},
        demonstration=True,
    ),
    findings=(
        Finding(label="Effusion", score=0.75, raw=0.6, threshold=0.5),
        Finding(label="Pleural_Thickening", score=0.25, raw=0.1, threshold=0.5),
    ),
    notes=("outside the square nothing was seen",),
)


@pytest.fixture
def taken(site: Site) -> Site:
    """An image that was classified, reported, and delivered to one of two destinations; a failed one; a conflict."""
    first = instance("1.2.3", study_instance_uid="1.2", header=HEADER)
    site.ledger.accept(first, plan(classify=("cxr",), deliver=("pacs", "archive")))
    (task,) = site.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    sr = instance("9.9", kind=InstanceKind.SR, study_instance_uid="1.2", header=HEADER)
    site.ledger.complete(task, outcome=PREDICTION, produced=[Produced(instance=sr, destinations=("pacs",))])
    (task,) = site.ledger.claim(TaskKind.DELIVER, "archive", lease_s=60, limit=1)
    site.ledger.complete(task)
    (task,) = site.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1)
    site.ledger.defer(task, error="PACS answered 0x0124: that we are not authorised", at=None)
    other = replace(first, digest=f"blake3:{'00' * 32}", spool_key="f" * 28)
    site.ledger.accept(other, plan(deliver=("pacs",)), also=["00" * 32])
    site.status = status(
        lanes=[Lane(kind="deliver", target="pacs", counts={"failed": 1}, oldest_age_s=None, breaker="closed")]
    )
    return site


def events_of(site: Site) -> list[str]:
    """The event of each audit message, in order."""
    return [re.search(r'<EventID[^>]*originalText="([^"]+)"', line)[1] for line in site.audited()]  # type: ignore[index]


def test_the_first_page_shows_lanes_with_their_trouble_and_what_came_last_and_nothing_of_patients(taken: Site) -> None:
    lane = Lane(
        kind="deliver",
        target="pacs",
        counts={"retry": 3},
        oldest_age_s=7500.0,
        trouble="nothing listens",
        down_s=95.0,
        breaker="open",
    )
    taken.status = status(
        lanes=[lane], problems=["the spool is short"], last_hour={"received": 41}, audit_trouble="refused"
    )
    client = taken.signed_in("vera")
    before = len(taken.audited())
    for path in ("/", "/now"):
        page = client.get(path).text
        for text in (
            "down 1 min 35 s",
            "nothing listens",
            "2 h 5 min",
            "Not ready",
            "the spool is short",
            ">41<",
            'href="/images/1"',
            "CR_ROOM1",
        ):
            assert text in page, text
        assert PATIENT not in page
        assert ACCESSION not in page
    assert len(taken.audited()) == before


def test_studies_are_found_and_neither_address_nor_page_of_another_shows_what_was_searched_for(taken: Site) -> None:
    client = taken.signed_in("vera")
    page = client.get("/studies")
    assert PATIENT in page.text
    assert "&lt;b&gt;Thorax&lt;/b&gt;" in page.text
    token = form_token(page.text)
    answer = client.post("/studies", data={"form_token": token, "accession_number": f" {ACCESSION} "})
    assert answer.status_code == 303
    where = answer.headers["location"]
    assert ACCESSION not in where
    assert 'href="/studies/1.2"' in client.get(where).text
    other = taken.signed_in("otto").get(where).text
    assert "This search is not known any more" in other
    assert PATIENT not in other
    answer = client.post("/studies", data={"form_token": token, "patient_id": "nobody"})
    assert "Nothing found." in client.get(answer.headers["location"]).text


def test_every_look_at_a_patient_is_audited_with_who_and_what(taken: Site) -> None:
    client = taken.signed_in("vera")
    token = form_token(client.get("/failed").text)
    where = client.post("/studies", data={"form_token": token, "patient_id": PATIENT}).headers["location"]
    before = len(taken.audited())
    client.get(where)
    client.get("/studies/1.2")
    client.get("/images/1")
    client.get("/reports/2")
    assert events_of(taken)[before:] == ["Query", *["DICOM Instances Accessed"] * 4]
    for line in taken.audited()[before:]:
        assert 'UserID="vera"' in line
        assert 'NetworkAccessPointID="10.1.2.3"' in line
    assert all(f'ParticipantObjectID="{PATIENT}"' in line for line in taken.audited()[before + 1 :])
    assert 'Instance UID="1.2.3"' in taken.audited()[-2]
    assert 'Instance UID="9.9"' in taken.audited()[-1]


@pytest.mark.parametrize("path", ["/studies", "/studies/1.2", "/images/1", "/reports/2"])
def test_what_cannot_be_audited_is_not_shown(taken: Site, path: str) -> None:
    client = taken.signed_in("vera")
    assert PATIENT in client.get(path).text or path == "/reports/2"
    taken.audit_folder.path = taken.users_path
    answer = client.get(path)
    assert answer.status_code == 503
    assert PATIENT not in answer.text
    assert client.get("/").status_code == 200, "counts are shown all the same"


def test_a_study_shows_its_timeline_and_its_images(taken: Site) -> None:
    page = taken.signed_in("vera").get("/studies/1.2").text
    for text in (
        PATIENT,
        ACCESSION,
        "received and durable",
        "analysed",
        "1 made",
        "delivered",
        "archive",
        "What did not go smoothly",
        "conflict",
        "deliver pacs: failed",
    ):
        assert text in page, text
    assert "<b>Thorax" not in page


def test_an_image_shows_findings_against_their_thresholds_and_what_was_made_of_it(taken: Site) -> None:
    page = taken.signed_in("vera").get("/images/1").text
    for text in (
        "Effusion",
        "Pleural Thickening",
        "0.750",
        "Demonstration",
        "outside the square nothing was seen",
        'href="/reports/2"',
        "received",
        "durable",
        "not authorised",
    ):
        assert text in page, text
    assert page.index("Effusion") < page.index("Pleural Thickening")
    assert re.search(r'class="over"[^>]*width="75.0%"', page)
    assert re.search(r'class="threshold" x1="50.0%"', page)
    assert page.count(">present<") == 1
    assert f'SHA-256 <span class="uid">{hashlib.sha256(b"1.2.3").hexdigest()}</span>' in page
    assert f'BLAKE3 <span class="uid">{"00" * 32}</span>' in taken.signed_in("vera").get("/images/3").text


def test_an_image_that_was_not_analysed_says_why(site: Site) -> None:
    site.ledger.accept(instance("1.2.3"), plan(classify=("cxr",)))
    (task,) = site.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    site.ledger.complete(task, outcome=NotAnalysed(code="lateral_view", reason="a lateral view"))
    page = site.signed_in("vera").get("/images/1").text
    assert "a lateral view" in page
    assert "lateral view)" in page


def test_a_report_is_read_from_the_spool_and_says_when_its_bytes_are_gone(taken: Site, tmp_path: Path) -> None:
    source = read(HEADER_OF_AN_IMAGE)
    result = SrBuilder().build(source, instance_of(source), prediction(labels=3))
    client = taken.signed_in("vera")
    assert "not in the spool any more" in client.get("/reports/2").text
    key = taken.ledger.queries.status_of(2).instance.spool_key  # type: ignore[union-attr]
    path = tmp_path / "sr.dcm"
    path.write_bytes(result.data)
    taken.files[key] = path
    page = client.get("/reports/2").text
    for text in ("Imaging", "densenet121-res224-all", "38.89 Percent", "Lung consolidation", "Measurement Method"):
        assert text in page, text
    path.write_bytes(b"\0" * 200)
    assert "It cannot be read" in client.get("/reports/2").text


@pytest.mark.parametrize("path", ["/studies/9.9.9", "/images/99", "/reports/1", "/reports/99", "/images/x"])
def test_what_is_not_there_is_a_page_that_says_so(taken: Site, path: str) -> None:
    answer = taken.signed_in("vera").get(path)
    assert answer.status_code == 404
    assert "Not there" in answer.text


def test_an_operator_puts_a_failed_task_back_and_it_is_written_down_before(taken: Site) -> None:
    client = taken.signed_in("otto")
    page = client.get("/failed").text
    assert "not authorised" in page
    assert "router echo pacs" in page
    (task,) = taken.ledger.search.failed()
    answer = client.post("/failed/requeue", data={"form_token": form_token(page), "task": str(task.task_id)})
    assert answer.headers["location"] == "/failed?put_back=1"
    assert "1 task put back" in client.get("/failed?put_back=1").text
    assert taken.ledger.search.failed() == []
    assert f"tasks {task.task_id}" in taken.audited()[-1]
    assert 'UserID="otto"' in taken.audited()[-1]


def test_an_operator_puts_all_of_one_kind_back(taken: Site) -> None:
    client = taken.signed_in("otto")
    token = form_token(client.get("/failed").text)
    for target, count in (("archive", 0), ("pacs", 1)):
        data = {"form_token": token, "kind": "deliver", "target": target}
        assert client.post("/failed/requeue", data=data).headers["location"] == f"/failed?put_back={count}"


@pytest.mark.parametrize("data", [{}, {"task": "x"}, {"kind": "deliver"}, {"kind": "everything", "target": "pacs"}])
def test_a_requeue_of_nothing_in_particular_does_nothing(taken: Site, data: dict[str, str]) -> None:
    client = taken.signed_in("otto")
    token = form_token(client.get("/failed").text)
    assert client.post("/failed/requeue", data={"form_token": token, **data}).status_code == 400
    assert len(taken.ledger.search.failed()) == 1


def test_what_cannot_be_audited_is_not_done(taken: Site) -> None:
    client = taken.signed_in("otto")
    token = form_token(client.get("/failed").text)
    taken.audit_folder.path = taken.users_path
    data = {"form_token": token, "kind": "deliver", "target": "pacs"}
    assert client.post("/failed/requeue", data=data).status_code == 503
    assert len(taken.ledger.search.failed()) == 1


def test_a_viewer_sees_what_failed_and_no_button(taken: Site) -> None:
    page = taken.signed_in("vera").get("/failed").text
    assert "not authorised" in page
    assert "Put back" not in page


def test_conflicts_show_both_versions(taken: Site) -> None:
    page = taken.signed_in("vera").get("/conflicts").text
    assert 'href="/images/1"' in page
    assert 'href="/images/3"' in page
    assert PATIENT not in page


def test_long_lists_have_further_pages(site: Site) -> None:
    for number in range(28):
        site.ledger.accept(instance(f"1.{number}", study_instance_uid=f"2.{number}", header=HEADER), plan())
    client = site.signed_in("vera")
    first = client.get("/studies").text
    assert "/studies/2.27" in first
    assert '/studies/2.2"' not in first
    (older,) = re.findall(r'href="(/studies\?before=\d+)"', first)
    assert '/studies/2.2"' in client.get(older).text


def test_searches_are_kept_for_whoever_made_them_and_only_so_many() -> None:
    searches = Searches()
    numbers = [searches.keep("vera", Criteria(patient_id=str(n))) for n in range(_KEPT_MAX + 1)]
    assert searches.find("vera", numbers[0]) is None
    assert searches.find("vera", numbers[-1]) == Criteria(patient_id=str(_KEPT_MAX))
    assert searches.find("otto", numbers[-1]) is None


@pytest.mark.parametrize(
    ("kind", "reason", "says"),
    [
        ("deliver", "PACS answered 0x0124: that we are not authorised", "what our AE title sends"),
        ("deliver", "PACS does not take CT Image Storage in JPEG 2000", "SOP class and transfer syntax"),
        ("deliver", "… only uncompressed, and it cannot be decompressed: …", "no decoder here"),
        ("deliver", "PACS answered 0xC123: it cannot understand the data set", "data set itself"),
        ("deliver", "spool file 00 is gone", "Send the image again"),
        ("deliver", "something new", "put the task back"),
        ("classify", "StudyDate is missing", "header lacks"),
        ("commit", "pacs does not offer Storage Commitment Push Model to us", "commitment = false"),
        ("report", "whatever", "peers[].port"),
    ],
)
def test_every_reason_comes_with_what_helps(kind: str, reason: str, says: str) -> None:
    fix = fix_for(kind=kind, target="pacs", reason=reason)
    assert says in fix.text
    assert "{" not in fix.text + fix.command
