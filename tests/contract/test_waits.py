"""A clock that was set back must not make tasks wait for the hours that it was wrong by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from router.core.lifecycle import TaskKind, TaskState
from router.ledger.queries import TaskStatus
from router.ledger.store import SqlLedger
from router.node import build_node
from router.settings import parse
from tests.ledger.made import START, FakeClock, instance, plan
from tests.peers import free_port

DELIVER, CLASSIFY = TaskKind.DELIVER, TaskKind.CLASSIFY


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(ledger_url: str, clock: FakeClock) -> Iterator[SqlLedger]:
    with closing(SqlLedger(ledger_url, clock=clock)) as ledger:
        yield ledger


def wait_until(ledger: SqlLedger, at: datetime, *, kind: TaskKind = DELIVER, target: str = "pacs") -> None:
    (task,) = ledger.claim(kind, target, lease_s=60, limit=1)
    ledger.defer(task, error="the PACS is down", at=at)


def waiting(ledger: SqlLedger) -> dict[tuple[str, str], TaskStatus]:
    return {(task.target, task.sop_instance_uid): task for task in ledger.queries.owed()}


def test_what_waits_longer_than_its_lane_ever_does_is_brought_forward_and_nothing_else(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    ledger.accept(instance("1.0"), plan())
    wait_until(ledger, clock.now() + timedelta(days=1))
    clock.forward(86_400)
    ledger.complete(ledger.claim(DELIVER, "pacs", lease_s=60, limit=1)[0])
    clock.forward(-86_400)  # set right: what is done keeps a time that is still to come
    for uid, wait_s in (("1.1", 86_400), ("1.2", 100)):
        ledger.accept(instance(uid), plan())
        wait_until(ledger, clock.now() + timedelta(seconds=wait_s))
    ledger.accept(instance("1.3"), plan(deliver=("slow",)))
    wait_until(ledger, clock.now() + timedelta(days=1), target="slow")
    ledger.accept(instance("1.4"), plan(classify=("cxr",), deliver=()))
    wait_until(ledger, clock.now() + timedelta(days=1), kind=CLASSIFY, target="cxr")
    ledger.accept(instance("1.5"), plan())
    wait_until(ledger, clock.now() + timedelta(days=2))
    (failed,) = [task.task_id for task in ledger.queries.owed() if task.sop_instance_uid == "1.5"]
    ledger.requeue([failed])
    before = waiting(ledger)

    longest = {(DELIVER, "pacs"): 300.0, (DELIVER, "slow"): 90_000.0, (CLASSIFY, "cxr"): 300.0, (CLASSIFY, "x"): 1.0}
    assert ledger.bring_forward(longest) == 2
    after = waiting(ledger)
    latest = START + timedelta(seconds=300)
    moved = {key for key in before if before[key] != after[key]}
    assert moved == {("pacs", "1.1"), ("cxr", "1.4")}
    assert {after[key].not_before for key in moved} == {latest}
    assert {(after[key].state, after[key].attempts, after[key].error) for key in moved} == {
        (TaskState.RETRY, 1, "the PACS is down")
    }
    assert ledger.bring_forward(longest) == 0, "once is enough"
    clock.forward(300)
    assert {t.uid for t in ledger.claim(DELIVER, "pacs", lease_s=60, limit=9)} == {"1.1", "1.2", "1.5"}


def test_a_node_that_starts_waits_for_no_hour_that_does_not_come(ledger_url: str, tmp_path: Path) -> None:
    with closing(SqlLedger(ledger_url)) as ledger:
        ledger.accept(instance("1.1"), plan(classify=("cxr",)))
        far = datetime.now(UTC) + timedelta(days=30)
        wait_until(ledger, far)
        wait_until(ledger, far, kind=CLASSIFY, target="cxr")
    settings = parse(
        {
            "node": {"host": "127.0.0.1", "port": free_port()},
            "web": {"port": free_port()},
            "spool": {"path": str(tmp_path / "spool")},
            "audit": {"folder": str(tmp_path / "audit")},
            "ledger": {"url": ledger_url},
            "classifiers": {"cxr": {"type": "demo"}},
            "destinations": {
                "pacs": {"type": "dicom", "ae_title": "PACS", "host": "127.0.0.1", "port": 104, "retry_cap_s": 900}
            },
        }
    )
    began = datetime.now(UTC)
    node = build_node(settings)
    try:
        tasks = node.ledger.queries.owed()
    finally:
        node.stop()
    caps = {DELIVER: 900, CLASSIFY: 300}
    for task in tasks:
        assert task.not_before is not None
        # Not shorter than the lane's cap either: the destination is not asked sooner than it would be.
        wait_s = (task.not_before - began).total_seconds()
        assert caps[task.kind] <= wait_s <= caps[task.kind] + 120
    assert len(tasks) == 2
