"""Drift: what has not changed is hardly ever marked, what has is; small numbers say nothing. Drawn samples, fixed seeds."""

from __future__ import annotations

import random

import pytest

from router.core import drift
from router.core.drift import BINS, Grade, Limits, Scores, judge

ANY_SIZE = Limits(psi_min=0.0, image_count_min=50)


def drawn(rng: random.Random, count: int, *, alpha: float = 2.0, beta: float = 6.0) -> Scores:
    """`count` scores of a beta distribution: most low, few high, as of a finding that is rare."""
    bins, present = [0] * BINS, 0
    for _ in range(count):
        score = rng.betavariate(alpha, beta)
        bins[drift.bin_of(score)] += 1
        present += score >= 0.5
    return Scores(bins=tuple(bins), present_count=present)


def at(score: float, count: int) -> Scores:
    bins = [0] * BINS
    bins[drift.bin_of(score)] = count
    return Scores(bins=tuple(bins), present_count=count if score >= 0.5 else 0)


@pytest.mark.parametrize(("recent", "reference"), [(150, 600), (400, 400), (300, 1200)])
def test_without_a_change_what_chance_alone_would_mark_is_as_rare_as_said(recent: int, reference: int) -> None:
    """The size limit is off: this is the part of the decision that takes chance into account, at 5 %."""
    rng = random.Random(20261122)
    limits = Limits(psi_min=0.0, chance_max=0.05, image_count_min=50)
    rounds = 300
    before = [drawn(rng, reference) for _ in range(rounds // 10)]
    marks = 0
    for number in range(rounds):
        verdict = judge(drawn(rng, recent), before[number % len(before)], limits)
        marks += verdict.psi >= verdict.psi_needed
    assert 0.01 <= marks / rounds <= 0.10


def test_without_a_change_nothing_is_marked_by_the_limits_that_ship() -> None:
    rng = random.Random(7)
    before = [drawn(rng, 600) for _ in range(20)]
    grades = {judge(drawn(rng, 150), before[n % 20], Limits(), comparisons=180).grade for n in range(300)}
    assert grades == {Grade.STEADY}


@pytest.mark.parametrize(("alpha", "beta"), [(3.5, 5.0), (1.0, 9.0), (0.8, 1.6)])
def test_a_shift_up_or_down_and_a_spread_are_marked_also_among_many_comparisons(alpha: float, beta: float) -> None:
    rng = random.Random(11)
    grades = [
        judge(drawn(rng, 250, alpha=alpha, beta=beta), drawn(rng, 1000), Limits(), comparisons=180).grade
        for _ in range(20)
    ]
    assert grades.count(Grade.DRIFT) >= 19


def test_small_samples_say_too_few_and_never_drift_however_large_the_difference() -> None:
    for recent, reference in ((99, 5000), (5000, 99), (0, 0), (0, 500), (3, 3)):
        assert judge(at(0.9, recent), at(0.1, reference), Limits()).grade is Grade.TOO_FEW
    assert judge(at(0.9, 100), at(0.1, 100), Limits()).grade is Grade.DRIFT


def test_what_is_certain_and_small_is_no_drift() -> None:
    """A hundred thousand images, scores higher by a fiftieth of their spread."""
    rng = random.Random(3)
    verdict = judge(drawn(rng, 20000, alpha=2.1), drawn(rng, 60000), ANY_SIZE)
    assert verdict.grade is Grade.STEADY
    verdict = judge(drawn(rng, 20000, alpha=2.4), drawn(rng, 60000), Limits())
    assert 0 < verdict.psi < verdict.psi_needed == 0.2


def test_scores_that_only_step_over_the_edge_of_a_bin_have_not_moved() -> None:
    verdict = judge(at(0.1999, 500), at(0.2001, 2000), Limits())
    assert verdict.psi > 1
    assert verdict.grade is Grade.STEADY
    assert judge(at(0.30, 500), at(0.2001, 2000), Limits()).grade is Grade.DRIFT


def test_the_index_of_two_halves_is_what_the_formula_says() -> None:
    """Shares 0.3/0.7 against 0.5/0.5: -0.2 ln 0.6 + 0.2 ln 1.4 = 0.169460."""
    recent = drift.added([at(0.1, 30000), at(0.9, 70000)])
    reference = drift.added([at(0.1, 50000), at(0.9, 50000)])
    psi, bin_count = drift.stability_index(recent, reference)
    assert (round(psi, 4), bin_count) == (0.1695, 2)
    assert drift.distance(recent, reference) == pytest.approx(0.2 * 0.8)


@pytest.mark.parametrize(("bin_count", "chance", "exact"), [(2, 0.05, 3.841), (10, 0.01, 21.666), (20, 0.001, 43.820)])
def test_what_chance_reaches_follows_the_tables_of_chi_square(bin_count: int, chance: float, exact: float) -> None:
    limit = drift.psi_by_chance(at(0.1, 200), at(0.1, 200), bin_count, chance)
    assert limit * 100 == pytest.approx(exact, rel=0.03)


def test_the_day_is_found_on_which_it_began() -> None:
    rng = random.Random(5)
    days = [drawn(rng, 30) for _ in range(30)] + [drawn(rng, 30, alpha=4.0, beta=5.0) for _ in range(5)]
    days[3] = Scores()  # a day without images
    assert abs(drift.began(days) - 30) <= 1
    assert drift.began([Scores(), at(0.2, 5)]) == 0


def test_quantiles_and_shares_are_of_the_images_and_any_number_has_a_bin() -> None:
    scores = drift.added([at(0.2, 50), at(0.6, 50)])
    assert (scores.count, scores.present_share) == (100, 0.5)
    assert 0.2 <= scores.quantile(0.25) <= 0.225
    assert 0.6 <= scores.quantile(0.9) <= 0.625
    assert (Scores().quantile(0.5), Scores().present_share, drift.added([])) == (0.0, 0.0, Scores())
    assert [drift.bin_of(x) for x in (-1.0, 0.0, 0.5, 0.999, 1.0, 7.0, float("nan"), float("inf"))] == [
        0, 0, 20, 39, 39, 39, 0, 39,
    ]  # fmt: skip
