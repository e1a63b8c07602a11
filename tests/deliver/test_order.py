"""Order within a series, when several workers of one lane have batches of it in hand at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from router.core.lifecycle import TaskKind
from router.core.ports import Delivered, Delivery
from router.core.retry import RetryPolicy
from router.deliver.step import DeliverStep
from router.deliver.turns import SeriesTurns
from router.errors import AssociationBroke, PeerBusy, PeerUnreachable
from router.ledger.store import SqlLedger
from router.work.clock import SystemClock
from router.work.worker import Lane, Worker
from tests.ledger.made import instance, plan
from tests.peers import wait_until

DEADLINE_S = 30


class SlowDestination:
    """Tells what is under way; an instance that a test holds stays under way until it lets it go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.taken: list[str] = []
        self.held: dict[str, threading.Event] = {}
        self.answers: dict[str, list[Exception]] = {}
        """SOP Instance UID -> what to answer at first."""
        self._lock = threading.Lock()

    def hold(self, uid: str) -> threading.Event:
        return self.held.setdefault(uid, threading.Event())

    def send(self, deliveries: Sequence[Delivery], settled: Callable[[int, Delivered | Exception], None]) -> None:
        for index, item in enumerate(deliveries):
            uid = item.instance.sop_instance_uid
            with self._lock:
                self.begun.append(uid)
            if uid in self.held:
                assert self.held[uid].wait(DEADLINE_S)
            answers = self.answers.get(uid)
            answer = answers.pop(0) if answers else Delivered()
            if isinstance(answer, Delivered):
                with self._lock:
                    self.taken.append(uid)
            settled(index, answer)
            if isinstance(answer, PeerUnreachable):
                for rest in range(index + 1, len(deliveries)):
                    settled(rest, PeerUnreachable("gone"))
                return

    def echo(self) -> None: ...
    def close(self) -> None: ...


class AnySpool:
    def path(self, spool_key: str) -> Path:
        return Path(spool_key)


class Rig:
    """A lane of two workers, batches of four."""

    def __init__(self, folder: Path) -> None:
        self.ledger = SqlLedger(f"sqlite:///{folder}/ledger.db")
        self.destination = SlowDestination()
        self.step = DeliverStep(
            name="pacs",
            destination=self.destination,
            ledger=self.ledger,
            spool=AnySpool(),  # type: ignore[arg-type]
            clock=SystemClock(),
            policy=RetryPolicy(first_s=0.02, cap_s=0.05),
            batch_max=4,
            probe_first_s=0.02,
            probe_cap_s=0.05,
        )
        lane = Lane(kind=TaskKind.DELIVER, target="pacs", step=self.step, gate=self.step)
        self.workers = [
            Worker(lane=lane, ledger=self.ledger, clock=SystemClock(), policy=RetryPolicy(), crash_wait_s=0.1)
            for _ in range(2)
        ]

    def accept(self, *uids: str) -> None:
        """`S.1` is instance 1 of series S."""
        for uid in uids:
            series, _, number = uid.partition(".")
            self.ledger.accept(instance(uid, series_instance_uid=f"1.{ord(series)}", data=number.encode()), plan())

    def start(self) -> None:
        for worker in self.workers:
            worker.start()

    def begun(self, series: str) -> list[str]:
        """Each once, when it was begun for the first time."""
        return list(dict.fromkeys(uid for uid in self.destination.begun if uid.startswith(series)))

    def done(self) -> bool:
        return not self.ledger.queries.owed()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    for event in rig.destination.held.values():
        event.set()
    for worker in rig.workers:
        worker.stop()
    for worker in rig.workers:
        assert worker.join(DEADLINE_S), "a worker waits for ever"
    rig.ledger.close()


