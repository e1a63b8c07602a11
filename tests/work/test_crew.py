"""A classifier has one child while that is enough, and as many as cores when images wait; nobody waits for a start."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from router.errors import ChildNotReady
from router.work import crew as crew_module
from router.work.crew import Crew, child_count


class Child:
    """An analyst as far as a crew knows it."""

    def __init__(self, *, problem: str = "") -> None:
        self.batch_max = 1
        self.in_reserve = False
        self.starts = 0
        self.problem = problem
        self.note: Callable[[bool], None]

    def watched_by(self, watcher: Callable[[bool], None]) -> None:
        self.note = watcher

    def start(self) -> None:
        self.starts += 1
        if self.problem:
            raise ChildNotReady(self.problem)


def _crew(count: int, *, on_demand: bool = True) -> tuple[Crew, list[Child]]:
    children = [Child() for _ in range(count)]
    return Crew(children, on_demand=on_demand), children  # type: ignore[arg-type]


def test_the_first_child_claims_at_once_and_the_others_wait_until_it_has_too_much() -> None:
    crew, children = _crew(3)
    assert [child.in_reserve for child in children] == [False, True, True]
    assert [gate.enter(timeout_s=0.01) for gate in crew.gates] == [1, 0, 0]
    assert [child.starts for child in children] == [0, 0, 0]
    children[0].note(True)
    assert [gate.enter(timeout_s=0.01) for gate in crew.gates] == [1, 1, 0], "one at a time"
    assert [child.starts for child in children] == [0, 1, 0]
    children[1].note(True)
    assert crew.gates[2].enter(timeout_s=0.01) == 1


def test_a_child_that_came_stays() -> None:
    crew, children = _crew(2)
    children[0].note(True)
    assert crew.gates[1].enter(timeout_s=60) == 1
    children[0].note(False)
    assert crew.gates[1].enter(timeout_s=0.01) == 1
    assert children[1].starts == 1


def test_a_child_in_reserve_is_called_while_it_waits() -> None:
    crew, children = _crew(2)
    entered: list[int] = []
    thread = threading.Thread(target=lambda: entered.append(crew.gates[1].enter(timeout_s=60)))
    thread.start()
    children[0].note(True)
    thread.join(60)
    assert entered == [1]


def test_a_number_that_was_said_is_there_from_the_start() -> None:
    crew, children = _crew(2, on_demand=False)
    assert not any(child.in_reserve for child in children)
    assert [gate.enter(timeout_s=0.01) for gate in crew.gates] == [1, 1]


def test_the_second_worker_has_the_next_image_ready_and_no_further_one() -> None:
    crew, children = _crew(1)
    second = crew.seconds[0]
    assert second.enter(timeout_s=0.01) == 0, "the first can take it"
    children[0].note(True)
    assert second.enter(timeout_s=60) == 1
    children[0].note(True)
    assert second.enter(timeout_s=0.01) == 0
    children[0].note(False)
    assert second.enter(timeout_s=60) == 1


def test_the_second_worker_takes_nothing_that_an_idle_child_could_begin_at_once() -> None:
    crew, children = _crew(2, on_demand=False)
    children[0].note(True)
    assert crew.seconds[0].enter(timeout_s=0.01) == 0
    children[1].note(True)
    assert [gate.enter(timeout_s=60) for gate in crew.seconds] == [1, 1]


def test_a_child_in_reserve_is_not_started_by_its_second_worker() -> None:
    crew, children = _crew(2)
    children[0].note(True)
    assert crew.seconds[1].enter(timeout_s=0.01) == 0
    assert children[1].starts == 0


def test_what_a_child_computes_together_is_claimed_together() -> None:
    crew, children = _crew(1)
    children[0].batch_max = 16
    assert crew.gates[0].enter(timeout_s=60) == 16


def test_a_worker_that_ends_waits_for_nothing() -> None:
    crew, children = _crew(2)
    crew.gates[1].interrupt()
    assert crew.gates[1].enter(timeout_s=60) == 0
    children[0].note(True)
    assert crew.gates[1].enter(timeout_s=60) == 0
    assert children[1].starts == 0


def test_a_child_that_cannot_start_claims_nothing_and_may_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_PAUSE_S", 0.01)
    crew, children = _crew(2)
    children[1].problem = "no memory"
    children[0].note(True)
    assert crew.gates[1].enter(timeout_s=60) == 0
    children[1].problem = ""
    assert crew.gates[1].enter(timeout_s=60) == 1


def test_the_number_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**20}.__getitem__)  # 4 GiB
    assert child_count("auto") == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert child_count("auto") == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(256)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**28}.__getitem__)
    assert child_count("auto") == crew_module.COUNT_MAX
    assert child_count(5) == 5
