"""The deliver lane: real ledger, a destination that answers as it is told, time moved by hand."""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from router.core.lifecycle import TaskKind, TaskState
from router.core.ports import Delivered, Delivery, Task
from router.core.retry import RetryPolicy
from router.deliver.step import SUSPECT_ATTEMPTS, DeliverStep
from router.errors import (
    AssociationBroke,
    AssociationRejected,
    NoAcceptedContext,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
    SpoolDamaged,
)
from router.ledger.store import SqlLedger
from router.observe import log
from tests.ledger.made import FakeClock, instance, plan

BUSY = PeerBusy("PACS answered 0xA700: out of resources", status=0xA700)


class ToldDestination:
    """Answers by UID; everything else is delivered."""

    def __init__(self) -> None:
        self.answers: dict[str, Delivered | Exception] = {}
        self.down: Exception | None = None
        self.batches: list[list[str]] = []

    def send(self, deliveries: Sequence[Delivery], settled: Callable[[int, Delivered | Exception], None]) -> None:
        self.batches.append([d.instance.sop_instance_uid for d in deliveries])
        broke: Exception | None = self.down
        for index, item in enumerate(deliveries):
            if broke is not None:
                settled(index, PeerUnreachable(str(broke)) if isinstance(broke, AssociationBroke) else broke)
                continue
            answer = self.answers.get(item.instance.sop_instance_uid, Delivered())
            settled(index, answer)
            if isinstance(answer, AssociationBroke):
                broke = answer

    def echo(self) -> None: ...
    def close(self) -> None: ...


class AnySpool:
    """Every key has a file, unless told otherwise."""

    def __init__(self) -> None:
        self.gone: set[str] = set()

    def path(self, spool_key: str) -> Path:
        if spool_key in self.gone:
            raise SpoolDamaged(f"spool file {spool_key} is gone")
        return Path(spool_key)