def test_a_series_waits_for_its_earlier_instances_while_others_go_on(rig: Rig) -> None:
    first = rig.destination.hold("S.1")
    rig.accept("S.1", "S.2", "S.3", "S.4", "S.5", "T.1", "S.6", "T.2")
    rig.start()
    wait_until(lambda: {"S.1", "T.1", "T.2"} <= set(rig.destination.begun), DEADLINE_S, "the other series")
    assert rig.begun("S") == ["S.1"]
    first.set()
    wait_until(rig.done, DEADLINE_S)
    assert rig.begun("S") == [f"S.{n}" for n in range(1, 7)]
    assert rig.begun("T") == ["T.1", "T.2"]


def test_two_series_are_under_way_at_once(rig: Rig) -> None:
    """Turns are for a series, not for the lane."""
    rig.destination.hold("S.1"), rig.destination.hold("T.1")
    rig.accept("S.1", "S.2", "S.3", "S.4", "T.1", "T.2")
    rig.start()
    wait_until(lambda: set(rig.destination.begun) == {"S.1", "T.1"}, DEADLINE_S, "both")


def test_an_instance_that_is_to_be_tried_later_does_not_hold_up_the_rest_of_its_series(rig: Rig) -> None:
    rig.destination.answers["S.2"] = [PeerBusy("out of resources", status=0xA700)] * 4
    last = rig.destination.hold("S.8")
    rig.accept(*(f"S.{n}" for n in range(1, 9)))
    rig.start()
    wait_until(lambda: "S.8" in rig.destination.begun, DEADLINE_S, "the last one")
    assert [uid for uid in rig.begun("S") if uid != "S.2"] == [f"S.{n}" for n in (1, 3, 4, 5, 6, 7, 8)]
    last.set()
    wait_until(rig.done, DEADLINE_S)


def test_what_had_to_go_back_to_the_queue_still_goes_before_what_is_younger(rig: Rig) -> None:
    first = rig.destination.hold("S.1")
    rig.destination.answers["S.2"] = [AssociationBroke("closed")]
    rig.accept("S.1", "S.2", "S.3", "S.4", "S.5", "T.1", "S.6", "S.7", "S.8", "S.9")
    rig.start()
    wait_until(lambda: "T.1" in rig.destination.begun, DEADLINE_S, "the second worker has claimed")
    first.set()
    wait_until(rig.done, DEADLINE_S)
    assert [uid for uid in rig.begun("S") if uid != "S.2"] == [f"S.{n}" for n in (1, 3, 4, 5, 6, 7, 8, 9)]


def test_a_destination_that_comes_and_goes_gets_every_series_in_order(rig: Rig) -> None:
    draw = random.Random(7)
    names = [f"{series}.{n}" for n in range(1, 31) for series in "STU"]
    for name in draw.sample(names, 12):
        rig.destination.answers[name] = [PeerUnreachable("away")] * draw.randint(1, 3)
    rig.accept(*names)
    rig.start()
    wait_until(rig.done, DEADLINE_S)
    for series in "STU":
        assert [uid for uid in rig.destination.taken if uid.startswith(series)] == [
            n for n in names if n.startswith(series)
        ]


def test_only_one_worker_claims_at_a_time(rig: Rig) -> None:
    """Else a later claim could take its turn before an earlier one."""
    assert rig.step.enter(timeout_s=0) == 4
    entered: list[int] = []
    other = threading.Thread(target=lambda: entered.append(rig.step.enter(timeout_s=DEADLINE_S)))
    other.start()
    assert entered == []
    rig.step.leave()
    other.join(DEADLINE_S)
    assert entered == [4]


def test_batches_of_any_mixture_of_series_never_wait_for_each_other_in_a_circle() -> None:
    turns, draw = SeriesTurns(), random.Random(3)
    left: list[int] = []

    def work(number: int, series: list[str]) -> None:
        batch = turns.enter(series)
        rest = list(series)
        while rest:
            mine = turns.wait(batch)
            for one in [s for s in rest if s in mine]:
                turns.settled(batch, one)
            rest = [s for s in rest if s not in mine]
        turns.leave(batch)
        left.append(number)

    threads = [
        threading.Thread(target=work, args=(n, [draw.choice("ABCDE") for _ in range(8)]), daemon=True)
        for n in range(60)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(left) == list(range(60))
    assert turns._queues == {}
