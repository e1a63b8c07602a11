"""What the web pages show, as plain values: the node passes in functions that read the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One kind of work for one target, as the ledger counts it now."""

    kind: str
    target: str
    counts: dict[str, int]
    """Task state -> number of tasks."""
    oldest_age_s: float | None
    """Of tasks that are still owed; None when nothing is owed."""
    trouble: str = ""
    """Plain English: why nothing moves; empty when it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The node at one moment."""

    ae_title: str
    port: int
    version: str
    started_at: str
    instances: dict[str, int]
    """Instance kind -> number of instances in the ledger."""
    conflict_count: int
    """Instances that came with another one's SOP Instance UID and other bytes: kept apart, delivered, for people to look at."""
    outcomes: dict[str, int]
    """«analysed» and reason codes of «not analysed» -> number of images."""
    lanes: Sequence[Lane]
    classifiers: dict[str, bool]
    """Name -> whether its process is ready; while it is not, images wait and originals do not."""
    problems: Sequence[str] = field(default_factory=tuple)
    """Why the node is not ready, in words; empty when it is."""


ReadStatus = Callable[[], Status]
