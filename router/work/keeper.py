"""Renews the leases of what a worker is at: an object of many gigabytes on a slow line takes longer than a lease."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from router.core.ports import Claimed


class LeaseKeeper:
    """One thread for as long as there is work, not one for each claim: starting it costs more than most claims."""

    def __init__(self, renew: Callable[[Sequence[Claimed]], None], *, every_s: float) -> None:
        """`renew`: what it raises is let pass: the ledger is away, then the lease ends, and settling says so."""
        self._renew = renew
        self._every_s = every_s
        self._changed = threading.Condition()
        self._held: Sequence[Claimed] = ()
        self._at_it = False
        self._over = False

    @contextlib.contextmanager
    def keeping(self, tasks: Sequence[Claimed]) -> Iterator[None]:
        """Their leases are renewed until this is left, the first time after `every_s` or sooner."""
        with self._changed:
            if not self._at_it:
                threading.Thread(target=self._run, name="lease-keeper", daemon=True).start()
                self._at_it = True  # not before: there may be no thread
            self._held = tasks
        try:
            yield
        finally:
            with self._changed:
                self._held = ()

    def close(self) -> None:
        """Nothing more will be held."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over, self._every_s)
                if self._over or not self._held:
                    self._at_it = False
                    return
                tasks = self._held
            with contextlib.suppress(Exception):
                self._renew(tasks)
