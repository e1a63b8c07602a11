"""A worker: claims tasks of one lane, runs the step on them, sleeps when there are none. One thread each."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from router.core.lifecycle import TaskKind
from router.core.ports import Claimed, Clock, Step
from router.core.retry import RetryPolicy
from router.errors import LeaseLost
from router.observe.log import emit
from router.work.keeper import LeaseKeeper

#: A wake-up that got lost costs this much at most.
IDLE_WAIT_S = 30.0
#: After a programming error or a ledger that does not answer: no hot loop.
CRASH_WAIT_S = 5.0


class Books(Protocol):
    """The ledger as far as a worker goes (`SqlLedger`, or its `OwnLane`)."""

    def claim(self, kind: TaskKind, target: str, *, lease_s: float, limit: int) -> Sequence[Claimed]: ...
    def defer(self, task: Any, *, error: str, at: datetime | None) -> None: ...
    def renew(self, tasks: Sequence[Any], *, lease_s: float) -> None: ...
    def wait(self, kind: TaskKind, target: str, *, timeout_s: float) -> None: ...
    def wake(self, kind: TaskKind, target: str) -> None: ...


class Gate(Protocol):
    """Decides when a lane's workers may claim, and how much."""

    def enter(self, *, timeout_s: float) -> int:
        """How many tasks may be claimed now; 0 when the time is over. `leave` must follow in the same thread."""
        ...

    def leave(self) -> None: ...

    def interrupt(self) -> None:
        """Ends every `enter` that waits."""
        ...


class OpenGate:
    """Always open, for batches of `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def enter(self, *, timeout_s: float) -> int:
        return self._limit

    def leave(self) -> None:
        pass

    def interrupt(self) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What a worker works on."""

    kind: TaskKind
    target: str
    step: Step
    gate: Gate
    lease_s: float = 60.0
    """Renewed while the step runs; so a dead process holds its tasks up this long at most."""


class Worker:
    """One thread: claim -> run -> settle, until `stop`."""

    def __init__(
        self,
        *,
        lane: Lane,
        ledger: Books,
        clock: Clock,
        policy: RetryPolicy,
        idle_wait_s: float = IDLE_WAIT_S,
        crash_wait_s: float = CRASH_WAIT_S,
    ) -> None:
        """`policy` settles the tasks of a step that met a programming error."""
        self.lane = lane
        self._ledger = ledger
        self._clock = clock
        self._policy = policy
        self._idle_wait_s = idle_wait_s
        self._crash_wait_s = crash_wait_s
        self._stopping = threading.Event()
        self._leases = LeaseKeeper(lambda tasks: ledger.renew(tasks, lease_s=lane.lease_s), every_s=lane.lease_s / 3)
        self._thread = threading.Thread(target=self._run, name=f"{lane.kind}-{lane.target}", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def stop(self) -> None:
        """Claims nothing more; what is being worked on is finished. Returns at once: `join` waits."""
        self._stopping.set()
        self._nudge()

    def join(self, timeout_s: float) -> bool:
        """True when the thread has ended within the time."""
        left_s = timeout_s
        while self._thread.is_alive() and left_s > 0:
            self._nudge()  # again and again: it may have been between looking and sleeping
            self._thread.join(min(0.1, left_s))
            left_s -= 0.1
        return not self._thread.is_alive()

    def run_once(self) -> int:
        """Claims once and runs the step; returns how many tasks that were. Raises what the step raised."""
        try:
            limit = self.lane.gate.enter(timeout_s=self._idle_wait_s)
            if not limit or self._stopping.is_set():
                return 0
            tasks = self._ledger.claim(self.lane.kind, self.lane.target, lease_s=self.lane.lease_s, limit=limit)
            if tasks:
                with self._leases.keeping(tasks):
                    self._work(tasks)
            return len(tasks)
        finally:
            self.lane.gate.leave()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self.run_once() and not self._stopping.is_set():
                    self._ledger.wait(self.lane.kind, self.lane.target, timeout_s=self._idle_wait_s)
            except Exception as error:  # noqa: BLE001 - whatever it was, the node goes on
                emit(
                    "worker.crashed",
                    level=logging.ERROR,
                    exc_info=error,
                    kind=self.lane.kind,
                    target=self.lane.target,
                )
                self._stopping.wait(self._crash_wait_s)
        self._leases.close()

    def _work(self, tasks: Sequence[Claimed]) -> None:
        try:
            self.lane.step.run(tasks)
        except Exception as error:
            for task in tasks:
                self._give_back(task, error)
            raise

    def _give_back(self, task: Claimed, error: Exception) -> None:
        """Those that the step has settled raise LeaseLost here."""
        now = self._clock.now()
        at = self._policy.next_attempt_at(now=now, attempts=task.attempts, error=error, jitter=random.random())  # noqa: S311
        with contextlib.suppress(LeaseLost):
            # The type only: the text of somebody else's exception may quote an element's value.
            self._ledger.defer(task, error=f"unexpected {type(error).__name__}; see worker.crashed in the log", at=at)
            emit(
                "task.deferred" if at is not None else "task.failed",
                level=logging.WARNING if at is not None else logging.ERROR,
                task_id=task.task_id,
                kind=task.kind,
                target=task.target,
                uid=task.uid,
                reason=f"unexpected {type(error).__name__}",
            )

    def _nudge(self) -> None:
        self.lane.gate.interrupt()
        self._ledger.wake(self.lane.kind, self.lane.target)
