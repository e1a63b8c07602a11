"""What crash rounds found, added up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Tally:
    """Counts of any number of rounds; what must be empty or zero is in `wrong`."""

    rounds: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """How rounds ended: fault points, "at random", "at start", "SIGTERM", "power cut"."""
    sent: int = 0
    """C-STOREs that were answered."""
    acknowledged: int = 0
    """Instances answered with Success."""
    reports: int = 0
    """Structured Reports at the destination."""
    delivered_again: int = 0
    """Arrivals at a recording destination that were not the first of their UID."""
    orphans: int = 0
    """Spool files without a row when all was done; harmless, and removed after a grace time."""
    lost: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    no_report: list[str] = field(default_factory=list)
    """Acknowledged images that should have a Structured Report at the destination and have none."""
    two_reports: list[str] = field(default_factory=list)
    changed_reports: list[str] = field(default_factory=list)
    """Structured Reports that arrived with different bytes under one UID."""
    strangers: list[str] = field(default_factory=list)
    """At the destination, and neither sent nor made from what was sent."""
    owed: int = 0
    """Tasks left that are neither done nor failed."""
    failed: int = 0
    missing_files: int = 0
    """Rows that name a file which is not there."""
    refused: Counter[str] = field(default_factory=Counter)
    """Statuses other than Success."""
    delivered_too_often: list[str] = field(default_factory=list)
    not_ended: list[str] = field(default_factory=list)
    """SIGTERMs that did not end the node in good order."""

    def add(self, other: Tally) -> None:
        """Takes the other's counts in."""
        for item in fields(self):
            mine, more = getattr(self, item.name), getattr(other, item.name)
            if isinstance(mine, Counter):
                mine.update(more)
            else:
                setattr(self, item.name, mine + more)

    @property
    def wrong(self) -> dict[str, object]:
        """What should not be; empty when everything held."""
        names = (
            "lost",
            "altered",
            "no_report",
            "two_reports",
            "changed_reports",
            "strangers",
            "owed",
            "failed",
            "missing_files",
            "delivered_too_often",
            "not_ended",
        )
        return {name: value for name in names if (value := getattr(self, name))}

    def table(self) -> str:
        """For people."""
        lines = [
            f"{'rounds':28}{self.rounds}",
            f"{'C-STOREs answered':28}{self.sent}",
            f"{'instances acknowledged':28}{self.acknowledged}",
            f"{'lost':28}{len(self.lost)}",
            f"{'altered':28}{len(self.altered)}",
            f"{'Structured Reports':28}{self.reports}",
            f"{'  missing':28}{len(self.no_report)}",
            f"{'  two of one image':28}{len(self.two_reports)}",
            f"{'  one UID, other bytes':28}{len(self.changed_reports)}",
            f"{'strangers':28}{len(self.strangers)}",
            f"{'tasks owed / failed':28}{self.owed} / {self.failed}",
            f"{'rows without a file':28}{self.missing_files}",
            f"{'not ended by SIGTERM':28}{len(self.not_ended)}",
            f"{'delivered once more':28}{self.delivered_again} (harmless: at most what one association had claimed, per kill)",
            f"{'orphans left in the spool':28}{self.orphans} (harmless: removed after a grace time)",
            f"{'refused':28}{', '.join(f'{k} x {v}' for k, v in sorted(self.refused.items())) or 'none'}",
            "ended",
            *(f"  {name:26}{count}" for name, count in sorted(self.ends.items())),
        ]
        return "\n".join(lines)
