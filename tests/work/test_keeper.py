"""Leases of what is at work are renewed, by one thread that is there only while there is work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

import pytest

from router.core.lifecycle import TaskKind
from router.core.ports import Claimed
from router.work.keeper import LeaseKeeper
from tests.peers import wait_until

FIRST, SECOND = [[Claimed(task_id=number, kind=TaskKind.DELIVER, target="pacs", attempts=1)] for number in (1, 2)]


class Renewals:
    """What was renewed, in order."""

    def __init__(self) -> None:
        self.seen: SimpleQueue[Sequence[Claimed]] = SimpleQueue()
        self.fails = False

    def __call__(self, tasks: Sequence[Claimed]) -> None:
        self.seen.put(tasks)
        if self.fails:
            raise RuntimeError("the ledger is away")

    def next(self) -> Sequence[Claimed]:
        return self.seen.get(timeout=60)


def keepers() -> int:
    return sum(thread.name == "lease-keeper" for thread in threading.enumerate())


def test_what_is_held_is_renewed_again_and_again_also_when_the_ledger_was_away() -> None:
    renewals = Renewals()
    renewals.fails = True
    keeper = LeaseKeeper(renewals, every_s=0.01)
    with keeper.keeping(FIRST):
        assert [renewals.next(), renewals.next(), renewals.next()] == [FIRST] * 3
    wait_until(lambda: keepers() == 0, 60)
    while not renewals.seen.empty():
        assert renewals.next() == FIRST
    with keeper.keeping(SECOND):
        assert renewals.next() == SECOND
    keeper.close()


def test_one_thread_serves_many_claims() -> None:
    keeper = LeaseKeeper(Renewals(), every_s=3600)
    for _ in range(20):
        with keeper.keeping(FIRST):
            assert keepers() == 1
    keeper.close()
    wait_until(lambda: keepers() == 0, 60)


def test_a_closed_keeper_waits_for_nothing() -> None:
    keeper = LeaseKeeper(Renewals(), every_s=3600)
    with keeper.keeping(FIRST):
        pass
    keeper.close()
    wait_until(lambda: keepers() == 0, 60)


def test_leases_are_renewed_again_after_there_could_be_no_thread_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    renewals = Renewals()
    keeper = LeaseKeeper(renewals, every_s=0.01)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError), keeper.keeping(FIRST):
            raise AssertionError("it would be worked on without its lease being kept")
    with keeper.keeping(SECOND):
        assert renewals.next() == SECOND
    keeper.close()
