"""What the web pages show of the node as a whole, as plain values: counts and names of the configuration, nothing of patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    down_s: float | None = None
    """How long its destination has not been reached; None while it is, and for other kinds of work."""
    breaker: str = ""
    """Of a destination: closed (everybody may try), open (nobody until the next probe), probing."""

    @property
    def owed_count(self) -> int:
        """Tasks in which work is owed."""
        return sum(self.counts.get(state, 0) for state in ("ready", "leased", "retry"))


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
    drifts: Mapping[str, int] = field(default_factory=dict)
    """Classifier -> of how many findings, each by calling AE title, the scores have moved lately."""
    last_hour: Mapping[str, int] = field(default_factory=dict)
    """What happened in the last 60 minutes: received, delivered, analysed, failed and so on -> how often."""
    spool_free_byte_count: int = 0
    """Of the spool's file system."""
    spool_free_byte_count_min: int = 0
    audit_lost_count: int = 0
    """Audit messages that the syslog receiver never got; the files have them."""
    audit_waiting_count: int = 0
    """Audit messages that wait for the syslog receiver."""
    audit_trouble: str = ""
    """Why the syslog receiver gets nothing; empty when it does or there is none."""
    problems: Sequence[str] = field(default_factory=tuple)
    """Why the node is not ready, in words; empty when it is."""
    warnings: Sequence[str] = field(default_factory=tuple)
    """What else is wrong, in words; images are taken in all the same."""

    @property
    def owed_count(self) -> int:
        """Tasks in which work is owed."""
        return sum(lane.owed_count for lane in self.lanes)

    @property
    def failed_count(self) -> int:
        """Tasks that wait for an operator."""
        return sum(lane.counts.get("failed", 0) for lane in self.lanes)

    @property
    def in_work_count(self) -> int:
        """Tasks that a worker has at this moment."""
        return sum(lane.counts.get("leased", 0) for lane in self.lanes)

    @property
    def oldest_age_s(self) -> float | None:
        """Of what is owed longest; None when nothing is."""
        return max((lane.oldest_age_s for lane in self.lanes if lane.oldest_age_s is not None), default=None)


ReadStatus = Callable[[], Status]
