"""The commit lane of one destination: what it was sent it is asked to keep, many instances in one request.

The request's answer comes on another association, some time later (`receive.commitment`); until then the tasks wait.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

from router.core.commitment import CommitmentReport, Reference
from router.core.ports import Clock, Commitments, Task
from router.core.retry import RetryPolicy
from router.errors import PermanentError, RouterError
from router.observe.log import emit

#: Longest wait before a destination that never answers is asked once more.
ASK_CAP_S = 86400.0


class Committer(Protocol):
    """A destination that can be asked to commit."""

    def request_commitment(
        self,
        *,
        transaction_uid: str,
        references: Sequence[Reference],
        linger_s: float,
        heard: Callable[[CommitmentReport], None],
    ) -> None:
        """Returns when the destination has taken the request; `heard` is called when its answer comes within `linger_s`."""
        ...


class CommitStep:
    """`core.ports.Step` for TaskKind.COMMIT and one destination; its own gate. One worker."""

    def __init__(
        self,
        *,
        name: str,
        destination: Committer,
        commitments: Commitments,
        clock: Clock,
        policy: RetryPolicy,
        gather_s: float,
        batch_max: int,
        answer_s: float,
        linger_s: float,
        resends_max: int,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._destination = destination
        self._commitments = commitments
        self._clock = clock
        self._policy = policy
        self._gather_s = gather_s
        self._batch_max = batch_max
        self._answer_s = answer_s
        self._linger_s = linger_s
        self._resends_max = resends_max
        self._jitter = jitter
        self._failures = 0
        self._not_before = 0.0
        self._interrupted = threading.Event()

    # ---- the gate (work.worker.Gate)

    def enter(self, *, timeout_s: float) -> int:
        """How many tasks may be claimed, once those that come together have come; 0 when the time is over."""
        wait_s = max(self._gather_s, self._not_before - time.monotonic())
        self._interrupted.clear()
        if wait_s > 0 and self._interrupted.wait(min(wait_s, timeout_s)):
            return 0
        return self._batch_max if wait_s <= timeout_s else 0

    def leave(self) -> None:
        """Nothing to give back."""

    def interrupt(self) -> None:
        """Ends an `enter` that waits."""
        self._interrupted.set()

    # ---- core.ports.Step

    def run(self, tasks: Sequence[Task]) -> None:
        """Asks once for all of them; each then waits for its answer."""
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        references = dict.fromkeys(
            Reference(task.instance.sop_class_uid, task.instance.sop_instance_uid) for task in tasks
        )
        self._commitments.ask(transaction_uid, self.name, tasks)
        try:
            self._destination.request_commitment(
                transaction_uid=transaction_uid,
                references=tuple(references),
                linger_s=self._linger_s,
                heard=self._heard,
            )
        except PermanentError as error:
            self._failures = 0
            self._commitments.postpone(tasks, error=str(error), at=None)
            self._tell_failure(transaction_uid, error, len(references), logging.ERROR)
            return
        except RouterError as error:
            self._failures += 1
            now = self._clock.now()
            at = self._policy.next_attempt_at(now=now, attempts=self._failures, error=error, jitter=self._jitter())
            at = at or now + timedelta(seconds=self._policy.cap_s)
            self._not_before = time.monotonic() + (at - now).total_seconds()
            self._commitments.postpone(tasks, error=str(error), at=at, tried=False)
            self._tell_failure(transaction_uid, error, len(references), logging.WARNING)
            return
        self._failures = 0
        emit("commitment.requested", destination=self.name, transaction_uid=transaction_uid, count=len(references))
        asked_count = min(task.attempts for task in tasks)
        wait_s = min(self._answer_s * 2.0 ** min(asked_count - 1, 32), max(self._answer_s, ASK_CAP_S))
        self._commitments.postpone(
            tasks,
            error=f"{self.name} was asked to commit and has not answered",
            at=self._clock.now() + timedelta(seconds=wait_s),
        )

    def _heard(self, report: CommitmentReport) -> None:
        answered = self._commitments.answered(report, resends_max=self._resends_max)
        emit(
            "commitment.answered",
            level=logging.ERROR if answered.failed else logging.WARNING if report.failed else logging.INFO,
            transaction_uid=report.transaction_uid,
            destination=answered.target,
            committed=len(answered.committed),
            resent=answered.resent,
            asked_again=answered.asked_again,
            failed=answered.failed,
        )

    def _tell_failure(self, transaction_uid: str, error: RouterError, count: int, level: int) -> None:
        emit(
            "commitment.not_requested",
            level=level,
            destination=self.name,
            transaction_uid=transaction_uid,
            count=count,
            reason=str(error),
        )
