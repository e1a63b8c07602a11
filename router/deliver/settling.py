"""What a destination has taken, on its way into the ledger while the next instance is on its way to the destination."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
#: While more is being sent, what was taken waits so long for company: nobody waits for it.
GATHER_S = 0.01


class Settling(Generic[T]):
    """Of one batch. Whatever waits while a transaction is written shares the next one; nobody who sends waits for it.

    The last of a batch is written by whoever brings it: one that comes alone needs no other thread.
    """

    def __init__(self, write: Callable[[Sequence[T]], None]) -> None:
        """`write`: one transaction for all that it is given; raises nothing. Two threads may write at once."""
        self._write = write
        self._changed = threading.Condition()
        self._waiting: list[T] = []
        self._over = False
        self._thread: threading.Thread | None = None

    def add(self, one: T, *, last: bool) -> None:
        """`last`: the batch has nothing more to send; then it is written when this returns."""
        with self._changed:
            self._waiting.append(one)
            if not last:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="settling", daemon=True)
                    self._thread.start()
                self._changed.notify()
        if last:
            self._write_waiting()

    def finish(self) -> None:
        """Returns when everything is written."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._write_waiting()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._over)
                if not self._waiting:
                    return
                self._changed.wait_for(lambda: self._over, GATHER_S)
            self._write_waiting()

    def _write_waiting(self) -> None:
        with self._changed:
            some, self._waiting = self._waiting, []
        if some:
            self._write(some)
