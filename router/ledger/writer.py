"""Group commit: everything that waits while a transaction is written shares the next one.

Who comes while nothing is written writes by itself, without waiting for another thread to wake up.

A commit costs an fsync (some milliseconds) whatever it holds, so eight associations that accept at once pay for one. When one
of several that share a transaction fails, nothing of it stays and each is run again in a transaction of its own: a bad one fails
alone, and the good ones pay nothing for that, which happens rarely. Nobody hears of success before the commit, and when the
commit fails everybody hears of that: whether it is durable is unknown then, and an instance that is entered a second time
would be taken for a duplicate of itself, and its only file deleted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from router.core.lifecycle import TaskKind
from router.ledger.engine import write_transaction

T = TypeVar("T")
#: At most this many pieces of work share a transaction.
BATCH_MAX = 256

#: A connection that was not used for so long goes back into the pool, which looks whether it still lives.
_KEPT_S = 1.0

Lane = tuple[TaskKind, str]


@dataclass(slots=True)
class Transaction:
    """What a piece of work writes by."""

    connection: Connection
    now_us: int
    """The time of the whole transaction."""
    lanes: set[Lane] = field(default_factory=set)
    """Whom to wake after the commit: those for whom there is new work."""


class _Stage(Enum):
    """How far a transaction has come."""

    BEGIN = auto()
    WORK = auto()
    COMMIT = auto()
    OVER = auto()


_Piece = tuple[Callable[[Transaction], Any], Future[Any]]


class LedgerClosed(RuntimeError):
    """The ledger was closed before this was written."""


class GroupCommit:
    """Runs pieces of work one after the other, many to a transaction."""

    def __init__(
        self,
        engine: Engine,
        *,
        now_us: Callable[[Connection], int],
        committed: Callable[[set[Lane]], None],
        timed: Callable[[float], None] | None = None,
    ) -> None:
        """`timed`: told how long each transaction took, in seconds."""
        self._timed = timed
        self._engine = engine
        self._now_us = now_us
        self._committed = committed
        self._waiting: deque[_Piece] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._writing = False
        self._kept: Connection | None = None  # of who is writing
        self._used_s = 0.0
        self._stage = _Stage.OVER
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[Transaction], T]) -> T:
        """What `work` returns, after the commit. Raises what `work` raised, or why the commit failed."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise LedgerClosed("the ledger is closed")
            alone = not self._writing and not self._waiting
            if alone:
                self._writing = True
            else:
                self._waiting.append((work, future))
                self._changed.notify()
        if alone:
            self._write([(work, future)])
        return future.result()

    def close(self) -> None:
        """Writes what waits, then ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._put_back()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._writing or not (self._waiting or self._closed):
                    self._changed.wait()
                if not self._waiting:
                    return
                self._writing = True
                batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
            self._write(batch)

    def _write(self, batch: list[_Piece]) -> None:
        try:
            self._commit(batch)
        finally:
            with self._changed:
                self._writing = False
                if self._waiting or self._closed:
                    self._changed.notify()

    def _commit(self, batch: list[_Piece]) -> None:
        begun_s = time.monotonic()
        try:
            results, lanes = self._transact([work for work, _ in batch])
        except BaseException as error:  # noqa: BLE001 - handed to the callers
            if len(batch) > 1 and self._stage is _Stage.WORK:
                self._commit_each(batch)
            else:
                for _, future in batch:
                    future.set_exception(error)
            return
        if self._timed is not None:
            self._timed(time.monotonic() - begun_s)
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
        if lanes:
            self._committed(lanes)

    def _commit_each(self, batch: list[_Piece]) -> None:
        """Each in a transaction of its own; once none can be begun, those that are left hear of that at once."""
        for number, piece in enumerate(batch, 1):
            self._commit([piece])
            if self._stage is _Stage.BEGIN:
                for _, future in batch[number:]:
                    future.set_exception(piece[1].exception())
                return

    def _transact(self, works: list[Callable[[Transaction], Any]]) -> tuple[list[Any], set[Lane]]:
        """All in one transaction. Raises what one of them raised: then there was none. Or what the commit raised."""
        self._stage = _Stage.BEGIN
        kept = self._kept
        connection = self._connection()
        lanes: set[Lane] = set()
        try:
            with write_transaction(connection):
                now_us = self._now_us(connection)
                self._stage = _Stage.WORK
                results = []
                for work in works:
                    transaction = Transaction(connection, now_us)
                    results.append(work(transaction))
                    lanes |= transaction.lanes
                self._stage = _Stage.COMMIT
        except BaseException:
            # Whatever it was: the next transaction begins on a connection that was looked at.
            died = self._stage is _Stage.BEGIN and connection is kept and connection.invalidated
            self._put_back()
            if not died:
                raise
            return self._transact(works)  # the database was restarted meanwhile, and nothing of ours had begun
        self._stage = _Stage.OVER
        self._used_s = time.monotonic()
        return results, lanes

    def _connection(self) -> Connection:
        """One that is kept while there is much to write: to take it from the pool and look whether it lives costs more."""
        if self._kept is not None and time.monotonic() - self._used_s > _KEPT_S:
            self._put_back()
        if self._kept is None:
            self._kept = self._engine.connect()
        return self._kept

    def _put_back(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            with suppress(Exception):  # it is broken, and the pool knows
                kept.close()
