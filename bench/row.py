"""What was measured: one figure of one contender, with all the values that it is the median of, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

#: Contenders whose name begins so are ours.
OURS = "router"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure."""

    group: str
    what: str
    """The circumstances: rows that have this in common are compared."""
    who: str
    unit: str
    values: Sequence[float] = ()
    """One for each round."""
    reason: str = ""
    """Why it was not measured."""

    @property
    def figure(self) -> float | None:
        """The median, or None."""
        return median(self.values) if self.values else None

    @property
    def ours(self) -> bool:
        """True for a contender of this project."""
        return self.who.startswith(OURS)


def found(rows: Sequence[Row], *, group: str, what: str, who: str, unit: str) -> float | None:
    """The figure of one row, or None when it was not measured."""
    for row in rows:
        if (row.group, row.what, row.who, row.unit) == (group, what, who, unit):
            return row.figure
    return None
