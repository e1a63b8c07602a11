"""A circuit breaker: after a failure nobody tries, then one probe at a time with growing pauses, then everybody again.

Times are seconds of any clock that only goes forward; the caller passes them in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class BreakerState(StrEnum):
    """Who may try."""

    CLOSED = "closed"
    """Everybody."""
    OPEN = "open"
    """Nobody until `retry_at`."""
    PROBING = "probing"
    """The one that is at it."""


@dataclass(slots=True)
class Breaker:
    """State of one destination."""

    first_s: float = 1.0
    cap_s: float = 30.0
    factor: float = 2.0
    state: BreakerState = field(default=BreakerState.CLOSED, init=False)
    retry_at: float = field(default=0.0, init=False)
    """When the next probe may start, while it is open."""
    failures: int = field(default=0, init=False)
    """In a row; those that lengthen the pause."""

    def may_try(self, now: float) -> bool:
        """True when everybody may, or when the asker is now the probe: then `succeeded`, `failed` or `unresolved` must follow."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN and now >= self.retry_at:
            self.state = BreakerState.PROBING
            return True
        return False

    def succeeded(self) -> bool:
        """The destination works. True when it did not before."""
        was_down = self.state is not BreakerState.CLOSED
        self.state, self.failures = BreakerState.CLOSED, 0
        return was_down

    def failed(self, now: float, *, jitter: float, lengthens: bool = True) -> bool:
        """The destination does not work. True when that is news.

        `jitter` in [0, 1) shortens the pause by up to a half, so that many nodes do not probe together. A failure that
        may be one instance's fault does not lengthen the pause: others should soon have their turn.
        """
        was_up = self.state is BreakerState.CLOSED
        if not was_up and self.state is BreakerState.OPEN:
            return False  # somebody who started before it opened
        self.failures += 1 if lengthens or not self.failures else 0
        pause_s = min(self.cap_s, self.first_s * self.factor ** min(self.failures - 1, 64))
        self.state, self.retry_at = BreakerState.OPEN, now + pause_s * (0.5 + 0.5 * jitter)
        return was_up

    def unresolved(self, now: float) -> None:
        """The probe found nothing to try with; the next asker may be the probe."""
        if self.state is BreakerState.PROBING:
            self.state, self.retry_at = BreakerState.OPEN, now
