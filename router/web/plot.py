"""How scores are distributed day by day, as shapes for an SVG: a column for each day, or for each week of a long time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

from router.core.drift import BINS, Scores, added
from router.ledger.tallies import DayScores
from router.web.drifts import Judged

#: More days than this are drawn week by week.
_DAYS_MAX = 120
#: Two bins of a histogram are one bar.
_JOIN = 2
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
#: Room on both sides of a column, of its width; and what can be seen of one that has no height, in percent.
_GAP, _HEIGHT_MIN = 0.12, 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Some days, drawn from `x` on."""

    day: date
    x: int
    days: int
    scores: Scores
    quantiles: tuple[float, float, float, float, float]
    """Scores under which 10, 25, 50, 75 and 90 % of the images lie."""

    @property
    def cells(self) -> Sequence[str]:
        """The same in words: images, three scores, the share that is present."""
        low, _, median, _, high = self.quantiles
        return (
            str(self.scores.count),
            *(f"{score:.2f}" for score in (low, median, high)),
            f"{100 * self.scores.present_share:.0f} %",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A piece of the scale, with the share of images in each window; heights are percent of the highest bar."""

    low: float
    high: float
    recent_share: float
    reference_share: float
    recent: float
    reference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One calling AE title."""

    calling_ae_title: str
    judged: Judged | None
    """None: nothing of it came recently."""
    columns: Sequence[Column]
    first: date
    days: int
    threshold: float
    reference_x: int
    recent_x: int
    changed_x: Sequence[int]
    """Days on which other weights, or another way of computing, came into use."""

    @property
    def images(self) -> int:
        """In all columns."""
        return sum(column.scores.count for column in self.columns)

    @property
    def wide(self) -> str:
        """Path of 80 % of the images of each column; heights are percent from the top."""
        return self._boxes(0, 4)

    @property
    def middle(self) -> str:
        """Path of the middle half."""
        return self._boxes(1, 3)

    @property
    def median(self) -> str:
        """Path of lines."""
        return "".join(
            f"M{c.x + _GAP * c.days:.2f} {100 - 100 * c.quantiles[2]:.2f}h{(1 - 2 * _GAP) * c.days:.2f}"
            for c in self.columns
        )

    def _boxes(self, low: int, high: int) -> str:
        out = []
        for column in self.columns:
            top, bottom = 100 - 100 * column.quantiles[high], 100 - 100 * column.quantiles[low]
            left, width = column.x + _GAP * column.days, (1 - 2 * _GAP) * column.days
            out.append(f"M{left:.2f} {top:.2f}h{width:.2f}v{max(_HEIGHT_MIN, bottom - top):.2f}h-{width:.2f}z")
        return "".join(out)

    @property
    def dates(self) -> Sequence[date]:
        """For the axis: the first, some between, the last."""
        return [self.first + timedelta(days=round(part * (self.days - 1) / 3)) for part in range(4)]

    @property
    def since_x(self) -> int | None:
        """Where a drift began."""
        if self.judged is None or self.judged.since is None:
            return None
        return max(0, (self.judged.since - self.first).days)

    def bars(self) -> Sequence[Bar]:
        """Both windows beside each other; none when either is empty."""
        return list(_bars(self.judged)) if self.judged is not None else []


def panel(
    rows: Sequence[DayScores], judged: Judged | None, *, first: date, last: date, reference: date, recent: date
) -> Panel:
    """`rows` of one finding and one calling AE title, by day, not empty; from `first` to `last` is drawn."""
    days = (last - first).days + 1
    step = 7 if days > _DAYS_MAX else 1
    pieces: dict[int, list[Scores]] = {}
    for row in rows:
        pieces.setdefault((row.day - first).days // step * step, []).append(row.scores)
    changes = [(after.day - first).days for before, after in pairwise(rows) if before.computation != after.computation]
    return Panel(
        calling_ae_title=rows[0].calling_ae_title,
        judged=judged,
        columns=[
            _column(first, x, min(step, days - x), added(parts))
            for x, parts in sorted(pieces.items())
            if any(part.count for part in parts)
        ],
        first=first,
        days=days,
        threshold=rows[-1].threshold,
        reference_x=max(0, (reference - first).days),
        recent_x=max(0, (recent - first).days),
        changed_x=changes,
    )


def _column(first: date, x: int, days: int, scores: Scores) -> Column:
    low, lower, median, upper, high = (scores.quantile(share) for share in _QUANTILES)
    day = first + timedelta(days=x)
    return Column(day=day, x=x, days=days, scores=scores, quantiles=(low, lower, median, upper, high))


def _bars(judged: Judged) -> Iterator[Bar]:
    recent, reference = judged.verdict.recent, judged.verdict.reference
    if not recent.count or not reference.count:
        return
    shares = [
        [sum(side.bins[n : n + _JOIN]) / side.count for n in range(0, BINS, _JOIN)] for side in (recent, reference)
    ]
    highest = max(map(max, shares))
    for number, (now, before) in enumerate(zip(*shares, strict=True)):
        yield Bar(
            low=number * _JOIN / BINS,
            high=(number + 1) * _JOIN / BINS,
            recent_share=now,
            reference_share=before,
            recent=round(100 * now / highest, 2),
            reference=round(100 * before / highest, 2),
        )
