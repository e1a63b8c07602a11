"""Small stand-ins for what the Storage SCP is joined with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

from router.core.instance import SopInstance
from router.core.ports import Receipt
from router.core.rules import Plan
from router.spool.durable import Disk
from router.spool.files import FileSpool

EVERYTHING = Plan(rules=("everything",), deliver=("archive",))


class FixedClock:
    """Always the same time."""

    def now(self) -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class MemoryLedger:
    """The receiving side of a ledger: remembers, or does what it is told to do first."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.before = before
        self.accepted: list[SopInstance] = []
        self.plans: list[Plan] = []
        self._lock = threading.Lock()

    def accept(self, instance: SopInstance, plan: Plan, *, also: Collection[str] | None = None) -> Receipt:
        self.before()
        with self._lock:
            same = [i for i in self.accepted if i.sop_instance_uid == instance.sop_instance_uid]
            if any(i.digest == instance.digest for i in same):
                return Receipt.DUPLICATE
            self.accepted.append(instance)
            self.plans.append(plan)
            return Receipt.CONFLICT if same else Receipt.NEW

    def one(self) -> SopInstance:
        (instance,) = self.accepted
        return instance


class SmallSpool(FileSpool):
    """A spool whose disk has as much room as a test says, and in which nothing lies but what came in."""

    free: int | None = None

    def __init__(self, path: Path, *, disk: Disk | None = None) -> None:
        super().__init__(path, disk=disk, names_stock=0)

    def free_byte_count(self) -> int:
        return super().free_byte_count() if self.free is None else self.free


def spooled_files(folder: Path) -> list[Path]:
    """Everything in a spool folder, half-written files included."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
