"""Group commit: everything that waits while a transaction is written shares the next one.

Who comes while nothing is written writes by itself, without waiting for another thread to wake up.

A commit costs an fsync (about 1 ms) whatever it holds, so eight associations that accept at once pay for one. Where
several share a transaction, each runs in a savepoint: a bad one fails alone. Nobody hears of success before the commit, and when the commit
fails everybody hears of that.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from router.core.lifecycle import TaskKind

T = TypeVar("T")
#: At most this many pieces of work share a transaction.
BATCH_MAX = 256

Lane = tuple[TaskKind, str]


@dataclass(slots=True)
class Transaction:
    """What a piece of work writes by."""

    connection: Connection
    now_us: int
    """The time of the whole transaction."""
    lanes: set[Lane] = field(default_factory=set)
    """Whom to wake after the commit: those for whom there is new work."""


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
        self._waiting: deque[tuple[Callable[[Transaction], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._writing = False
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

    def _write(self, batch: list[tuple[Callable[[Transaction], Any], Future[Any]]]) -> None:
        try:
            self._commit(batch)
        finally:
            with self._changed:
                self._writing = False
                if self._waiting or self._closed:
                    self._changed.notify()

    def _commit(self, batch: list[tuple[Callable[[Transaction], Any], Future[Any]]]) -> None:
        results: list[tuple[Future[Any], Any, BaseException | None]] = []
        lanes: set[Lane] = set()
        begun_s = time.monotonic()
        try:
            with self._engine.begin() as connection:
                now_us = self._now_us(connection)
                for work, future in batch:
                    transaction = Transaction(connection, now_us)
                    if len(batch) == 1:  # what it raises undoes the whole transaction, which is its own
                        results.append((future, work(transaction), None))
                        lanes |= transaction.lanes
                        break
                    savepoint = connection.begin_nested()
                    try:
                        result = work(transaction)
                        savepoint.commit()
                    except Exception as error:  # noqa: BLE001 - handed to the caller, whose work it was
                        # When the database gave up the whole transaction (disk full), this raises, and all hear of it.
                        savepoint.rollback()
                        results.append((future, None, error))
                    else:
                        lanes |= transaction.lanes
                        results.append((future, result, None))
        except BaseException as error:  # noqa: BLE001 - nothing was committed: every caller must know
            for _, future in batch:
                future.set_exception(error)
            return
        if self._timed is not None:
            self._timed(time.monotonic() - begun_s)
        for future, result, failure in results:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
        if lanes:
            self._committed(lanes)
