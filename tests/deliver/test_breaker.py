"""The circuit breaker, with the time as an argument."""

from __future__ import annotations

from router.deliver.breaker import Breaker, BreakerState


def test_closed_lets_everybody_try() -> None:
    breaker = Breaker()
    assert breaker.may_try(0)
    assert breaker.may_try(0)
    assert not breaker.succeeded(), "no news"


def test_after_a_failure_one_probe_at_a_time_when_the_pause_is_over() -> None:
    breaker = Breaker(first_s=10)
    assert breaker.failed(0, jitter=1), "news"
    assert not breaker.may_try(9.9)
    assert breaker.may_try(10)
    assert not breaker.may_try(10), "somebody is at it"
    assert breaker.succeeded(), "news"
    assert breaker.may_try(10)
    assert breaker.may_try(10)


def test_pauses_grow_up_to_the_cap_and_start_again_after_a_success() -> None:
    breaker = Breaker(first_s=1, cap_s=10)
    now, pauses = 0.0, []
    for _ in range(6):
        breaker.failed(now, jitter=1)
        pauses.append(breaker.retry_at - now)
        now = breaker.retry_at
        assert breaker.may_try(now)
    assert pauses == [1, 2, 4, 8, 10, 10]
    breaker.succeeded()
    breaker.failed(now, jitter=1)
    assert breaker.retry_at - now == 1


def test_jitter_shortens_a_pause_by_up_to_a_half() -> None:
    breaker = Breaker(first_s=10)
    breaker.failed(0, jitter=0)
    assert breaker.retry_at == 5


def test_a_weekend_of_failures_does_not_overflow() -> None:
    breaker = Breaker(first_s=1, cap_s=30)
    for now in range(0, 200_000, 31):
        breaker.may_try(now)
        breaker.failed(now, jitter=1)
    assert breaker.retry_at - now == 30


def test_failures_that_may_be_an_instances_fault_do_not_lengthen_the_pause() -> None:
    breaker = Breaker(first_s=1, cap_s=30)
    now = 0.0
    for _ in range(5):
        breaker.failed(now, jitter=1, lengthens=False)
        assert breaker.retry_at - now == 1
        now = breaker.retry_at
        assert breaker.may_try(now)


def test_late_failures_of_those_who_began_before_it_opened_change_nothing() -> None:
    breaker = Breaker(first_s=10)
    breaker.failed(0, jitter=1)
    assert not breaker.failed(9, jitter=1), "no news"
    assert breaker.retry_at == 10


def test_a_probe_that_found_nothing_to_try_with_leaves_the_role_to_the_next() -> None:
    breaker = Breaker(first_s=10)
    breaker.failed(0, jitter=1)
    assert breaker.may_try(10)
    breaker.unresolved(11)
    assert breaker.state is BreakerState.OPEN
    assert breaker.may_try(11)
