"""Who sleeps until there is work, and what wakes them: a condition in this process, the database for the others.

A wake-up that gets lost costs one timeout, never work: sleepers always look into the ledger before they sleep.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from router.ledger.writer import Lane

#: How often another process's writes into a SQLite file are looked for: 5 µs a look.
LOOK_S = 0.25
#: PostgreSQL: bursts of commits share one NOTIFY. Inside the transaction it would end PostgreSQL's own group commit.
NOTIFY_AT_MOST_EVERY_S = 0.01
_LISTEN_S = 0.25
_CHANNEL = "router_ledger"


class Bell:
    """Counts rings and dismissals per lane, so that none that comes between looking and sleeping is missed.

    Those of a lane sleep by themselves: on a busy node, waking everybody for every commit costs more than the commit.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._beds: dict[Lane, threading.Condition] = {}
        self._rung: Counter[Lane] = Counter()
        self._everybody = 0
        self._dismissed: Counter[Lane] = Counter()

    def ring(self, lanes: Iterable[Lane]) -> None:
        """There may be work in these lanes."""
        with self._lock:
            for lane in lanes:
                self._rung[lane] += 1
                self._bed(lane).notify_all()

    def ring_everybody(self) -> None:
        """There may be work anywhere."""
        with self._lock:
            self._everybody += 1
            for bed in self._beds.values():
                bed.notify_all()

    def dismiss(self, lane: Lane) -> None:
        """Whoever waits in this lane goes home."""
        with self._lock:
            self._dismissed[lane] += 1
            self._bed(lane).notify_all()

    def heard(self, lane: Lane) -> tuple[int, int]:
        """What has been rung so far: to be taken before the ledger is looked into."""
        with self._lock:
            return self._rung[lane], self._everybody

    def sleep(self, lane: Lane, heard: tuple[int, int], timeout_s: float) -> bool:
        """Until something is rung that is not in `heard`. False when dismissed or when the time is over."""
        with self._lock:
            dismissed = self._dismissed[lane]
            self._bed(lane).wait_for(
                lambda: (self._rung[lane], self._everybody) != heard or self._dismissed[lane] != dismissed, timeout_s
            )
            return self._dismissed[lane] == dismissed and (self._rung[lane], self._everybody) != heard

    def _bed(self, lane: Lane) -> threading.Condition:
        """Where those of a lane sleep."""
        bed = self._beds.get(lane)
        if bed is None:
            bed = self._beds[lane] = threading.Condition(self._lock)
        return bed


class FileWatch:
    """Rings when another process has written into the SQLite file (an operator's `router requeue`)."""

    def __init__(self, engine: Engine, bell: Bell) -> None:
        self._engine = engine
        self._bell = bell
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-watch", daemon=True)
        self._thread.start()

    def rang(self) -> None:
        """Our own commits need no telling: the bell has rung already."""

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        raw = self._engine.raw_connection()
        try:
            connection: Any = raw.driver_connection
            seen = None
            while not self._closed.wait(LOOK_S):
                try:
                    version = connection.execute("PRAGMA data_version").fetchone()[0]
                except sqlite3.Error:
                    continue  # a disk error of the moment must not end the watch for good
                if version != seen:
                    seen = version
                    self._bell.ring_everybody()
        finally:
            raw.close()


class Notifications:
    """PostgreSQL: tells the other nodes of our commits, and rings when they tell us of theirs."""

    def __init__(self, engine: Engine, bell: Bell) -> None:
        self._engine = engine
        self._bell = bell
        self._me = uuid.uuid4().hex
        self._closed = threading.Event()
        self._news = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, args=(part,), name=f"ledger-{name}", daemon=True)
            for name, part in (("listen", self._listen), ("notify", self._notify))
        ]
        for thread in self._threads:
            thread.start()

    def rang(self) -> None:
        """To be called after each commit that others may wait for."""
        self._news.set()

    def close(self) -> None:
        self._closed.set()
        self._news.set()
        for thread in self._threads:
            thread.join()

    def _keep(self, part: Any) -> None:
        while not self._closed.is_set():
            try:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    part(connection)
            except DBAPIError:
                self._closed.wait(1)  # the database is away; sleepers look by themselves when their time is over
            except Exception:  # noqa: BLE001 - psycopg's own errors while it waits for notifications, same meaning
                self._closed.wait(1)

    def _listen(self, connection: Any) -> None:
        connection.exec_driver_sql(f"LISTEN {_CHANNEL}")
        self._bell.ring_everybody()  # what was told while nobody listened
        driver = connection.connection.driver_connection
        while not self._closed.is_set():
            for notification in driver.notifies(timeout=_LISTEN_S, stop_after=1):
                if notification.payload != self._me:
                    self._bell.ring_everybody()

    def _notify(self, connection: Any) -> None:
        while not self._closed.is_set():
            self._news.wait()
            self._news.clear()
            connection.exec_driver_sql(f"SELECT pg_notify('{_CHANNEL}', '{self._me}')")
            time.sleep(NOTIFY_AT_MOST_EVERY_S)
