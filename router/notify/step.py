"""The lane of one [notify.NAME]: each message that is owed is sent, tried again, or failed and shown."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol

from router.core.notices import Notice
from router.core.ports import Claimed, Clock, NoticeTask
from router.core.retry import RetryPolicy
from router.errors import LeaseLost, NeverTold, NotTold
from router.faults import fault_point
from router.notify.channel import Channel
from router.notify.message import Message
from router.observe.log import emit


class Book(Protocol):
    """`ledger.notices.NoticeBook`."""

    def sent(self, held: NoticeTask, *, note: str = "") -> None: ...


class Ledger(Protocol):
    """The ledger as far as this step goes."""

    def defer(self, task: Claimed, *, error: str, at: datetime | None) -> None: ...


class NotifyStep:
    """`core.ports.Step` for TaskKind.NOTIFY and one channel."""

    def __init__(
        self,
        *,
        channel: Channel,
        write: Callable[[Notice], Message],
        book: Book,
        ledger: Ledger,
        clock: Clock,
        policy: RetryPolicy,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`policy`: its attempts are bounded, because people who hear of it the day after hear of it by other ways."""
        self._channel = channel
        self._write = write
        self._book = book
        self._ledger = ledger
        self._clock = clock
        self._policy = policy
        self._jitter = jitter

    def run(self, tasks: Sequence[NoticeTask]) -> None:
        """Sends them one after the other."""
        for task in tasks:
            try:
                note = self._channel.send(self._write(task.notice)) if task.notice.fact_count else ""
            except (NotTold, NeverTold) as error:
                self._not_told(task, error)
                continue
            fault_point("notify.told")
            with suppress(LeaseLost):  # somebody else sent it, too: the receiver knows a copy by its number
                self._book.sent(task, note=note)
            self._tell("notify.sent", task, count=task.notice.fact_count)

    def _not_told(self, task: NoticeTask, error: NotTold | NeverTold) -> None:
        at = self._policy.next_attempt_at(
            now=self._clock.now(), attempts=task.attempts, error=error, jitter=self._jitter()
        )
        with suppress(LeaseLost):
            self._ledger.defer(task, error="; ".join([str(error), *getattr(error, "__notes__", [])]), at=at)
        if at is None:
            self._tell("notify.failed", task, level=logging.ERROR, reason=str(error))
        else:
            later = {"reason": str(error), "next_attempt_at": at.isoformat()}
            self._tell("notify.deferred", task, level=logging.WARNING, **later)

    def _tell(self, event: str, task: NoticeTask, *, level: int = logging.INFO, **fields: Any) -> None:
        emit(
            event,
            level=level,
            notify=task.target,
            about=task.notice.event,
            message=task.uid,
            attempt=task.attempts,
            **fields,
        )
