"""Keeps the spool in step with the ledger: frees what is no longer needed, removes what nobody knows, misses what is gone.

Rows of the ledger whose time is over go, too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from router.core.ports import Spool
from router.errors import SpoolDamaged
from router.faults import fault_point
from router.observe.log import emit

FREE_EVERY_S = 60.0
SWEEP_EVERY_S = 3600.0
#: A file is durable before its row is; whoever dies between the two leaves an orphan. Nothing takes this long between them.
ORPHAN_GRACE_S = 3600.0
_BATCH = 1000


class Held(Protocol):
    """An instance whose bytes should lie in the spool."""

    @property
    def instance_id(self) -> int: ...
    @property
    def spool_key(self) -> str: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def missed(self) -> bool: ...


class Inventory(Protocol):
    """What the ledger says about the spool (`SqlLedger.queries`)."""

    def held(self, *, after_id: int = 0, limit: int = 1000) -> Sequence[Held]: ...
    def unheld(self, spool_keys: Iterable[str]) -> set[str]: ...


class Books(Protocol):
    """The ledger as far as the janitor writes to it (`SqlLedger`)."""

    def free(self, *, retention_s: float, limit: int = 1000) -> list[str]: ...
    def mark_missed(self, instance_ids: Sequence[int]) -> None: ...
    def mark_found(self, instance_ids: Sequence[int]) -> None: ...


class Files(Spool, Protocol):
    """A spool that can say what lies in it."""

    def keys(self) -> Iterable[tuple[str, float]]:
        """Every key and its age in seconds."""
        ...

    def remove_unused(self) -> int:
        """Removes what an earlier process made beforehand and left; returns how many."""
        ...


class Janitor:
    """A thread that frees every minute and sweeps at start and every hour."""

    def __init__(
        self,
        *,
        ledger: Books,
        inventory: Inventory,
        spool: Files,
        retention_s: float,
        expire: Callable[[], int] | None = None,
        orphan_grace_s: float = ORPHAN_GRACE_S,
        free_every_s: float = FREE_EVERY_S,
        sweep_every_s: float = SWEEP_EVERY_S,
    ) -> None:
        """`expire`: removes some rows of the ledger whose time is over, and says how many; None: rows stay."""
        self._ledger = ledger
        self._expire = expire
        self._inventory = inventory
        self._spool = spool
        self._retention_s = retention_s
        self._orphan_grace_s = orphan_grace_s
        self._free_every_s = free_every_s
        self._sweeps_apart = max(1, round(sweep_every_s / free_every_s))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)

    def start(self) -> None:
        """Begins with a sweep."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the file it is at."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def free(self) -> int:
        """Deletes the bytes of instances with which everything is done for the retention time; returns how many.

        The row says so first: a crash between leaves an orphan, never a row without its file.
        """
        count = 0
        while not self._stopping.is_set():
            keys = self._ledger.free(retention_s=self._retention_s, limit=_BATCH)
            if keys:
                fault_point("free.committed")
            for key in keys:
                self._spool.delete(key)
            if keys:
                fault_point("free.deleted")
            count += len(keys)
            if len(keys) < _BATCH:
                break
        if count:
            emit("spool.freed", count=count)
        return count

    def remove_orphans(self) -> int:
        """Removes files older than the grace time that no row holds; returns how many."""
        keys = self._spool.keys()
        old = [key for key, age_s in keys if age_s >= self._orphan_grace_s]
        orphans = self._inventory.unheld(old)
        for key in sorted(orphans):
            self._spool.delete(key)
            emit("spool.orphan_removed", level=logging.WARNING, spool_key=key)
        return len(orphans)

    def find_missing(self) -> int:
        """Looks for every file that the ledger holds; those that are gone are an alarm, and marked. Returns how many."""
        missing, after_id = 0, 0
        while (batch := self._inventory.held(after_id=after_id, limit=_BATCH)) and not self._stopping.is_set():
            gone = [held for held in batch if not self._there(held.spool_key)]
            self._ledger.mark_missed([held.instance_id for held in gone if not held.missed])
            gone_ids = {held.instance_id for held in gone}
            self._ledger.mark_found([h.instance_id for h in batch if h.missed and h.instance_id not in gone_ids])
            for held in gone:
                emit(
                    "spool.file_missing",
                    level=logging.ERROR,
                    sop_instance_uid=held.sop_instance_uid,
                    spool_key=held.spool_key,
                )
            missing += len(gone)
            after_id = batch[-1].instance_id
        return missing

    def expire(self) -> int:
        """Removes rows of the ledger whose time is over; returns how many instances. Their bytes were freed before."""
        count = 0
        while self._expire is not None and not self._stopping.is_set() and (some := self._expire()):
            count += some
        if count:
            emit("ledger.expired", count=count)
        return count

    def _there(self, spool_key: str) -> bool:
        try:
            self._spool.path(spool_key)
        except SpoolDamaged:
            return False
        return True

    def _run(self) -> None:
        turn = 0
        while not self._stopping.is_set():
            try:
                if turn % self._sweeps_apart == 0:
                    self._spool.remove_unused()
                    self.find_missing()
                    self.remove_orphans()
                    self.expire()
                self.free()
            except Exception as error:  # noqa: BLE001 - tidying can wait; the node goes on
                emit("worker.crashed", level=logging.ERROR, exc_info=error, kind="janitor")
            turn += 1
            self._stopping.wait(self._free_every_s)
