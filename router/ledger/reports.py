"""Lanes whose tasks are about no instance, as a worker sees a ledger: reports to peers, messages to people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from router.core.lifecycle import TaskKind
from router.core.ports import Claimed
from router.ledger.store import SqlLedger


class Claim(Protocol):
    """`CommitmentBook.claim`, `NoticeBook.claim`."""

    def __call__(self, kind: TaskKind, target: str, *, lease_s: float, limit: int) -> Sequence[Claimed]: ...


class OwnLane:
    """Claims tasks of another kind; everything else is the ledger's own."""

    def __init__(self, ledger: SqlLedger, *, claim: Claim) -> None:
        self._ledger = ledger
        self.claim = claim

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
