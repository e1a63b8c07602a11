"""Reads the node's status. Counting a large ledger takes a while, so one count serves everybody who asks soon after."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from router import __version__
from router.audit.trail import AuditTrail
from router.core.lifecycle import TaskKind
from router.ledger.queries import Queries
from router.ledger.recent import RecentEvents
from router.settings import Settings
from router.spool.files import FileSpool
from router.web.door import Door
from router.web.status import Lane, Status

#: A ledger with fewer instances is counted for each page.
_LARGE = 20_000
#: Counting a larger one may take this share of the time, at most.
_SHARE = 0.05
_AGE_MAX_S = 30.0


class _Step(Protocol):
    @property
    def name(self) -> str: ...
    def health(self) -> Any: ...


class _Analyst(Protocol):
    @property
    def ready(self) -> bool: ...


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
        self._audit = audit
        self._door = door
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._lock = threading.Lock()
        self._read: Status | None = None
        self._good_until_s = 0.0

    def __call__(self) -> Status:
        with self._lock:  # whoever comes while one counts waits for that count
            begun_s = time.monotonic()
            if self._read is None or begun_s >= self._good_until_s:
                self._read = None
                self._read = self._count()
                taken_s = time.monotonic() - begun_s
                self._good_until_s = begun_s + taken_s
                if sum(self._read.instances.values()) >= _LARGE:
                    self._good_until_s += min(_AGE_MAX_S, taken_s / _SHARE)
            return self._read

    def _count(self) -> Status:
        now = datetime.now(UTC)
        return Status(
            ae_title=self._settings.node.ae_title,
            port=self._port(),
            version=__version__,
            started_at=self._started_at,
            instances={kind.value: count for kind, count in self._queries.instance_counts().items()},
            conflict_count=self._queries.conflict_count(),
            outcomes=self._queries.outcome_counts(),
            lanes=self._lanes(now),
            classifiers={name: any(analyst.ready for analyst in of_one) for name, of_one in self._analysts.items()},
            last_hour=self._recent.counts(now),
            audit_lost_count=self._audit.syslog_lost_count,
            audit_waiting_count=self._audit.syslog_waiting_count,
            audit_trouble=self._audit.syslog_trouble,
            problems=self._problems(),
        )

    def _lanes(self, now: datetime) -> list[Lane]:
        health = {step.name: step.health() for step in self._steps}
        lanes = []
        for counts in self._queries.lanes():
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
        if missed := self._queries.missed():
            problems.append(f"the bytes of {len(missed)} instance(s) are gone from the spool; see spool.file_missing")
        if self._audit.trouble:
            problems.append(
                f"the audit trail cannot be written ({self._audit.trouble}): pages show nothing of patients"
            )
        if wrong := self._door.trouble():
            problems.append(wrong)
        return problems
