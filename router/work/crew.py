"""The children of one classifier: the first is always there, the others come when all who are there are busy.

So a node with one image now and then has one process of 200 MB, and one with a queue has a process for each core. Each child has
two workers: while one spools and settles what the child has answered, the other gives it the next image.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Literal

from router.errors import ChildNotReady
from router.work.analyst import ChildAnalyst

#: After a child that could not be started: its keeper has a back-off of its own, this one only keeps the log short.
_PAUSE_S = 5.0
#: More than reception can feed.
COUNT_MAX = 16


def child_count(processes: int | Literal["auto"]) -> int:
    """How many children a classifier may have; for "auto" one for each core that may be used, as far as memory goes."""
    if processes != "auto":
        return processes
    # What this process may use, which in a container or under taskset is less than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return max(1, min(cores, memory_gib, COUNT_MAX))


class Crew:
    """Gates for the workers of one classifier: for each of `analysts` one, and one for its second worker."""

    def __init__(self, analysts: Sequence[ChildAnalyst], *, on_demand: bool) -> None:
        """`on_demand`: all but the first wait until they are needed."""
        self._changed = threading.Condition()
        self._there = {0} if on_demand else set(range(len(analysts)))
        self.gates = [CrewGate(self, number, analyst) for number, analyst in enumerate(analysts)]
        self.seconds = [CrewGate(self, number, analyst, second=True) for number, analyst in enumerate(analysts)]
        self._asked = [0] * len(analysts)
        """How many wait for an answer of each child."""
        for number, analyst in enumerate(analysts):
            analyst.watched_by(partial(self.note, number))
            analyst.in_reserve = number not in self._there

    def note(self, number: int, at_work: bool) -> None:
        """A child got an image, or has answered."""
        with self._changed:
            self._asked[number] += 1 if at_work else -1
            self._changed.notify_all()

    def needed(self, gate: CrewGate, timeout_s: float) -> bool:
        """True once this one is there, or should come because the others are all busy."""
        with self._changed:
            self._changed.wait_for(lambda: gate.closed or self._wanted(gate), timeout_s)
            return not gate.closed and self._wanted(gate)

    def joined(self, number: int) -> None:
        """Its child is ready."""
        with self._changed:
            self._there.add(number)
            self._changed.notify_all()

    def pause(self, gate: CrewGate) -> None:
        """After a child that could not be started."""
        with self._changed:
            self._changed.wait_for(lambda: gate.closed, _PAUSE_S)

    def close(self, gate: CrewGate) -> None:
        """Ends every wait of this gate, now and later."""
        with self._changed:
            gate.closed = True
            self._changed.notify_all()

    def _wanted(self, gate: CrewGate) -> bool:
        busy = all(self._asked[number] for number in self._there)
        if gate.second:  # not while a child is idle that could begin at once; nor a third image for this one
            return gate.number in self._there and busy and self._asked[gate.number] == 1
        # One at a time: the next in line comes when all before it are at work.
        return gate.number in self._there or (gate.number == len(self._there) and busy)

    def is_there(self, number: int) -> bool:
        """True when it has begun to work."""
        return number in self._there


class CrewGate:
    """`work.worker.Gate` of one worker."""

    def __init__(self, crew: Crew, number: int, analyst: ChildAnalyst, *, second: bool = False) -> None:
        self.number = number
        self.second = second
        self.closed = False
        self._crew = crew
        self._analyst = analyst

    def enter(self, *, timeout_s: float) -> int:
        """How many images may be claimed: those that the child computes together. 0 while it is not needed."""
        if not self._crew.needed(self, timeout_s):
            return 0
        if not self._crew.is_there(self.number):
            # It starts before it claims: no image waits for a start while others are at work.
            try:
                self._analyst.start()
            except ChildNotReady:
                self._crew.pause(self)
                return 0
            self._crew.joined(self.number)
        return self._analyst.batch_max

    def leave(self) -> None:
        """Nothing is held."""

    def interrupt(self) -> None:
        """The worker is about to end."""
        self._crew.close(self)
