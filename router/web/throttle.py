"""Guessing passwords gets slower with every wrong guess, for the user that is guessed and for the address it comes from."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How much is forgiven."""

    free_count: int
    """Wrong guesses without a wait."""
    wait_max_s: float
    """The wait doubles from 1 s up to this."""


#: An address has more free guesses and a longer wait: a ward may share one, and a guesser may try many users. A user's wait
#: stays short, so that nobody can lock a colleague out.
USER = Patience(free_count=3, wait_max_s=60)
ADDRESS = Patience(free_count=10, wait_max_s=900)
KEYS_MAX = 10_000
FORGET_S = 3600.0


@dataclass(slots=True)
class _Record:
    count: int
    until_s: float
    last_s: float


class Throttle:
    """Counts wrong guesses by key; the oldest keys are forgotten beyond `KEYS_MAX`, so that its memory is bounded."""

    def __init__(self, patience: Patience, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._now_s = now_s
        self._lock = threading.Lock()
        self._records: OrderedDict[bytes, _Record] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Seconds until this key may guess again; 0 when it may now."""
        with self._lock:
            record = self._records.get(_digest(key))
            return max(0.0, record.until_s - self._now_s()) if record is not None else 0.0

    def failed(self, key: str) -> None:
        """One more wrong guess."""
        now = self._now_s()
        with self._lock:
            digest = _digest(key)
            record = self._records.pop(digest, None)
            if record is None or now - record.last_s > FORGET_S:
                record = _Record(0, 0.0, now)
            record.count += 1
            record.last_s = now
            over = record.count - self._patience.free_count
            if over > 0:
                record.until_s = now + min(self._patience.wait_max_s, 2.0 ** min(over - 1, 30))
            self._records[digest] = record  # at the end: touched last
            while len(self._records) > KEYS_MAX:
                self._records.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """The right one: forgiven."""
        with self._lock:
            self._records.pop(_digest(key), None)


def _digest(key: str) -> bytes:
    """Of fixed length, whatever was typed."""
    return hashlib.sha256(key.encode()).digest()[:16]
