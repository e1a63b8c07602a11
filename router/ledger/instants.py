"""Aware datetimes outside, integer microseconds since 1970 (UTC) inside the tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(at: datetime) -> int:
    """Microseconds since 1970, exact. Raises TypeError for a naive datetime."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """Aware, UTC."""
    return _EPOCH + timedelta(microseconds=us)


def seconds_to_us(seconds: float) -> int:
    """A length of time."""
    return round(seconds * 1_000_000)
