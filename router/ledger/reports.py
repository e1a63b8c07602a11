"""The lane of reports to peers, as a worker sees a ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from router.core.lifecycle import TaskKind
from router.core.ports import Claimed, ReportTask
from router.ledger.store import SqlLedger


class ReportLane:
    """Claims `ReportTask`s; everything else is the ledger's own."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger

    def claim(self, kind: TaskKind, target: str, *, lease_s: float, limit: int) -> list[ReportTask]:
        """Up to `limit` due reports, oldest first."""
        return self._ledger.commitments.claim(kind, target, lease_s=lease_s, limit=limit)

    def defer(self, task: Claimed, *, error: str, at: datetime | None) -> None:
        """See core.ports.Ledger.defer."""
        self._ledger.defer(task, error=error, at=at)

    def renew(self, tasks: Sequence[Claimed], *, lease_s: float) -> None:
        """See core.ports.Ledger.renew."""
        self._ledger.renew(tasks, lease_s=lease_s)

    def wait(self, kind: TaskKind, target: str, *, timeout_s: float) -> None:
        """See core.ports.Ledger.wait."""
        self._ledger.wait(kind, target, timeout_s=timeout_s)

    def wake(self, kind: TaskKind, target: str) -> None:
        """See core.ports.Ledger.wake."""
        self._ledger.wake(kind, target)
