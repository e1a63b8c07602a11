"""What the ledger's tallies say (see `ledger.outcomes`). Nothing here writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Engine, func, select

from router.core.drift import Scores
from router.core.findings import ClassifierIdentity
from router.ledger.instants import from_us
from router.ledger.outcomes import SLOT_S, WAIT_ENDS_S
from router.ledger.schema import computation, tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """One identity that a classifier had, and when it was in use."""

    computation: str
    identity: ClassifierIdentity
    first_at: datetime
    last_day: date | None
    """None: longer ago than was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayScores:
    """Scores of one finding, one day, one calling AE title, one computation."""

    day: date
    calling_ae_title: str
    computation: str
    finding: str
    threshold: float
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a classifier did in some days."""

    codes: Mapping[str, int]
    """«analysed» and codes of reasons -> images."""
    waits: Mapping[int, int]
    """Number of a bin of WAIT_ENDS_S -> looks."""
    last_hour: int
    """Looks; to ten minutes."""
    last_day: int

    def wait_s(self, share: float) -> float | None:
        """The time within which that share of the images had its outcome, from when it was owed; None without any."""
        wanted, before = share * sum(self.waits.values()), 0
        for number, found in sorted(self.waits.items()):
            if before + found >= wanted:
                low = WAIT_ENDS_S[number - 1] if number else 0.0
                return low + (WAIT_ENDS_S[number] - low) * (wanted - before) / found
            before += found
        return None


class Tallies:
    """Reads them. Whatever the number of images, a look at some weeks reads one row for each day and calling AE title."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def computed(self, *, since: date) -> dict[str, list[Computed]]:
        """Classifier -> identities that it had, the one used last first."""
        used = (
            select(tally.c.computation, func.max(tally.c.day))
            .where(tally.c.day >= _number(since))
            .group_by(tally.c.computation)
        )
        query = select(computation).order_by(computation.c.first_at).limit(1000)
        with self._engine.connect() as connection:
            last: dict[str, int] = {row[0]: row[1] for row in connection.execute(used)}
            rows = connection.execute(query).all()
        found: dict[str, list[Computed]] = {}
        for row in sorted(rows, key=lambda row: (last.get(row.computation, 0), row.first_at), reverse=True):
            day = last.get(row.computation)
            found.setdefault(row.classifier, []).append(
                Computed(
                    computation=row.computation,
                    identity=ClassifierIdentity(**row.identity),
                    first_at=from_us(row.first_at),
                    last_day=_date(day) if day is not None else None,
                )
            )
        return found

    def pace(self, classifiers: Collection[str], *, since: date, now: datetime) -> dict[str, Pace]:
        """Classifier -> what it did since then; those that did nothing are absent."""
        query = select(tally.c.classifier, tally.c.day, tally.c.codes, tally.c.pace).where(
            tally.c.classifier.in_(classifiers), tally.c.day >= _number(since)
        )
        slot = int(now.timestamp()) // SLOT_S
        per_day = 86400 // SLOT_S
        codes: dict[str, dict[str, int]] = {}
        waits: dict[str, dict[int, int]] = {}
        recent: dict[str, list[int]] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(query):
                of_one = codes.setdefault(row.classifier, {})
                for code, found in row.codes.items():
                    of_one[code] = of_one.get(code, 0) + found
                waited = waits.setdefault(row.classifier, {})
                for number, found in row.pace.get("waits", {}).items():
                    waited[int(number)] = waited.get(int(number), 0) + found
                hour_day = recent.setdefault(row.classifier, [0, 0])
                # Whatever is older cannot be of the last day.
                recent_slots = row.pace.get("slots", {}) if (row.day + 2) * per_day > slot else {}
                for number, found in recent_slots.items():
                    age = slot - (row.day * per_day + int(number))
                    hour_day[0] += found * (age <= 3600 // SLOT_S)
                    hour_day[1] += found * (age <= per_day)
        return {
            name: Pace(codes=codes[name], waits=waits[name], last_hour=recent[name][0], last_day=recent[name][1])
            for name in codes
        }

    def scores(
        self,
        classifier: str,
        *,
        since: date,
        finding: str | None = None,
        calling_ae_titles: Collection[str] | None = None,
    ) -> list[DayScores]:
        """By day; of one finding and of some calling AE titles, or of all."""
        # A path of SQLite's JSON has no way to write a quotation mark.
        alone = finding if finding is not None and '"' not in finding else None
        what = tally.c.scores[alone] if alone is not None else tally.c.scores
        query = select(tally.c.day, tally.c.calling_ae_title, tally.c.computation, what.label("what")).where(
            tally.c.classifier == classifier, tally.c.day >= _number(since), tally.c.computation != ""
        )
        if calling_ae_titles is not None:
            query = query.where(tally.c.calling_ae_title.in_(calling_ae_titles))
        found = []
        with self._engine.connect() as connection:
            for row in connection.execute(query.order_by(tally.c.day)):
                for label, its in ({alone: row.what} if alone is not None else row.what).items():
                    if its is None or finding not in (None, label):
                        continue
                    found.append(
                        DayScores(
                            day=_date(row.day),
                            calling_ae_title=row.calling_ae_title,
                            computation=row.computation,
                            finding=label,
                            threshold=its["threshold"],
                            scores=Scores(bins=tuple(its["bins"]), present_count=its["present"]),
                        )
                    )
        return found


def day_of(moment: datetime) -> date:
    """Tallies begin at midnight, UTC."""
    return moment.astimezone(UTC).date()


def _number(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _date(number: int) -> date:
    return date(1970, 1, 1) + timedelta(days=number)