class Lane:
    """A lane with everything around it, worked by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.ledger = SqlLedger(f"sqlite:///{folder}/ledger.db", clock=self.clock)
        self.destination = ToldDestination()
        self.spool = AnySpool()
        self.step = DeliverStep(
            name="pacs",
            destination=self.destination,
            ledger=self.ledger,
            spool=self.spool,  # type: ignore[arg-type]
            clock=self.clock,
            policy=RetryPolicy(first_s=1, cap_s=300),
            batch_max=32,
            probe_first_s=1,
            probe_cap_s=30,
            jitter=lambda: 1.0,
            monotonic=lambda: self.clock.now().timestamp(),
        )

    def accept(self, *uids: str) -> None:
        for uid in uids:
            self.ledger.accept(instance(uid), plan())

    def claim(self, limit: int = 32) -> list[Task]:
        return self.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=limit)

    def turn(self) -> int:
        """What a worker does once; how many it may claim."""
        limit = self.step.enter(timeout_s=0)
        try:
            if limit and (tasks := self.claim(limit)):
                self.step.run(tasks)
        finally:
            self.step.leave()
        return limit

    def states(self) -> dict[str, TaskState]:
        tasks = self.ledger.queries.owed() + self.ledger.queries.failed()
        return {task.sop_instance_uid: task.state for task in tasks}

    def error(self, uid: str) -> str:
        status = self.ledger.queries.instance_status(uid)
        assert status is not None
        return status.deliveries[0].error

    def attempts(self, uid: str) -> int:
        status = self.ledger.queries.instance_status(uid)
        assert status is not None
        return status.deliveries[0].attempts


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    lane = Lane(tmp_path)
    yield lane
    lane.ledger.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """Events that were logged, with their fields."""
    events: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr("router.deliver.step.emit", lambda name, **fields: events.append((name, fields)))
    return events


def test_what_arrives_is_settled(lane: Lane, told: list[tuple[str, dict[str, object]]]) -> None:
    lane.accept("1.1", "1.2")
    lane.destination.answers["1.2"] = Delivered(note="it coerced data elements (0xB000)")
    lane.turn()
    assert lane.states() == {}
    assert lane.ledger.queries.trace("1.2")[-1].detail == "it coerced data elements (0xB000)"
    assert [name for name, _ in told] == ["deliver.done", "deliver.done"]


def test_a_destination_that_is_down_costs_no_attempts_and_one_line_of_the_log(
    lane: Lane, told: list[tuple[str, dict[str, object]]]
) -> None:
    lane.accept(*(f"1.{n}" for n in range(40)))
    lane.destination.down = PeerUnreachable("nothing listens on pacs:104")
    assert lane.turn() == 32
    for _ in range(50):
        lane.clock.forward(31)
        assert lane.turn() == 1, "one probe"
    assert all(len(batch) == 1 for batch in lane.destination.batches[1:])
    assert set(lane.states().values()) == {TaskState.READY, TaskState.RETRY}
    assert lane.attempts("1.0") == 0
    assert lane.error("1.0") == "nothing listens on pacs:104"
    assert [name for name, _ in told] == ["destination.down"]
    health = lane.step.health()
    assert (health.up, health.reason) == (False, "nothing listens on pacs:104")


def test_nobody_claims_while_it_is_down(lane: Lane) -> None:
    lane.accept("1.1")
    lane.destination.down = PeerUnreachable("away")
    lane.turn()
    assert lane.turn() == 0
    lane.clock.forward(0.9)
    assert lane.turn() == 0
    lane.clock.forward(0.2)
    assert lane.turn() == 1


def test_when_it_is_back_everything_goes_in_the_order_it_came(
    lane: Lane, told: list[tuple[str, dict[str, object]]]
) -> None:
    lane.accept(*(f"1.{n}" for n in range(10)))
    lane.destination.down = PeerUnreachable("away")
    lane.turn()
    lane.accept(*(f"1.{n}" for n in range(10, 20)))
    for _ in range(7):
        lane.clock.forward(30)
        assert lane.turn() == 1
    lane.destination.down = None
    lane.destination.batches.clear()
    lane.clock.forward(30)
    assert [lane.turn(), lane.turn()] == [1, 32]
    assert [uid for batch in lane.destination.batches for uid in batch] == [f"1.{n}" for n in range(20)]
    assert lane.states() == {}
    assert [n for n, _ in told if n.startswith("destination")] == ["destination.down", "destination.up"]
    assert lane.step.health().up


def test_a_rejected_association_is_the_destinations_trouble_too(lane: Lane) -> None:
    lane.accept("1.1")
    lane.destination.down = AssociationRejected("PACS rejected the association")
    lane.turn()
    assert lane.attempts("1.1") == 0
    assert not lane.step.health().up


def test_a_permanent_error_is_parked_with_its_reason_and_the_others_go_on(
    lane: Lane, told: list[tuple[str, dict[str, object]]]
) -> None:
    lane.accept("1.1", "1.2", "1.3")
    refused = PeerRefused("PACS answered 0xC000: it cannot understand the data set", status=0xC000)
    refused.add_note("its comment: PatientName Doe^John")
    lane.destination.answers["1.1"] = refused
    lane.destination.answers["1.2"] = NoAcceptedContext("PACS does not take CT in JPEG 2000")
    lane.turn()
    assert lane.states() == {"1.1": TaskState.FAILED, "1.2": TaskState.FAILED}
    assert "Doe" in lane.error("1.1"), "the ledger keeps the peer's words"
    assert not any("Doe" in str(fields) for _, fields in told), "the log does not"
    assert sorted(name for name, _ in told) == ["deliver.done", "deliver.failed", "deliver.failed"]


def test_a_busy_peer_is_tried_again_later_and_later(lane: Lane) -> None:
    lane.accept("1.1")
    lane.destination.answers["1.1"] = BUSY
    for attempt, wait_s in enumerate((1, 2, 4, 8), start=1):
        lane.turn()
        assert lane.attempts("1.1") == attempt
        lane.clock.forward(wait_s - 0.01)
        assert lane.claim() == []
        lane.clock.forward(0.02)
    lane.destination.answers.clear()
    lane.turn()
    assert lane.states() == {}


def test_one_instance_that_is_always_refused_for_want_of_resources_while_others_pass_is_the_reason_itself(
    lane: Lane,
) -> None:
    lane.accept("1.bad")
    lane.destination.answers["1.bad"] = BUSY
    for number in range(SUSPECT_ATTEMPTS):
        lane.accept(f"1.{number}")
        lane.turn()
        lane.clock.forward(600)
    assert lane.states() == {"1.bad": TaskState.FAILED}
    assert "while other instances passed" in lane.error("1.bad")


def test_a_peer_that_refuses_everything_for_want_of_resources_is_waited_for_and_nothing_is_given_up(
    lane: Lane, told: list[tuple[str, dict[str, object]]]
) -> None:
    uids = [f"1.{n}" for n in range(20)]
    lane.accept(*uids)
    lane.destination.answers = dict.fromkeys(uids, BUSY)
    for _ in range(300):
        lane.turn()
        lane.clock.forward(60)
    assert set(lane.states().values()) == {TaskState.RETRY}
    assert "destination.down" in [name for name, _ in told]
    assert len(lane.destination.batches) <= 301, "it is not hammered"
    lane.destination.answers.clear()
    for _ in range(5):
        lane.turn()
        lane.clock.forward(300)
    assert lane.states() == {}


def test_the_instance_that_a_peer_dies_of_does_not_hold_up_the_others(lane: Lane) -> None:
    """It is always the oldest, so without a pause of its own it would always be the probe."""
    uids = ["1.poison", *(f"1.{n}" for n in range(5))]
    lane.accept(*uids)
    lane.destination.answers["1.poison"] = AssociationBroke("PACS closed the connection instead of an answer")
    seconds = 0
    while set(lane.states()) - {"1.poison"}:
        lane.turn()
        lane.clock.forward(1)
        seconds += 1
        assert seconds < 30, "the others wait"
    for number in range(5, 12):
        lane.accept(f"1.{number}")
        for _ in range(30):
            lane.turn()
            lane.clock.forward(20)
    assert lane.states() == {"1.poison": TaskState.FAILED}
    assert "while other instances passed" in lane.error("1.poison")


def test_a_peer_that_an_instance_kills_for_a_while_still_gets_the_others(lane: Lane) -> None:
    """It starts again each time; were the oldest always the probe, it would do nothing but start again."""
    lane.accept("1.poison")
    lane.destination.answers["1.poison"] = AssociationBroke("PACS closed the connection instead of an answer")
    lane.turn()
    lane.accept("1.1", "1.2", "1.3")
    up_again_at = lane.clock.now().timestamp() + 20
    for _ in range(120):
        before = len(lane.destination.batches)
        now = lane.clock.now().timestamp()
        lane.destination.down = PeerUnreachable("nothing listens") if now < up_again_at else None
        lane.turn()
        if lane.destination.down is None and any("1.poison" in batch for batch in lane.destination.batches[before:]):
            up_again_at = now + 20
        lane.clock.forward(1)
    assert set(lane.states()) == {"1.poison"}


def test_a_missing_spool_file_is_an_alarm_and_fails_only_its_own_delivery(
    lane: Lane, told: list[tuple[str, dict[str, object]]]
) -> None:
    lane.accept("1.1", "1.2")
    lane.spool.gone = {lane.ledger.queries.held()[0].spool_key}
    lane.turn()
    assert lane.states() == {"1.1": TaskState.FAILED}
    assert "spool.damaged" in [name for name, _ in told]


def test_an_unexpected_error_is_tried_a_few_times_and_its_text_is_not_repeated(
    lane: Lane, told: list[tuple[str, dict[str, object]]]
) -> None:
    lane.accept("1.1")
    lane.destination.answers["1.1"] = ValueError("PatientName Doe^John is odd")
    for _ in range(10):
        lane.turn()
        lane.clock.forward(600)
    assert lane.states() == {"1.1": TaskState.FAILED}
    assert lane.error("1.1") == "unexpected ValueError"
    assert not any("Doe" in str(fields) for _, fields in told)


def test_a_worker_that_comes_too_late_says_so_and_changes_nothing(
    lane: Lane, told: list[tuple[str, dict[str, object]]]
) -> None:
    lane.accept("1.1")
    late = lane.claim()
    lane.clock.forward(61)
    current = lane.claim()
    lane.step.run(late)
    assert [name for name, _ in told] == ["task.lease_lost"]
    lane.step.run(current)
    assert lane.states() == {}


def test_a_ledger_that_does_not_answer_does_not_stop_the_sending_but_is_not_swallowed(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane.accept("1.1", "1.2")

    def fails(done: object, **more: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as away:
        away.setattr(lane.ledger, "delivered", fails)
        with pytest.raises(OSError, match="disk full"):
            lane.step.run(lane.claim())
    assert lane.destination.batches == [["1.1", "1.2"]]
    assert lane.states() == {"1.1": TaskState.LEASED, "1.2": TaskState.LEASED}
    lane.clock.forward(61)
    lane.turn()
    assert lane.destination.batches[1:] == [["1.1", "1.2"]], "sent again, not lost"
    assert lane.states() == {}


def test_what_is_delivered_one_after_the_other_is_settled_in_one_transaction(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.deliver.settling.GATHER_S", 60)
    groups: list[int] = []
    real = lane.ledger.delivered

    def delivered(done: Sequence[tuple[Task, str]], **more: Any) -> list[Task]:
        groups.append(len(done))
        return real(done, **more)

    monkeypatch.setattr(lane.ledger, "delivered", delivered)
    lane.accept(*(f"1.{number}" for number in range(5)))
    lane.destination.answers["1.2"] = PeerRefused("PACS answered 0x0122", status=0x0122)
    lane.turn()
    assert groups == [4]
    assert lane.states() == {"1.2": TaskState.FAILED}


def test_of_several_that_are_settled_together_one_may_be_somebody_elses(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, dict[str, object]]]
) -> None:
    monkeypatch.setattr("router.deliver.settling.GATHER_S", 60)
    lane.accept("1.1", "1.2")
    tasks = lane.claim()
    lane.ledger.defer(tasks[0], error="taken over", at=lane.clock.now())
    lane.claim()
    lane.step.run(tasks)
    assert [
        (name, fields["task_id" if name == "task.lease_lost" else "sop_instance_uid"]) for name, fields in told
    ] == [
        ("task.lease_lost", tasks[0].task_id),
        ("deliver.done", "1.2"),
    ]
    assert lane.states() == {"1.1": TaskState.LEASED}


def test_whoever_waits_at_the_gate_goes_on_as_soon_as_the_destination_is_back(lane: Lane) -> None:
    lane.accept("1.1")
    lane.destination.down = PeerUnreachable("away")
    lane.turn()
    limits: list[int] = []
    waiting = threading.Thread(target=lambda: limits.append(lane.step.enter(timeout_s=60)))
    waiting.start()
    lane.destination.down = None
    lane.step.run(lane.claim())
    waiting.join(10)
    assert limits == [32]


def test_waiting_at_the_gate_can_be_called_off(lane: Lane) -> None:
    lane.accept("1.1")
    lane.destination.down = PeerUnreachable("away")
    lane.turn()
    limits: deque[int] = deque()
    waiting = threading.Thread(target=lambda: limits.append(lane.step.enter(timeout_s=60)))
    waiting.start()
    for _ in range(200):
        lane.step.interrupt()
        waiting.join(0.05)
        if not waiting.is_alive():
            break
    assert list(limits) == [0]


def test_every_event_of_the_lane_is_in_the_table_and_is_a_line_of_json(
    lane: Lane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_sink", None)
    log.configure(stream=sys.stderr)
    lane.accept("1.1", "1.2", "1.3")
    lane.destination.answers = {"1.1": BUSY, "1.2": PeerRefused("no", status=0xC000)}
    lane.turn()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["deliver.deferred", "deliver.failed", "deliver.done"]
