"""Have the scores of a finding moved? Histograms of scores, and one window of them compared with another one before it.

The measure is the population stability index: sum of (p - q) ln(p / q) over bins, where p and q are shares of the recent and of the
reference window. Without any change it is distributed as (1/n + 1/m) chi-square with one degree of freedom fewer than bins (B.
Yurdakul, Statistical Properties of Population Stability Index, Western Michigan University 2018), so that what is large for a
thousand images is chance for fifty; and what is no chance for a hundred thousand may be too small to matter (N. Siddiqi, Credit Risk
Scorecards, 2006: under 0.1 no change, over 0.25 a major one). A mark needs both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

#: Bins of equal width over [0, 1]; the threshold of a normalised score, 0.5, is an edge.
BINS = 40
#: What a histogram cannot tell from nothing: all scores just before an edge, then all just behind it.
DISTANCE_MIN = 1.2 / BINS
#: A bin of the comparison holds at least this share of both windows together, and is expected to hold so many images of
#: the smaller one (Cochran's rule for chi-square).
_SHARE_MIN, _EXPECTED_MIN = 0.05, 5


def bin_of(score: float) -> int:
    """The bin of a score; what is outside [0, 1], or no number, is at the end."""
    if score >= 1:
        return BINS - 1
    return int(score * BINS) if score > 0 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of one finding on some images."""

    bins: tuple[int, ...] = (0,) * BINS
    present_count: int = 0
    """Images on which the score was at or above the threshold."""

    @property
    def count(self) -> int:
        """Images."""
        return sum(self.bins)

    @property
    def present_share(self) -> float:
        """[0, 1]; 0 when there are none."""
        return self.present_count / (self.count or 1)

    def quantile(self, share: float) -> float:
        """The score under which that share of the images lies, evenly spread within a bin; 0 when there are none."""
        wanted, before = share * self.count, 0
        for number, count in enumerate(self.bins):
            if count and before + count >= wanted:
                return (number + max(0.0, wanted - before) / count) / BINS
            before += count
        return 0.0


def added(parts: Sequence[Scores]) -> Scores:
    """All of them together."""
    return Scores(
        bins=tuple(map(sum, zip(*(part.bins for part in parts), strict=True))) if parts else (0,) * BINS,
        present_count=sum(part.present_count for part in parts),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What counts as drift."""

    recent_days: int = 7
    """A week, so that each weekday is in it."""
    reference_days: int = 28
    """The four weeks before."""
    image_count_min: int = 100
    """In each window; with fewer nothing is said."""
    psi_min: float = 0.2
    """Smaller differences do not matter, however certain."""
    chance_max: float = 0.01
    """How likely one of the comparisons made together may be a mark by chance alone."""


class Grade(StrEnum):
    """What a comparison says."""

    TOO_FEW = "too few images"
    STEADY = "no drift"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Two windows compared."""

    grade: Grade
    recent: Scores
    reference: Scores
    psi: float = 0.0
    psi_needed: float = 0.0
    """From here on it would be drift: `Limits.psi_min`, or more where chance alone reaches that."""


def judge(recent: Scores, reference: Scores, limits: Limits, *, comparisons: int = 1) -> Verdict:
    """Whether `recent` differs from `reference`; `comparisons`: how many are made together (Bonferroni)."""
    if min(recent.count, reference.count) < max(1, limits.image_count_min):
        return Verdict(grade=Grade.TOO_FEW, recent=recent, reference=reference)
    psi, bin_count = stability_index(recent, reference)
    needed = max(limits.psi_min, psi_by_chance(recent, reference, bin_count, limits.chance_max / max(1, comparisons)))
    moved = psi >= needed and distance(recent, reference) >= DISTANCE_MIN
    grade = Grade.DRIFT if moved else Grade.STEADY
    return Verdict(grade=grade, recent=recent, reference=reference, psi=psi, psi_needed=needed)


def stability_index(recent: Scores, reference: Scores) -> tuple[float, int]:
    """The index and how many bins it is of: neighbours are joined until each holds enough."""
    pairs = _joined(recent, reference)
    # Half an image in each bin, so that an empty one does not make it infinite.
    n, m = (sum(side) + len(pairs) / 2 for side in zip(*pairs, strict=True))
    shares = [((one + 0.5) / n, (other + 0.5) / m) for one, other in pairs]
    return sum((p - q) * math.log(p / q) for p, q in shares), len(pairs)


def psi_by_chance(recent: Scores, reference: Scores, bin_count: int, chance: float) -> float:
    """The index that two windows of the same distribution exceed with this probability."""
    freedom = bin_count - 1
    if freedom < 1:
        return 0.0
    # Quantile of chi-square by Wilson and Hilferty (1931): within a percent of the exact one from 3 degrees on.
    z = NormalDist().inv_cdf(1 - chance)
    part = 2 / (9 * freedom)
    chi_square = float(freedom * (1 - part + z * math.sqrt(part)) ** 3)
    return (1 / recent.count + 1 / reference.count) * chi_square


def distance(recent: Scores, reference: Scores) -> float:
    """How far scores have moved on average (Wasserstein), on the scale of scores."""
    apart, total = 0.0, 0.0
    for one, other in zip(recent.bins, reference.bins, strict=True):
        apart += one / recent.count - other / reference.count
        total += abs(apart)
    return total / BINS


def began(days: Sequence[Scores]) -> int:
    """The number of the day in `days` from which on they differ most from those before, chance being taken into account."""
    best, found = 0.0, 0
    whole, before = added(days), Scores()
    for number in range(1, len(days)):
        before = added((before, days[number - 1]))
        after = Scores(bins=tuple(a - b for a, b in zip(whole.bins, before.bins, strict=True)))
        if before.count and after.count:
            psi, bin_count = stability_index(after, before)
            surprise = psi / ((1 / before.count + 1 / after.count) * max(1, bin_count - 1))
            if surprise > best:
                best, found = surprise, number
    return found


def _joined(recent: Scores, reference: Scores) -> list[tuple[int, int]]:
    count = recent.count + reference.count
    share = max(_SHARE_MIN, _EXPECTED_MIN / min(recent.count, reference.count))
    pairs: list[tuple[int, int]] = []
    one, other = 0, 0
    for a, b in zip(recent.bins, reference.bins, strict=True):
        one, other = one + a, other + b
        if one + other >= share * count:
            pairs.append((one, other))
            one, other = 0, 0
    if pairs and one + other:  # what is left is too little for a bin of its own
        last_one, last_other = pairs.pop()
        one, other = one + last_one, other + last_other
    return [*pairs, (one, other)] if one + other else pairs
