"""Who is told of what, and when: decisions about notifications. Who was told stands in the ledger (`ledger.notices`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from router.core.findings import Finding
from router.core.lifecycle import TaskKind

#: The disk has enough room again only with so much more than what it was short of, so that one at the edge is no news twice a minute.
ROOM_AGAIN = 1.1


class NoticeEvent(StrEnum):
    """What people can be told of."""

    DESTINATION_DOWN = "destination_down"
    DESTINATION_UP = "destination_up"
    """Only after they were told that it is down."""
    TASK_FAILED = "task_failed"
    DISK_SHORT = "disk_short"
    DISK_ENOUGH = "disk_enough"
    """Only after they were told that it is short."""
    FINDING = "finding"
    TEST = "test"
    """Somebody tries a channel out; never in the ledger."""


#: What a trouble that lasts begins and ends with.
BACK_AGAIN = {
    NoticeEvent.DESTINATION_DOWN: NoticeEvent.DESTINATION_UP,
    NoticeEvent.DISK_SHORT: NoticeEvent.DISK_ENOUGH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """How facts of one group share a message."""

    first_s: float
    """From the first fact to its message."""
    again_s: float
    """From one message of the group to the next, at least."""

    def due_at(self, now: datetime, last_due_at: datetime | None) -> datetime:
        """When a message is due whose first fact is of now; `last_due_at`: when the group's message before was."""
        soonest = now + timedelta(seconds=self.first_s)
        return soonest if last_due_at is None else max(soonest, last_due_at + timedelta(seconds=self.again_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class DownTopic:
    """Destinations that cannot be reached."""

    after_s: float
    destinations: tuple[str, ...] = ()
    """Empty: all."""
    and_up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskTopic:
    """A spool that runs out of room."""

    free_byte_count_min: int
    after_s: float
    and_enough: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTopic:
    """Tasks that failed for good."""

    gathering: Gathering
    kinds: tuple[str, ...] = ()
    """Empty: all but notifications, whose failing cannot be told by failing again."""
    targets: tuple[str, ...] = ()

    def wants(self, kind: TaskKind, target: str) -> bool:
        """Whether this failure is meant."""
        chosen = kind.value in self.kinds or not self.kinds
        return kind is not TaskKind.NOTIFY and chosen and (target in self.targets or not self.targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingTopic:
    """Findings at or above a score."""

    classifier: str
    gathering: Gathering
    labels: tuple[str, ...] = ()
    """Empty: all."""
    score_min: float | None = None
    """None: the classifier's own operating point."""

    def chosen(self, classifier: str, findings: Sequence[Finding]) -> tuple[Finding, ...]:
        """Those that are meant."""
        if classifier != self.classifier:
            return ()
        return tuple(
            one
            for one in findings
            if (one.label in self.labels or not self.labels)
            and one.score >= (one.threshold if self.score_min is None else self.score_min)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What one [notify.NAME] wants to hear of."""

    name: str
    down: DownTopic | None = None
    disk: DiskTopic | None = None
    failed: FailedTopic | None = None
    findings: tuple[FindingTopic, ...] = ()

    def chosen(self, classifier: str, findings: Sequence[Finding]) -> dict[str, tuple[Finding, Gathering]]:
        """Label -> the finding, and how it is gathered; one that two topics want is wanted by the first."""
        wanted: dict[str, tuple[Finding, Gathering]] = {}
        for topic in self.findings:
            for finding in topic.chosen(classifier, findings):
                wanted.setdefault(finding.label, (finding, topic.gathering))
        return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A trouble that began and has not ended: a destination that is down, a disk that is short."""

    episode_id: int
    event: NoticeEvent
    subject: str
    began_at: datetime
    told: frozenset[str] = frozenset()
    """Subscriptions that have been told."""

    def owed(self, now: datetime, after_s: Mapping[str, float]) -> tuple[str, ...]:
        """Subscriptions that must be told now; `after_s`: how long each of them waits. Only while the trouble is seen."""
        lasted_s = (now - self.began_at).total_seconds()
        return tuple(name for name, wait_s in after_s.items() if name not in self.told and lasted_s >= wait_s)


class Step(StrEnum):
    """What becomes of an episode."""

    BEGIN = "begin"
    GO_ON = "go_on"
    """The trouble is seen, and was before."""
    END = "end"
    NOTHING = "nothing"
    """Nothing is wrong, or nobody knows: a node that has just started has not heard of its destinations."""


def step(episode: Episode | None, trouble: bool | None) -> Step:
    """`trouble`: whether it is there; None: not known."""
    if trouble is None or (episode is None and not trouble):
        return Step.NOTHING
    if episode is None:
        return Step.BEGIN
    return Step.GO_ON if trouble else Step.END


def is_short(free_byte_count: int, free_byte_count_min: int) -> bool | None:
    """None: neither short nor with so much room that it is not short again soon."""
    if free_byte_count < free_byte_count_min:
        return True
    return False if free_byte_count >= ROOM_AGAIN * free_byte_count_min else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that people are told of."""

    at: datetime
    detail: Mapping[str, Any]
    """What `notify.message` makes sentences of. Names of the configuration, numbers, labels: nothing of patients."""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    calling_ae_title: str = ""
    instance_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message that is owed to one [notify.NAME]."""

    uid: str
    """The same however often it is sent."""
    event: NoticeEvent
    subject: str
    """What it is about: a destination, a kind of work and its target, a classifier."""
    created_at: datetime
    fact_count: int
    facts: Sequence[Fact] = field(default_factory=tuple)
    """The first of them."""
