"""What the pages ask of a ledger, on SQLite and on PostgreSQL: found by what people know, bounded, and in pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from router.core.findings import NotAnalysed
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import TaskKind
from router.core.ports import Produced
from router.ledger.search import OBJECTS_MAX, Criteria
from router.ledger.store import SqlLedger
from tests.ledger import version_1
from tests.ledger.made import FakeClock, instance, plan


def image(uid: str, *, study: str = "1.2", patient: str = "P1", accession: str = "A1", ae: str = "CR1") -> SopInstance:
    header = {"PatientID": patient, "AccessionNumber": accession, "Modality": "CR"}
    return instance(uid, study_instance_uid=study, calling_ae_title=ae, header=header)


def take(ledger: SqlLedger, *images: SopInstance, **asked: tuple[str, ...]) -> None:
    for one in images:
        ledger.accept(one, plan(**asked))


def found(ledger: SqlLedger, **asked: str) -> list[str]:
    return [row.study_instance_uid for row in ledger.search.studies(Criteria(**asked))]


def test_studies_are_found_by_everything_that_people_know_of_them_and_by_the_whole_value_only(
    ledger: SqlLedger,
) -> None:
    take(
        ledger, image("1.1", study="1"), image("1.2", study="1"), image("2.1", study="2", patient="P2", accession="A2")
    )
    take(ledger, image("3.1", study="3", patient="P2", accession="", ae="CR2"))
    assert found(ledger) == ["3", "2", "1"], "newest first, each once"
    assert found(ledger, patient_id="P2") == ["3", "2"]
    assert found(ledger, accession_number="A1") == ["1"]
    assert found(ledger, uid="2") == found(ledger, uid="2.1") == ["2"]
    assert found(ledger, calling_ae_title="CR2") == ["3"]
    assert found(ledger, patient_id="P2", calling_ae_title="CR1") == ["2"]
    assert found(ledger, patient_id="P") == found(ledger, patient_id="p2") == found(ledger, patient_id="P%") == []


def test_a_study_that_came_with_two_accession_numbers_is_found_by_both(ledger: SqlLedger) -> None:
    take(ledger, image("1.1", accession="A1"), image("1.2", accession="A2"))
    assert found(ledger, accession_number="A1") == found(ledger, accession_number="A2") == ["1.2"]


def test_a_receipt_that_was_undone_leaves_nothing_to_find_and_the_next_one_is_found(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("router.ledger.store.owe", broken)
        with pytest.raises(RuntimeError):
            take(ledger, image("1.1"))
    assert found(ledger) == []
    take(ledger, image("1.1"))
    assert found(ledger) == ["1.2"]


def test_a_list_of_studies_goes_on_where_the_page_before_ended(ledger: SqlLedger) -> None:
    take(ledger, *(image(f"{n}.1", study=str(n)) for n in range(1, 6)))
    first = ledger.search.studies(Criteria(), limit=2)
    second = ledger.search.studies(Criteria(), limit=2, before_id=first[-1].catalogue_id)
    assert [row.study_instance_uid for row in (*first, *second)] == ["5", "4", "3", "2"]


def test_a_line_of_the_list_says_what_is_wrong_and_counts_no_further_than_it_must(ledger: SqlLedger) -> None:
    take(ledger, image("1.1", study="1"))
    (task,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1)
    ledger.defer(task, error="no accepted context", at=None)
    take(ledger, image("2.1", study="2"), image("2.2", study="2"))
    newest, oldest = ledger.search.studies(Criteria())
    assert (newest.failed, newest.owed, newest.object_count) == (False, True, 2)
    assert (oldest.failed, oldest.owed, oldest.object_count) == (True, False, 1)
    assert newest.header["Modality"] == "CR"
    assert OBJECTS_MAX == 1000


def test_a_timeline_gathers_what_happened_to_all_images_of_a_study(ledger: SqlLedger, clock: FakeClock) -> None:
    take(ledger, image("1.1"), image("1.2"), classify=("cxr",))
    clock.forward(10)
    (task, _) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=2)
    sr = instance("9.9", kind=InstanceKind.SR, study_instance_uid="1.2")
    ledger.complete(
        task,
        outcome=NotAnalysed(code="lateral", reason="a lateral"),
        produced=[Produced(instance=sr, destinations=("pacs",))],
    )
    timeline = {(m.what, m.target): m for m in ledger.search.timeline("1.2")}
    assert list(timeline) == [("received", ""), ("not_analysed", "cxr"), ("made", "cxr")]
    assert timeline["received", ""].count == 2
    assert timeline["made", "cxr"].first_at - timeline["received", ""].first_at == timedelta(seconds=10)


def test_images_of_a_study_come_in_pages_with_the_tasks_of_their_results(ledger: SqlLedger) -> None:
    take(ledger, *(image(f"1.{n}") for n in range(3)), classify=("cxr",), deliver=("pacs",))
    task = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)[0]
    sr = instance("9.9", kind=InstanceKind.SR, study_instance_uid="1.2")
    ledger.complete(
        task, outcome=NotAnalysed(code="x", reason="x"), produced=[Produced(instance=sr, destinations=("pacs",))]
    )
    first, second = ledger.search.images("1.2", limit=2)
    (third,) = ledger.search.images("1.2", after_id=second.instance_id, limit=2)
    assert [row.sop_instance_uid for row in (first, second, third)] == ["1.0", "1.1", "1.2"]
    assert sorted(first.tasks) == [
        ("classify", "cxr", "done"),
        ("deliver", "pacs", "ready"),
        ("deliver sr", "pacs", "ready"),
    ]
    assert [row.sop_instance_uid for row in ledger.search.newest(limit=2)] == ["1.2", "1.1"]
    assert [step.what for step in ledger.search.steps(first.instance_id)] == ["received", "not_analysed", "made"]


def test_failed_tasks_come_newest_first_by_kind_and_target(ledger: SqlLedger) -> None:
    take(ledger, image("1.1"), image("1.2"), deliver=("pacs", "archive"))
    for target in ("pacs", "archive"):
        for task in ledger.claim(TaskKind.DELIVER, target, lease_s=60, limit=9):
            ledger.defer(task, error=f"{target} refused it", at=None)
    everything = ledger.search.failed()
    assert [task.target for task in everything] == ["archive", "pacs", "archive", "pacs"]
    assert {task.error for task in ledger.search.failed(target="pacs")} == {"pacs refused it"}
    assert ledger.search.failed(before_id=everything[1].task_id)[0].task_id == everything[2].task_id
    assert ledger.search.failed(kind="classify") == []
    assert ledger.search.failed_count() == 4
    assert ledger.search.failed_count(task_ids=[everything[0].task_id, 99]) == 1
    assert ledger.search.failed_count(kind="deliver", target="pacs") == 2


def test_conflicts_show_all_versions_of_an_instance(ledger: SqlLedger) -> None:
    take(ledger, image("1.1"), replace(image("1.1"), digest="00" * 32), image("1.2"))
    (conflict,) = ledger.search.conflicts()
    assert conflict.sop_instance_uid == "1.1"
    assert [version.conflict for version in conflict.versions] == [False, True]


def test_what_happened_in_the_last_hour_is_counted_by_the_minute_and_forgotten(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    take(ledger, image("1.1"), image("1.2"))
    assert ledger.recent.counts(clock.now()) == {"received": 2}
    clock.forward(1800)
    take(ledger, image("1.3"))
    assert ledger.recent.counts(clock.now()) == {"received": 3}
    clock.forward(2400)
    assert ledger.recent.counts(clock.now()) == {"received": 1}
    clock.forward(3600)
    assert ledger.recent.counts(clock.now()) == {}


def test_the_first_look_at_the_last_hour_leaves_out_what_is_older(ledger: SqlLedger, clock: FakeClock) -> None:
    for number in range(20):
        take(ledger, image(f"1.{number}"))
        clock.forward(600)
    assert ledger.recent.counts(clock.now())["received"] == 5


def test_an_older_ledger_is_searched_like_a_new_one(ledger_url: str) -> None:
    version_1.make(ledger_url)
    ledger = SqlLedger(ledger_url)
    try:
        rows = ledger.search.studies(Criteria())
        assert rows
        for row in rows:
            if row.patient_id:
                assert row.study_instance_uid in found(ledger, patient_id=row.patient_id)
    finally:
        ledger.close()


def test_lists_that_a_page_asks_for_use_an_index(tmp_path: Path) -> None:
    """SQLite says how it would look: nowhere through all instances."""
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    engine = ledger._engines.read
    asked: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda c, cursor, statement, *rest: asked.append(statement))
    take(ledger, image("1.1"), replace(image("1.1"), digest="00" * 32))
    ledger.search.studies(Criteria(patient_id="P1"))
    ledger.search.studies(Criteria(uid="1.1"))
    ledger.search.studies(Criteria(accession_number="A1", calling_ae_title="CR1"), before_id=9)
    ledger.search.timeline("1.2")
    ledger.search.images("1.2")
    ledger.search.steps(1)
    ledger.search.failed()
    ledger.search.failed(before_id=9)
    ledger.search.failed(kind="deliver", target="pacs", before_id=9)
    ledger.search.failed_count()
    ledger.search.conflicts()
    ledger.queries.conflict_count()
    ledger.queries.missed_count()
    ledger.queries.status_of(1)
    ledger.queries.lanes(done={})
    plans: list[tuple[str, str]] = []
    with engine.connect() as connection:
        for statement in [s for s in asked if s.lstrip().startswith(("SELECT", "WITH"))]:
            count = statement.count("?")
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1,) * count):
                plans.append((row[3], statement))
    ledger.close()
    assert plans
    scans = {plan for plan, _ in plans if plan.startswith(("SCAN instance", "SCAN event", "SCAN task"))}
    allowed = ("instance_conflict", "instance_missed", "task_failed", "task_owed")  # small
    assert [(p, s) for p, s in plans if p in scans and not p.endswith(allowed)] == []


def test_a_page_asks_as_few_questions_however_much_it_shows(tmp_path: Path) -> None:
    """Each statement lets the threads that receive go first: fifty of them and a page takes a quarter of a second."""
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    asked: list[str] = []
    sa.event.listen(ledger._engines.read, "before_cursor_execute", lambda c, cursor, text, *rest: asked.append(text))
    counts = []
    for number in (1, 2, 3):
        first, other = (image(f"{number}.1", study=str(number)) for _ in range(2))
        take(ledger, first, replace(other, digest="00" * 32), deliver=("pacs", f"archive{number}"))
        (task,) = ledger.claim(TaskKind.DELIVER, f"archive{number}", lease_s=60, limit=1)
        ledger.defer(task, error="refused", at=None)
        asked.clear()
        ledger.search.studies(Criteria())
        ledger.search.failed()
        ledger.search.conflicts()
        ledger.queries.lanes(done={})
        ledger.queries.status_of(1)
        counts.append(len([text for text in asked if not text.startswith("BEGIN")]))
    ledger.close()
    assert len(set(counts)) == 1, counts


def test_a_duplicate_by_another_way_does_not_hide_what_then_comes_that_way(ledger: SqlLedger) -> None:
    take(ledger, image("1.1"), image("1.1", ae="CR2"), image("1.2", ae="CR2"))
    assert found(ledger, calling_ae_title="CR2") == ["1.2"]
