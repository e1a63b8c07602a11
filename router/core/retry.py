"""When to try again, or never."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from router.errors import PermanentError, RouterError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential waiting with jitter and a cap; for ever by default, because a PACS can be down for a weekend."""

    first_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 300.0
    attempts_max: int | None = None
    """None: never give up on a transient error."""
    unexpected_attempts_max: int = 5
    """For exceptions that are none of ours: a fault in this program should become visible, not repeat for ever."""

    def next_attempt_at(self, *, now: datetime, attempts: int, error: BaseException, jitter: float) -> datetime | None:
        """The time of the next attempt, or None for never.

        `attempts` counts the tries so far, the failed one included; `jitter` is in [0, 1): the caller draws it, so that a
        thousand tasks that failed together do not come back together.
        """
        limit = self.attempts_max if isinstance(error, RouterError) else self.unexpected_attempts_max
        if isinstance(error, PermanentError) or (limit is not None and attempts >= limit):
            return None
        exponent = min(attempts - 1, 64)  # 2**64 s is past every cap; beyond it floats overflow
        wait_s = min(self.cap_s, self.first_s * self.factor**exponent)
        return now + timedelta(seconds=wait_s * (0.5 + 0.5 * jitter))
