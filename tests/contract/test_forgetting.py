"""What goes from the ledger, and what must not: on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from router.core.commitment import CommitmentReport, CommitmentRequest, Reference
from router.core.findings import NotAnalysed
from router.core.instance import InstanceKind
from router.core.lifecycle import TaskKind
from router.core.ports import Produced, Receipt
from router.core.rules import ClassifyOrder, Plan
from router.errors import LeaseLost, StillOwed
from router.ledger.engine import open_engines
from router.ledger.schema import METADATA
from router.ledger.store import SqlLedger
from tests.ledger.made import CT, START, FakeClock, instance

PLAN = Plan(
    rules=("all",),
    classify=(ClassifyOrder(classifier="cxr", results=("sr",), results_to=("pacs",)),),
    deliver=("pacs",),
)
HEADER = {"PatientID": "PID-4711-X", "AccessionNumber": "ACC-0815"}
STUDY = "1.2"


def receive(ledger: SqlLedger, uid: str, *, study: str = STUDY, header: dict[str, str] | None = None) -> Receipt:
    return ledger.accept(instance(uid, study_instance_uid=study, header=header or HEADER), PLAN)


def finish(ledger: SqlLedger) -> None:
    """Everything that is owed is done; each image has a result."""
    for task in ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=999):
        result = instance(f"{task.instance.sop_instance_uid}.9", kind=InstanceKind.SR, made_by_router=True)
        result = replace(result, study_instance_uid=task.instance.study_instance_uid)
        ledger.complete(
            task,
            outcome=NotAnalysed(code="x", reason="y"),
            produced=[Produced(instance=result, destinations=("pacs",))],
        )
    for task in ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=999):
        ledger.complete(task)


def commit(ledger: SqlLedger, *uids: str) -> None:
    """A peer asked for these, and was told."""
    references = tuple(Reference(CT, uid) for uid in uids)
    request = CommitmentRequest(
        transaction_uid="2.25.7",
        references=references,
        calling_ae_title="CR",
        called_ae_title="ROUTER",
        peer_host="192.0.2.7",
        requested_at=START,
    )
    (task,) = ledger.commitments.take(request, lease_s=60)
    ledger.commitments.reported(
        task, CommitmentReport(transaction_uid="2.25.7", committed=references[1:], failed={references[0]: 0x0112})
    )


def rows(url: str) -> dict[str, int]:
    """Table -> rows, of those that have any."""
    engines = open_engines(url)
    with engines.read.connect() as connection:
        counts = {
            t.name: connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one()
            for t in METADATA.sorted_tables
        }
    engines.close()
    return {name: count for name, count in counts.items() if count}


def forget(ledger: SqlLedger, study: str = STUDY, *, force: bool = False) -> int:
    known = ledger.forgetting.mark(study, force=force)
    assert known is not None
    return ledger.forgetting.remove(known)


def test_nothing_stays_of_a_study_but_fingerprints(ledger: SqlLedger, ledger_url: str) -> None:
    receive(ledger, "1.1")
    receive(ledger, "1.2")
    finish(ledger)
    commit(ledger, "1.1", "1.2")
    assert forget(ledger) == 4, "two images and their reports"
    assert rows(ledger_url) == {"meta": 1, "forgotten": 2}
    assert ledger.forgetting.known(STUDY) is None
    assert ledger.queries.trace(STUDY) == []


def test_other_studies_stay_as_they_were(ledger: SqlLedger, ledger_url: str) -> None:
    receive(ledger, "2.1", study="9.9")
    receive(ledger, "1.1")
    finish(ledger)
    commit(ledger, "1.1", "2.1")
    before = ledger.queries.instance_status("2.1"), ledger.queries.trace("9.9")
    forget(ledger)
    assert (ledger.queries.instance_status("2.1"), ledger.queries.trace("9.9")) == before
    left = rows(ledger_url)
    assert (left["instance"], left["commitment"], left["catalogue"], left["forgotten"]) == (2, 1, 1, 1)
    assert list(ledger.commitments.standings(["1.1", "2.1"])) == ["2.1"]


def test_a_study_of_which_something_is_owed_or_has_failed_stays(ledger: SqlLedger, ledger_url: str) -> None:
    receive(ledger, "1.1")
    before = rows(ledger_url)
    with pytest.raises(StillOwed):
        ledger.forgetting.mark(STUDY, force=False)
    (delivery,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1)
    ledger.defer(delivery, error="it cannot", at=None)
    (look,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    ledger.complete(look)
    with pytest.raises(StillOwed):
        ledger.forgetting.mark(STUDY, force=False)
    assert rows(ledger_url)["task"] == before["task"]


def test_by_force_what_is_owed_is_given_up_and_the_worker_that_has_it_loses_it(
    ledger: SqlLedger, ledger_url: str
) -> None:
    receive(ledger, "1.1")
    (delivery,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1)
    assert forget(ledger, force=True) == 1
    with pytest.raises(LeaseLost):
        ledger.complete(delivery)
    assert rows(ledger_url) == {"meta": 1}


def test_what_is_half_forgotten_can_be_forgotten_again(ledger: SqlLedger, ledger_url: str) -> None:
    receive(ledger, "1.1")
    finish(ledger)
    first = ledger.forgetting.mark(STUDY, force=False)
    again = ledger.forgetting.mark(STUDY, force=False)
    assert again is not None
    assert first is not None
    assert again.spool_keys == first.spool_keys, "the files are named until the rows are gone"
    assert ledger.forgetting.remove(again) == 2
    assert ledger.forgetting.remove(first) == 0
    assert rows(ledger_url) == {"meta": 1, "forgotten": 1}


def test_what_comes_again_while_it_is_forgotten_stays(ledger: SqlLedger) -> None:
    receive(ledger, "1.1")
    receive(ledger, "1.2")
    finish(ledger)
    known = ledger.forgetting.mark(STUDY, force=False)
    assert known is not None
    assert receive(ledger, "1.1") is Receipt.NEW, "its bytes were freed"
    assert ledger.forgetting.remove(known) == 2, "the other image and its report"
    (task,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9)
    assert task.instance.sop_instance_uid == "1.1"
    assert ledger.forgetting.known(STUDY) is not None


@pytest.mark.parametrize("how", ["forgotten", "freed"])
def test_the_same_bytes_again_count_as_received_when_they_came_first_because_reports_say_so(
    ledger: SqlLedger, clock: FakeClock, how: str
) -> None:
    """A report has the same UID then, and must have the same content."""
    receive(ledger, "1.1")
    (first,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=1, limit=1)
    ledger.release(first, at=START, reason="")
    finish(ledger)
    clock.forward(1000)
    if how == "forgotten":
        forget(ledger)
    else:
        assert ledger.free(retention_s=1)
    later = replace(instance("1.1"), received_at=clock.now())
    assert ledger.accept(later, PLAN) is Receipt.NEW
    (again,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    assert again.instance.received_at == first.instance.received_at != later.received_at


def test_rows_go_when_their_time_is_over_and_nothing_is_owed(
    ledger: SqlLedger, clock: FakeClock, ledger_url: str
) -> None:
    receive(ledger, "1.1")
    finish(ledger)
    commit(ledger, "1.1")
    receive(ledger, "2.1", study="2")
    for task in ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9):
        ledger.defer(task, error="it cannot", at=None)
    clock.forward(100)
    assert ledger.forgetting.expire(retention_s=50) == 0, "the bytes are still here"
    assert len(ledger.free(retention_s=50)) == 2
    assert ledger.forgetting.expire(retention_s=50) == 0, "they were freed just now"
    clock.forward(51)
    receive(ledger, "3.1", study="3")
    assert ledger.forgetting.expire(retention_s=50) == 2
    assert ledger.forgetting.expire(retention_s=50) == 0
    assert ledger.queries.trace("1.1") == []
    assert ledger.queries.instance_status("2.1") is not None, "its delivery has failed"
    assert ledger.queries.instance_status("3.1") is not None
    left = rows(ledger_url)
    assert (left["forgotten"], left["instance"], left.get("commitment")) == (1, 2, None)


def test_no_byte_of_a_forgotten_patient_stays_in_the_files_of_sqlite(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "ledger.db"
    ledger = SqlLedger(f"sqlite:///{path}", clock=clock)

    def found() -> list[str]:
        return [p.name for p in tmp_path.iterdir() if any(v.encode() in p.read_bytes() for v in HEADER.values())]

    try:
        for number in range(50):
            receive(ledger, f"1.{number}")
        finish(ledger)
        assert found()
        forget(ledger)
        assert found() == []
    finally:
        ledger.close()
