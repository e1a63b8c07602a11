"""What happened in the last hour, counted minute by minute: each look reads only what is new since the one before."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime

from sqlalchemy import Connection, Engine, func, literal_column, select

from router.ledger.instants import to_us
from router.ledger.schema import event

_MINUTE_US = 60_000_000
_MINUTES = 60


class RecentEvents:
    """Events of the ledger by their word. The first look reads an hour of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._last_id: int | None = None
        self._minutes: dict[int, Counter[str]] = {}

    def counts(self, now: datetime) -> dict[str, int]:
        """Word (see `queries.TraceLine.what`) -> how often in the 60 minutes before `now`, to the minute."""
        now_us = to_us(now)
        oldest = now_us // _MINUTE_US - _MINUTES + 1
        with self._lock:
            with self._engine.connect() as connection:
                self._take_in(connection, oldest)
            self._minutes = {minute: counter for minute, counter in self._minutes.items() if minute >= oldest}
            return dict(sum(self._minutes.values(), Counter()))

    def _take_in(self, connection: Connection, oldest: int) -> None:
        newest_id = connection.execute(select(func.max(event.c.event_id))).scalar()
        if newest_id is None:
            return
        after_id = self._last_id if self._last_id is not None else _before(connection, oldest * _MINUTE_US, newest_id)
        minute = (event.c.at // literal_column(str(_MINUTE_US))).label("minute")
        query = (
            select(minute, event.c.what, func.count())
            .where(event.c.event_id > after_id, event.c.event_id <= newest_id)
            .group_by(minute, event.c.what)
        )
        for at, what, count in connection.execute(query):
            self._minutes.setdefault(int(at), Counter())[what] += count
        self._last_id = newest_id


def _before(connection: Connection, at_us: int, newest_id: int) -> int:
    """The id of the last event before a moment, or about that; found by halving, because events are numbered as they come."""
    low, high = 0, newest_id
    while low < high:
        middle = (low + high) // 2
        at = connection.execute(
            select(event.c.at).where(event.c.event_id > middle).order_by(event.c.event_id).limit(1)
        ).scalar()
        if at is None or at >= at_us:
            high = middle
        else:
            low = middle + 1
    return low
