"""The time of this machine, for those that take it as an argument."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """`core.ports.Clock`."""

    def now(self) -> datetime:
        """Aware, UTC."""
        return datetime.now(UTC)
