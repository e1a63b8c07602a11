"""How much is measured: rounds, sizes of workloads, and when to stop."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Of one run."""

    quick: bool
    """One round of little, to see that everything works: its figures mean nothing."""
    rounds: int
    minutes_max: float
    """For each group; one that takes longer ends with fewer rounds."""
    begun: float = field(default_factory=time.monotonic)

    def count(self, full: int, least: int = 1) -> int:
        """A number of instances, repetitions, …: `full`, or a tenth of it."""
        return max(least, full // 10) if self.quick else full

    def spent(self, since: float) -> bool:
        """True when a group that began at `since` (time.monotonic) has used up its time."""
        return time.monotonic() - since > self.minutes_max * 60
