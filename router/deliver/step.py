"""The deliver lane of one destination: what is claimed is sent, and every outcome is settled in the ledger at once.

What was delivered is settled beside the sending, many in one transaction where they come fast: see `deliver.settling`. A
crash before that transaction means that the instance is sent again, never that it is lost.

All workers of a lane share one `DeliverStep`, which is also their gate: while the destination is down nobody claims but
one probe, so that a dead destination costs no attempts, no log lines and no work.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pydicom.uid import UID

from router.core.instance import InstanceKind
from router.core.ports import (
    Clock,
    Delivered,
    Delivery,
    Destination,
    FileMark,
    Ledger,
    ResultObject,
    Spool,
    Task,
)
from router.core.retry import RetryPolicy
from router.deliver.breaker import Breaker, BreakerState
from router.deliver.settling import Settling
from router.deliver.turns import Batch, SeriesTurns
from router.dimse import status
from router.errors import (
    AssociationBroke,
    AssociationRejected,
    LeaseLost,
    NoAcceptedContext,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
    PermanentError,
    RouterError,
    SpoolDamaged,
    TransientError,
)
from router.faults import fault_point
from router.observe.log import emit
from router.spool.results import spooled

#: An instance that fails this often while others pass is itself the reason (Orthanc answers 0xA700 to one without PatientID).
SUSPECT_ATTEMPTS = 5
#: So many refusals for want of resources in a row, and the destination is left alone for a while.
BUSY_RUN_MAX = 3


class _OlderFirst(TransientError):
    """Not tried: an older instance of its series went back to the queue."""


#: What gives an instance back as if it had not been tried, to go before all that is younger.
_BEFORE_OTHERS = (PeerUnreachable, AssociationRejected, _OlderFirst)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneHealth:
    """For pages and people."""

    up: bool
    since: datetime | None
    """When it went down; None while it is up."""
    reason: str
    breaker: str
    """A `deliver.breaker.BreakerState`."""
    answered: bool
    """The last that was heard of it was an answer; False: it is down, or was not asked since the start."""


class DeliverStep:
    """`core.ports.Step` for TaskKind.DELIVER and one destination. Any number of worker threads may share it."""

    def __init__(
        self,
        *,
        name: str,
        destination: Destination,
        ledger: Ledger,
        spool: Spool,
        clock: Clock,
        policy: RetryPolicy,
        batch_max: int = 32,
        probe_first_s: float = 1.0,
        probe_cap_s: float = 30.0,
        commit: bool = False,
        variant: Callable[[bytes], ResultObject | None] | None = None,
        received_as: Callable[[str], FileMark | None] = lambda _: None,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`commit`: what is delivered owes a `deliver.commit.CommitStep`.

        `variant` makes of a result object the same in another SOP class; None or ValueError: there is none.
        `received_as`: what the file of a spool key looked like when it had just been received, if that is known.
        """
        self.name = name
        self._destination = destination
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._policy = policy
        self._batch_max = batch_max
        self._commit = commit
        self._variant = variant
        self._received_as = received_as
        self._jitter = jitter
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._breaker = Breaker(first_s=min(probe_first_s, probe_cap_s), cap_s=probe_cap_s)
        self._turns = SeriesTurns()
        self._claiming: int | None = None
        """The worker that is between `enter` and `run`: one at a time, so that batches enter `turns` as they were claimed."""
        self._probe: int | None = None
        self._down_since: datetime | None = None
        self._heard_of = False
        self._reason = ""
        self._interrupts = 0
        self._busy_run = 0
        self._passed_count = 0
        self._passed_at_failure: dict[int, int] = {}

    # ---- the gate (work.worker.Gate)

    def enter(self, *, timeout_s: float) -> int:
        """How many tasks the caller may claim: a batch, one as the probe, or 0 when the time is over. `leave` must follow."""
        end = time.monotonic() + timeout_s
        with self._changed:
            interrupts = self._interrupts
            while True:
                now = self._monotonic()
                if self._claiming is None and self._breaker.may_try(now):
                    self._claiming = threading.get_ident()
                    self._turns.expect()
                    if self._breaker.state is BreakerState.PROBING:
                        self._probe = threading.get_ident()
                        return 1
                    return self._batch_max
                left_s = end - time.monotonic()
                if left_s <= 0 or self._interrupts != interrupts:
                    return 0
                open_s = self._breaker.retry_at - now if self._breaker.state is BreakerState.OPEN else left_s
                self._changed.wait(max(0.001, min(left_s, open_s)))

    def leave(self) -> None:
        """The caller has settled what it claimed, or found nothing to claim."""
        with self._changed:
            if self._probe == threading.get_ident():
                self._probe = None
                self._breaker.unresolved(self._monotonic())
                self._changed.notify_all()
        self._end_claim()

    def _end_claim(self) -> None:
        with self._changed:
            if self._claiming == threading.get_ident():
                self._claiming = None
                self._changed.notify_all()

    def interrupt(self) -> None:
        """Ends every `enter` that waits."""
        with self._changed:
            self._interrupts += 1
            self._changed.notify_all()

    def health(self) -> LaneHealth:
        """How the destination stands."""
        with self._changed:
            return LaneHealth(
                up=self._down_since is None,
                since=self._down_since,
                reason=self._reason,
                breaker=self._breaker.state.value,
                answered=self._heard_of and self._down_since is None,
            )

    # ---- core.ports.Step

    def run(self, tasks: Sequence[Task]) -> None:
        """Sends all of them on as few associations as possible and settles each as soon as its answer is known.

        A series waits until what was claimed of it before is settled, whoever has that; the others go first then.
        """
        fault_point("deliver.claimed")
        failures: list[Exception] = []
        batch = self._turns.enter([task.instance.series_instance_uid for task in tasks])
        self._end_claim()
        try:
            rest = list(tasks)
            while rest:
                series = self._turns.wait(batch)
                self._send([task for task in rest if task.instance.series_instance_uid in series], batch, failures)
                self._turns.over(batch, series)
                rest = [task for task in rest if task.instance.series_instance_uid not in series]
        finally:
            self._turns.leave(batch)
        if failures:
            raise failures[0]

    def _send(self, tasks: Sequence[Task], batch: Batch, failures: list[Exception]) -> None:
        ready: list[Task] = []
        deliveries: list[Delivery] = []
        settling = Settling(partial(self._delivered, failures=failures))
        open_count = len(tasks)

        def settle(task: Task, outcome: Delivered | Exception) -> None:
            nonlocal open_count
            open_count -= 1
            series = task.instance.series_instance_uid
            if isinstance(outcome, Delivered):
                self._answered()
                self._passed(task)
                # The destination has it: what follows in its series may go, whenever the ledger hears of this one.
                self._turns.settled(batch, series)
                settling.add((task, outcome.note), last=not open_count)
                return
            try:
                self._settle(task, outcome)
            except LeaseLost:
                _tell_lost(task)
            except Exception as error:  # noqa: BLE001 - a destination must go on; raised again below
                failures.append(error)
            finally:
                if isinstance(outcome, _BEFORE_OTHERS) and not isinstance(outcome, AssociationBroke):
                    self._turns.gave_back(batch, series, task.task_id)
                self._turns.settled(batch, series)

        for task in tasks:
            if not self._turns.may_go(batch, task.instance.series_instance_uid, task.task_id):
                settle(task, _OlderFirst(self.health().reason or "the destination did not answer"))
                continue
            try:
                key = task.instance.spool_key
                path, mark = self._spool.path(key), self._received_as(key)
            except SpoolDamaged as error:
                settle(task, error)
            else:
                ready.append(task)
                deliveries.append(Delivery(instance=task.instance, path=path, received_as=mark))
        try:
            if deliveries:
                self._destination.send(deliveries, lambda index, outcome: settle(ready[index], outcome))
        finally:
            settling.finish()

    def _delivered(self, done: Sequence[tuple[Task, str]], *, failures: list[Exception]) -> None:
        try:
            lost = self._ledger.delivered(done, commit=self._commit)
        except Exception as error:  # noqa: BLE001 - raised by `run`; they are sent again
            failures.append(error)
            return
        lost_ids = {task.task_id for task in lost}
        for task, note in done:
            if task.task_id in lost_ids:
                _tell_lost(task)
            else:
                self._tell("deliver.done", task, note=note)

    def _settle(self, task: Task, outcome: Exception) -> None:
        match outcome:
            case _OlderFirst():
                self._give_back(task, outcome)
            case AssociationBroke():
                self._went_down(outcome, lengthens=False)
                self._try_again(task, outcome, at_least_s=2 * self._breaker.cap_s if task.attempts > 1 else 0)
            case PeerUnreachable() | AssociationRejected():
                self._went_down(outcome)
                self._give_back(task, outcome)
            case PeerBusy():
                self._refused_for_want_of_resources(outcome)
                self._try_again(task, outcome)
            case SpoolDamaged():
                emit(
                    "spool.damaged",
                    level=logging.ERROR,
                    sop_instance_uid=task.instance.sop_instance_uid,
                    reason=str(outcome),
                )
                self._fail(task, outcome)
            case NoAcceptedContext() | PeerRefused(status=status.SOP_CLASS_NOT_SUPPORTED) if instead := self._instead(
                task
            ):
                self._answered()
                self._replace(task, instead, outcome)
            case PermanentError():
                if isinstance(outcome, PeerRefused | NoAcceptedContext):
                    self._answered()
                self._fail(task, outcome)
            case _:
                self._try_again(task, outcome)

    def _instead(self, task: Task) -> ResultObject | None:
        """What to deliver when the destination does not take the SOP class of a result object of ours."""
        if self._variant is None or task.instance.kind not in (InstanceKind.SR, InstanceKind.SUMMARY):
            return None
        try:
            instead = self._variant(self._spool.path(task.instance.spool_key).read_bytes())
        except ValueError:
            return None
        return replace(instead, kind=task.instance.kind) if instead else None

    def _replace(self, task: Task, instead: ResultObject, refusal: Exception) -> None:
        produced = spooled(self._spool, instead, at=self._clock.now(), destinations=(self.name,))
        instance = produced.instance
        note = f"{_text(refusal)}; sent as {UID(instance.sop_class_uid).name} instead"
        try:
            self._ledger.complete(task, note=note, produced=[produced])
        except LeaseLost:
            self._spool.delete(instance.spool_key)
            raise
        self._tell("deliver.replaced", task, reason=_reason(refusal), instead=instance.sop_instance_uid)

    def _give_back(self, task: Task, error: Exception) -> None:
        # Due since it came, so that the queue keeps the order of receipt however many outages there are.
        self._ledger.release(task, at=task.instance.received_at, reason=str(error))

    def _try_again(self, task: Task, error: Exception, *, at_least_s: float = 0) -> None:
        if self._suspect(task, error):
            verdict = PermanentError(
                f"{_text(error)}; this happened {task.attempts} times while other instances passed:"
                " something in this instance must be the reason"
            )
            self._fail(task, verdict)
            return
        now = self._clock.now()
        at = self._policy.next_attempt_at(now=now, attempts=task.attempts, error=error, jitter=self._jitter())
        if at is None:
            self._fail(task, error)
            return
        at = max(at, now + timedelta(seconds=at_least_s))
        self._ledger.defer(task, error=_text(error), at=at)
        self._tell(
            "deliver.deferred", task, level=logging.WARNING, reason=_reason(error), next_attempt_at=at.isoformat()
        )

    def _fail(self, task: Task, error: Exception) -> None:
        with self._changed:
            self._passed_at_failure.pop(task.task_id, None)
        self._ledger.defer(task, error=_text(error), at=None)
        self._tell("deliver.failed", task, level=logging.ERROR, reason=_reason(error))

    def _tell(self, event: str, task: Task, *, level: int = logging.INFO, **fields: Any) -> None:
        emit(
            event,
            level=level,
            destination=self.name,
            sop_instance_uid=task.instance.sop_instance_uid,
            instance_kind=task.instance.kind,
            attempt=task.attempts,
            **fields,
        )

    # ---- what the outcomes say about the destination

    def _suspect(self, task: Task, error: Exception) -> bool:
        """True when this instance keeps failing while others pass."""
        if not isinstance(error, PeerBusy | AssociationBroke):
            return False
        with self._changed:
            others_passed = self._passed_count > self._passed_at_failure.get(task.task_id, self._passed_count)
            self._passed_at_failure[task.task_id] = self._passed_count
        return task.attempts >= SUSPECT_ATTEMPTS and others_passed

    def _passed(self, task: Task) -> None:
        with self._changed:
            self._passed_count += 1
            self._busy_run = 0
            self._passed_at_failure.pop(task.task_id, None)

    def _refused_for_want_of_resources(self, error: PeerBusy) -> None:
        with self._changed:
            self._busy_run += 1
            enough = self._busy_run >= BUSY_RUN_MAX
        if enough:
            self._went_down(error)
        else:
            self._answered()

    def _answered(self) -> None:
        with self._changed:
            news = self._breaker.succeeded()
            self._down_since, self._reason, self._heard_of = None, "", True
            if news:
                self._changed.notify_all()
        if news:
            emit("destination.up", destination=self.name)

    def _went_down(self, error: Exception, *, lengthens: bool = True) -> None:
        with self._changed:
            news = self._breaker.failed(self._monotonic(), jitter=self._jitter(), lengthens=lengthens)
            self._reason = _reason(error)
            self._down_since = self._down_since or self._clock.now()
            self._changed.notify_all()
        if news:
            emit("destination.down", level=logging.WARNING, destination=self.name, reason=_reason(error))


def _reason(error: Exception) -> str:
    """In plain English and fit for the log: the text of an exception that is none of ours may quote an element."""
    return str(error) if isinstance(error, RouterError) else f"unexpected {type(error).__name__}"


def _tell_lost(task: Task) -> None:
    emit("task.lease_lost", level=logging.WARNING, task_id=task.task_id, kind=task.kind, target=task.target)


def _text(error: Exception) -> str:
    """For the ledger, which may hold what the log may not: with the peer's own words."""
    return "; ".join([_reason(error), *getattr(error, "__notes__", [])])
