"""Workers: claim, run, settle, sleep; and what they survive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from router.core.lifecycle import TaskKind, TaskState
from router.core.ports import Task
from router.core.retry import RetryPolicy
from router.ledger.store import SqlLedger
from router.work.clock import SystemClock
from router.work.worker import Lane, OpenGate, Worker
from tests.ledger.made import instance, plan
from tests.peers import wait_until


class Step:
    """Completes every task, or does what a test tells it."""

    def __init__(self, ledger: SqlLedger) -> None:
        self.ledger = ledger
        self.act: Callable[[Sequence[Task]], None] = lambda tasks: None
        self.run_count = 0
        self.done: list[str] = []

    def run(self, tasks: Sequence[Task]) -> None:
        self.run_count += 1
        self.act(tasks)
        for task in tasks:
            self.ledger.complete(task)
            self.done.append(task.instance.sop_instance_uid)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    ledger = SqlLedger(f"sqlite:///{tmp_path}/l.db")
    yield ledger
    ledger.close()


@pytest.fixture
def step(ledger: SqlLedger) -> Step:
    return Step(ledger)


@pytest.fixture
def start(ledger: SqlLedger, step: Step) -> Iterator[Callable[..., Worker]]:
    """Starts a worker of the lane, with `lease_s` and the like."""
    started: list[Worker] = []

    def start(*, lease_s: float = 60, limit: int = 8, policy: RetryPolicy | None = None, **more: float) -> Worker:
        lane = Lane(kind=TaskKind.DELIVER, target="pacs", step=step, gate=OpenGate(limit), lease_s=lease_s)
        worker = Worker(
            lane=lane, ledger=ledger, clock=SystemClock(), policy=policy or RetryPolicy(first_s=0.01), **more
        )
        started.append(worker)
        worker.start()
        return worker

    yield start
    for worker in started:
        worker.stop()
        assert worker.join(30)


def test_work_that_is_there_and_work_that_comes_is_done(
    ledger: SqlLedger, step: Step, start: Callable[..., Worker]
) -> None:
    ledger.accept(instance("1.1"), plan())
    start()
    wait_until(lambda: step.done == ["1.1"])
    ledger.accept(instance("1.2"), plan())
    wait_until(lambda: step.done == ["1.1", "1.2"])


def test_an_idle_worker_sleeps(ledger: SqlLedger, step: Step, start: Callable[..., Worker]) -> None:
    claims: list[int] = []
    real = ledger.claim

    def counted(*args: object, **more: object) -> list[Task]:
        claims.append(1)
        return real(*args, **more)  # type: ignore[arg-type]

    ledger.claim = counted  # type: ignore[method-assign]
    start()
    wait_until(lambda: claims)
    for _ in range(5):  # commits of other lanes are none of its business
        ledger.accept(instance(f"1.{len(claims)}.{_}"), plan(deliver=("other",)))
    assert len(claims) == 1


def test_a_programming_error_is_logged_its_tasks_are_tried_again_and_the_worker_goes_on(
    ledger: SqlLedger, step: Step, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("router.work.worker.emit", lambda name, **_: told.append(name))

    def crash(tasks: Sequence[Task]) -> None:
        step.act = lambda tasks: None
        raise KeyError("PatientName")

    step.act = crash
    ledger.accept(instance("1.1"), plan())
    start(crash_wait_s=0.01)
    wait_until(lambda: step.done == ["1.1"])
    assert told == ["task.deferred", "worker.crashed"]
    trail = ledger.queries.trace("1.1")
    assert [line.what for line in trail] == ["received", "deferred", "delivered"]
    assert "PatientName" not in trail[1].detail


def test_a_step_that_always_crashes_ends_as_failed_and_visible(
    ledger: SqlLedger, step: Step, start: Callable[..., Worker]
) -> None:
    def crash(tasks: Sequence[Task]) -> None:
        raise KeyError("x")

    step.act = crash
    ledger.accept(instance("1.1"), plan())
    start(crash_wait_s=0.001, policy=RetryPolicy(first_s=0.001, unexpected_attempts_max=3))
    wait_until(lambda: [t.state for t in ledger.queries.failed()] == [TaskState.FAILED])
    assert step.run_count == 3


def test_tasks_that_a_crashing_step_has_settled_stay_settled(
    ledger: SqlLedger, step: Step, start: Callable[..., Worker]
) -> None:
    def half(tasks: Sequence[Task]) -> None:
        if len(tasks) == 2:
            ledger.complete(tasks[0])
            raise KeyError("x")

    step.act = half
    for uid in ("1.1", "1.2"):
        ledger.accept(instance(uid), plan())
    start(crash_wait_s=0.01)
    wait_until(lambda: step.done == ["1.2"])
    assert [line.what for line in ledger.queries.trace("1.1")] == ["received", "delivered"]


def test_a_ledger_that_does_not_answer_is_no_hot_loop_and_no_end(
    ledger: SqlLedger, step: Step, start: Callable[..., Worker]
) -> None:
    real, calls = ledger.claim, []

    def away(*args: object, **more: object) -> list[Task]:
        calls.append(1)
        if len(calls) < 4:
            raise OSError("the database is away")
        return real(*args, **more)  # type: ignore[arg-type]

    ledger.claim = away  # type: ignore[method-assign]
    ledger.accept(instance("1.1"), plan())
    start(crash_wait_s=0.01)
    wait_until(lambda: step.done == ["1.1"])
    assert len(calls) >= 4


def test_leases_are_kept_while_a_slow_step_works(ledger: SqlLedger, step: Step, start: Callable[..., Worker]) -> None:
    renewed = threading.Event()
    real = ledger.renew

    def renew(tasks: Sequence[Task], *, lease_s: float) -> None:
        real(tasks, lease_s=lease_s)
        renewed.set()

    ledger.renew = renew  # type: ignore[method-assign]
    step.act = lambda tasks: [renewed.clear() or renewed.wait(20) for _ in range(3)]  # type: ignore[func-returns-value]
    ledger.accept(instance("1.1"), plan())
    start(lease_s=1.2)  # renewed every 0.4 s: three renewals are as long as a lease
    wait_until(lambda: step.done == ["1.1"], 30)
    assert [line.what for line in ledger.queries.trace("1.1")] == ["received", "delivered"]


def test_a_stopped_worker_finishes_what_it_is_at_and_claims_nothing_more(
    ledger: SqlLedger, step: Step, start: Callable[..., Worker]
) -> None:
    at_it, go = threading.Event(), threading.Event()

    def slow(tasks: Sequence[Task]) -> None:
        at_it.set()
        assert go.wait(30)

    step.act = slow
    for uid in ("1.1", "1.2"):
        ledger.accept(instance(uid), plan())
    worker = start(limit=1)
    assert at_it.wait(30)
    worker.stop()
    assert not worker.join(0.2)
    go.set()
    assert worker.join(30)
    assert step.done == ["1.1"]


def test_an_idle_worker_stops_at_once(start: Callable[..., Worker]) -> None:
    worker = start(idle_wait_s=3600)
    worker.stop()
    assert worker.join(10)
