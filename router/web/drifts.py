"""Which scores have moved: every finding of every calling AE title and classifier, judged by `core.drift` and kept for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from router.core.drift import Grade, Limits, Scores, Verdict, added, began, judge
from router.ledger.tallies import DayScores, Tallies, day_of
from router.observe.log import emit

#: A judgement is this old at most, or older where making one takes more than this share of the time. It compares a week with
#: the weeks before: minutes change nothing in it, and while it is made every page waits longer.
_AGE_S, _SHARE = 300.0, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One finding of one calling AE title."""

    classifier: str
    calling_ae_title: str
    finding: str
    threshold: float
    verdict: Verdict
    since: date | None
    """Of a drift: the day from which on scores differ most from those before."""

    @property
    def drifted(self) -> bool:
        """Whether it is marked."""
        return self.verdict.grade is Grade.DRIFT


class DriftWatch:
    """Judges when it is asked and its last judgement is old."""

    def __init__(
        self,
        tallies: Tallies,
        limits: Limits,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._tallies = tallies
        self.now = now
        self._now_s = now_s
        self._lock = threading.Lock()
        self._judged: Mapping[str, Sequence[Judged]] = {}
        self._good_until_s: float | None = None
        self._refreshing: threading.Thread | None = None

    def __call__(self) -> Mapping[str, Sequence[Judged]]:
        """Classifier -> what was compared, or could not be for want of images; those with recent scores only.

        An old judgement is made anew in a thread of its own, and shown meanwhile.
        """
        with self._lock:
            if self._good_until_s is None:
                self._refresh()
            elif self._now_s() >= self._good_until_s and (self._refreshing is None or not self._refreshing.is_alive()):
                self._refreshing = threading.Thread(target=self._refresh, name="drifts", daemon=True)
                self._refreshing.start()
            return self._judged

    def settled(self) -> Mapping[str, Sequence[Judged]]:
        """The same, once nothing is made anew any more."""
        self()
        if self._refreshing is not None:
            self._refreshing.join()
        return self()

    def _refresh(self) -> None:
        begun_s = self._now_s()
        try:
            self._judged = self._judge(day_of(self.now()))
        except SQLAlchemyError as error:
            if self._good_until_s is None:
                raise
            emit("web.failed", level=logging.WARNING, exc_info=error, path="drifts")
        ended_s = self._now_s()
        self._good_until_s = ended_s + max(_AGE_S, (ended_s - begun_s) / _SHARE)

    def counts(self) -> dict[str, int]:
        """Classifier -> how many are marked."""
        return {name: sum(one.drifted for one in judged) for name, judged in self().items()}

    def windows(self) -> tuple[date, date]:
        """First day of the reference, first recent day."""
        return self._windows(day_of(self.now()))

    def _windows(self, today: date) -> tuple[date, date]:
        recent = today - timedelta(days=self.limits.recent_days - 1)
        return recent - timedelta(days=self.limits.reference_days), recent

    def _judge(self, today: date) -> Mapping[str, Sequence[Judged]]:
        first, recent = self._windows(today)
        names = [name for name, of_one in self._tallies.computed(since=first).items() if of_one[0].last_day]
        return {name: self._judged_of(name, first, recent, today) for name in sorted(names)}

    def _judged_of(self, name: str, first: date, recent: date, today: date) -> Sequence[Judged]:
        pairs = _pairs(self._tallies.scores(name, since=first))
        windows = {
            pair: (
                added([row.scores for row in rows if row.day >= recent]),
                added([row.scores for row in rows if row.day < recent]),
            )
            for pair, rows in pairs.items()
        }
        enough = sum(min(one.count, other.count) >= self.limits.image_count_min for one, other in windows.values())
        found = []
        for (ae_title, finding), (now, before) in sorted(windows.items()):
            verdict = judge(now, before, self.limits, comparisons=enough)
            rows = pairs[ae_title, finding]
            drifted = verdict.grade is Grade.DRIFT
            found.append(
                Judged(
                    classifier=name,
                    calling_ae_title=ae_title,
                    finding=finding,
                    threshold=rows[-1].threshold,
                    verdict=verdict,
                    since=_since(rows, first, today) if drifted else None,
                )
            )
        return found


def _pairs(rows: Sequence[DayScores]) -> dict[tuple[str, str], list[DayScores]]:
    """(calling AE title, finding) -> days. Scores of other weights are not compared: only those of the weights used last count."""
    used_last = {row.calling_ae_title: row.computation for row in rows}
    found: dict[tuple[str, str], list[DayScores]] = {}
    for row in rows:
        if row.computation == used_last[row.calling_ae_title]:
            found.setdefault((row.calling_ae_title, row.finding), []).append(row)
    return found


def _since(rows: Sequence[DayScores], first: date, today: date) -> date:
    by_day = {row.day: row.scores for row in rows}
    days = [first + timedelta(days=number) for number in range((today - first).days + 1)]
    return days[began([by_day.get(day, Scores()) for day in days])]
