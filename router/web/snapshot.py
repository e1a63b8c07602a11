"""Reads the node's status. What is owed and what is wrong is as of now; counting all that is done takes a while in a large ledger."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from router import __version__
from router.audit.trail import AuditTrail
from router.core.lifecycle import TaskKind, TaskState
from router.ledger.queries import Queries
from router.ledger.recent import RecentEvents
from router.observe.log import emit
from router.settings import Settings
from router.spool.files import FileSpool
from router.web.door import Door
from router.web.drifts import DriftWatch
from router.web.status import Lane, Status
from router.web.warnings import warnings

#: A ledger with fewer instances is counted for each page.
_LARGE = 20_000
#: Counting a larger one may take this share of the time, at most.
_SHARE = 0.02
#: Whoever asks for older ones waits until they are counted.
_AGE_MAX_S = 300.0


class _Step(Protocol):
    @property
    def name(self) -> str: ...
    def health(self) -> Any: ...


class _Analyst(Protocol):
    @property
    def ready(self) -> bool: ...
    @property
    def trouble(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Totals:
    """What takes longer to count the longer the ledger is."""

    instances: dict[str, int]
    outcomes: dict[str, int]
    done: Mapping[tuple[str, str], int]
    counted_s: float
    good_until_s: float

    @property
    def size(self) -> int:
        return sum(self.instances.values())


class StatusReader:
    """Called for each page; see `Status`."""

    def __init__(
        self,
        *,
        settings: Settings,
        port: Callable[[], int],
        spool: FileSpool,
        queries: Queries,
        recent: RecentEvents,
        steps: Sequence[_Step],
        analysts: Mapping[str, Sequence[_Analyst]],
        drifts: DriftWatch,
        audit: AuditTrail,
        door: Door,
    ) -> None:
        self._settings = settings
        self._port = port
        self._spool = spool
        self._queries = queries
        self._recent = recent
        self._steps = steps
        self._analysts = analysts
        self._drifts = drifts
        self._audit = audit
        self._door = door
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._lock = threading.Lock()
        self._totals: _Totals | None = None
        self._counting = False

    def __call__(self) -> Status:
        now = datetime.now(UTC)
        totals = self._current_totals()
        lanes = self._lanes(now, totals.done)
        return Status(
            ae_title=self._settings.node.ae_title,
            port=self._port(),
            version=__version__,
            started_at=self._started_at,
            instances=totals.instances,
            conflict_count=self._queries.conflict_count(),
            outcomes=totals.outcomes,
            lanes=lanes,
            classifiers={name: any(analyst.ready for analyst in of_one) for name, of_one in self._analysts.items()},
            drifts=self._drifts.counts(),
            last_hour=self._recent.counts(now),
            spool_free_byte_count=self._spool.free_byte_count(),
            spool_free_byte_count_min=self._settings.spool.free_byte_count_min,
            audit_lost_count=self._audit.syslog_lost_count,
            audit_waiting_count=self._audit.syslog_waiting_count,
            audit_trouble=self._audit.syslog_trouble,
            problems=self._problems(),
            warnings=tuple(
                warnings(
                    lanes=lanes,
                    classifiers={name: _trouble(of_one) for name, of_one in self._analysts.items()},
                    untold=self._queries.tried_again(TaskKind.NOTIFY) if self._settings.notify else {},
                    audit_trouble=self._audit.syslog_trouble,
                )
            ),
        )

    def warm_up(self) -> None:
        """Begins to count, so that the first page of a large ledger need not wait for that; returns at once."""

        def count() -> None:
            try:
                self._current_totals()
            except Exception as error:  # noqa: BLE001 - whoever asks next hears why
                emit("web.failed", level=logging.WARNING, exc_info=error, path="totals")

        threading.Thread(target=count, name="totals", daemon=True).start()

    def _current_totals(self) -> _Totals:
        """Those of a small ledger are counted each time; of a large one they may be old, and are counted anew meanwhile."""
        with self._lock:
            totals, now_s = self._totals, time.monotonic()
            if totals is not None and totals.size >= _LARGE and now_s - totals.counted_s < _AGE_MAX_S:
                if now_s >= totals.good_until_s and not self._counting:
                    self._counting = True
                    threading.Thread(target=self._count_again, name="totals", daemon=True).start()
                return totals
            self._totals = self._count()
            return self._totals

    def _count_again(self) -> None:
        try:
            totals = self._count()
        except Exception as error:  # noqa: BLE001 - the old ones are shown until they are too old; then whoever asks hears why
            emit("web.failed", level=logging.WARNING, exc_info=error, path="totals")
            totals = None
        with self._lock:
            self._counting = False
            self._totals = totals or self._totals

    def _count(self) -> _Totals:
        begun_s = time.monotonic()
        instances = {kind.value: count for kind, count in self._queries.instance_counts().items()}
        outcomes = self._queries.outcome_counts()
        done = {(lane.kind.value, lane.target): lane.counts.get(TaskState.DONE, 0) for lane in self._queries.lanes()}
        ended_s = time.monotonic()
        return _Totals(
            instances=instances,
            outcomes=outcomes,
            done=done,
            counted_s=ended_s,
            good_until_s=ended_s + (ended_s - begun_s) / _SHARE,
        )

    def _lanes(self, now: datetime, done: Mapping[tuple[str, str], int]) -> list[Lane]:
        health = {step.name: step.health() for step in self._steps}
        lanes = []
        for counts in self._queries.lanes(done=done):
            of_lane = health.get(counts.target) if counts.kind is TaskKind.DELIVER else None
            lanes.append(
                Lane(
                    kind=counts.kind.value,
                    target=counts.target,
                    counts={state.value: count for state, count in counts.counts.items()},
                    oldest_age_s=(now - counts.oldest_at).total_seconds() if counts.oldest_at else None,
                    trouble=of_lane.reason if of_lane else "",
                    down_s=(now - of_lane.since).total_seconds() if of_lane and of_lane.since else None,
                    breaker=of_lane.breaker if of_lane else "",
                )
            )
        return lanes

    def _problems(self) -> list[str]:
        problems = []
        free = self._spool.free_byte_count()
        if free < self._settings.spool.free_byte_count_min:
            problems.append(
                f"the spool has {free} bytes free, under spool.free_byte_count_min: C-STORE is answered 0xA700"
            )
        if missed := self._queries.missed_count():
            problems.append(f"the bytes of {missed} instance(s) are gone from the spool; see spool.file_missing")
        if self._audit.trouble:
            problems.append(
                f"the audit trail cannot be written ({self._audit.trouble}): pages show nothing of patients"
            )
        if wrong := self._door.trouble():
            problems.append(wrong)
        return problems


def _trouble(of_one: Sequence[_Analyst]) -> str:
    """Why none of a classifier's processes is there; one that is there is enough."""
    if any(analyst.ready for analyst in of_one):
        return ""
    return next((analyst.trouble for analyst in of_one if analyst.trouble), "")
