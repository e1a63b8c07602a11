"""What the ledger has written down of an original and of all that was made of it: the trail of custody, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from router.core.instance import InstanceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyEvent:
    """One line."""

    event_id: int
    """Of the ledger: later ones are larger."""
    instance_id: int
    at: datetime
    what: str
    """See `ledger.queries.TraceLine.what`."""
    kind: str
    """Of the task; empty where there was none."""
    target: str
    attempt: int
    detail: str
    claimed_at: datetime | None
    """When this attempt began; None where that is not known any more, and where there was no task."""
    owed_at: datetime | None
    """When the task came into being."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyInstance:
    """Whom a line is about."""

    sop_instance_uid: str
    sop_class_uid: str
    kind: InstanceKind
    byte_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody:
    """The trail of one original."""

    root_id: int
    study_instance_uid: str
    digest: str
    """See `SopInstance.digest`."""
    calling_ae_title: str
    called_ae_title: str
    received_at: datetime
    """When its last byte was in, the first time."""
    instances: Mapping[int, CustodyInstance]
    """By their numbers; the original has `root_id`."""
    events: Sequence[CustodyEvent]
    """In the order in which they were written."""

    @property
    def sop_instance_uid(self) -> str:
        """Of the original."""
        return self.instances[self.root_id].sop_instance_uid
