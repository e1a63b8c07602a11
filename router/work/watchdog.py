"""A time limit on what would wait for ever: one thread while there is work, not one for each question."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Watchdog:
    """At most one thing is watched at a time."""

    def __init__(self, expired: Callable[[], None]) -> None:
        """`expired`: ends what takes too long; runs in the watchdog's thread."""
        self._expired = expired
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._wakes_at: float | None = None

    @contextlib.contextmanager
    def watching(self, limit_s: float) -> Iterator[None]:
        """`expired` is called when this is not left within the time; once it is left, it neither is nor will be running."""
        with self._changed:
            self._deadline = time.monotonic() + limit_s
            if self._wakes_at is None:
                threading.Thread(target=self._run, name="watchdog", daemon=True).start()
                self._wakes_at = self._deadline  # not before: there may be no thread
            elif self._deadline < self._wakes_at:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._deadline = None

    def close(self) -> None:
        """Its thread ends, unless something is being watched: then after that."""
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while self._deadline is not None:
                left_s = self._deadline - time.monotonic()
                if left_s <= 0:
                    self._deadline = None
                    self._expired()
                    break
                self._wakes_at = self._deadline
                self._changed.wait(left_s)
            self._wakes_at = None
