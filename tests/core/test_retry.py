"""When again: waits grow, stay under the cap, spread, and stop only for what cannot get better."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.retry import RetryPolicy
from router.errors import NoAcceptedContext, PeerBusy, PeerRefused, PeerUnreachable, RouterError

NOW = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
POLICY = RetryPolicy()


def wait_s(policy: RetryPolicy, attempts: int, jitter: float, error: BaseException | None = None) -> float | None:
    at = policy.next_attempt_at(now=NOW, attempts=attempts, error=error or PeerUnreachable("x"), jitter=jitter)
    return None if at is None else (at - NOW).total_seconds()


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True), st.floats(0.01, 100), st.floats(0.01, 10**6))
def test_a_wait_is_positive_and_never_over_the_cap_however_often_it_was_tried(
    attempts: int, jitter: float, first_s: float, cap_s: float
) -> None:
    wait = wait_s(RetryPolicy(first_s=first_s, cap_s=cap_s), attempts, jitter)
    assert wait is not None
    assert wait + 1e-6 > 0
    assert wait <= cap_s + 1e-6


@given(st.floats(0, 1, exclude_max=True))
def test_waits_double_until_the_cap(jitter: float) -> None:
    waits = [wait_s(POLICY, attempts, jitter) for attempts in range(1, 15)]
    half = 0.5 + 0.5 * jitter
    assert waits == pytest.approx([min(300.0, 2.0**n) * half for n in range(14)], abs=1e-5)


def test_tasks_that_failed_together_do_not_come_back_together() -> None:
    waits = {wait_s(POLICY, 20, jitter / 10) for jitter in range(10)}
    assert len(waits) == 10
    assert min(w for w in waits if w) >= 150


@pytest.mark.parametrize(
    "error", [NoAcceptedContext("x"), PeerRefused("x", status=0xA900)], ids=lambda error: type(error).__name__
)
def test_a_permanent_error_is_never_tried_again(error: RouterError) -> None:
    assert wait_s(POLICY, 1, 0.5, error) is None


@pytest.mark.parametrize("error", [PeerUnreachable("x"), PeerBusy("x", status=0xA700)])
def test_a_transient_error_is_tried_for_ever_by_default(error: RouterError) -> None:
    assert wait_s(POLICY, 10**6, 0.5, error) is not None


def test_a_limit_on_attempts_ends_transient_errors_at_that_attempt() -> None:
    policy = RetryPolicy(attempts_max=3)
    assert wait_s(policy, 2, 0.5) is not None
    assert wait_s(policy, 3, 0.5) is None


def test_an_exception_that_is_none_of_ours_is_tried_a_few_times_and_then_shown() -> None:
    """A fault in this program must become visible instead of repeating for ever."""
    fault = ZeroDivisionError()
    assert [wait_s(POLICY, attempts, 0.5, fault) is None for attempts in range(1, 7)] == [False] * 4 + [True] * 2


def test_the_answer_is_a_time_in_the_zone_it_was_given() -> None:
    at = POLICY.next_attempt_at(now=NOW, attempts=1, error=PeerUnreachable("x"), jitter=0.0)
    assert at == NOW + timedelta(seconds=0.5)
    assert at is not None
    assert at.tzinfo is UTC
