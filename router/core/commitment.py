"""Storage Commitment (Push Model): who has promised to keep what. Values and the decision; no I/O. Source: PS3.4 Annex J."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

SOP_CLASS_UID = "1.2.840.10008.1.20.1"
#: The well-known SOP instance of the class: every N-ACTION and N-EVENT-REPORT names it.
SOP_INSTANCE_UID = "1.2.840.10008.1.20.1.1"
REQUEST_ACTION_TYPE = 1
ALL_COMMITTED, SOME_FAILED = 1, 2

# Failure Reason (0008,1197), PS3.3 C.14.1.1
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
SOP_CLASS_NOT_SUPPORTED = 0x0122
DUPLICATE_TRANSACTION_UID = 0x0131
RESOURCE_LIMITATION = 0x0213

_REASONS = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "no such object instance",
    CLASS_INSTANCE_CONFLICT: "conflict of class and instance",
    SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
    DUPLICATE_TRANSACTION_UID: "duplicate Transaction UID",
    RESOURCE_LIMITATION: "resource limitation",
}


class Promise(StrEnum):
    """`commitment.when`: what must be true of an instance before we say that it is committed."""

    DURABLE = "durable"
    """Its bytes are safe here, and its delivery is owed."""
    DELIVERED = "delivered"
    """Every destination of its plan has it, and has committed to it where it is asked to."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One SOP instance, as a Referenced SOP Sequence names it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """An N-ACTION-RQ that we took."""

    transaction_uid: str
    references: tuple[Reference, ...]
    calling_ae_title: str
    called_ae_title: str
    peer_host: str
    requested_at: datetime
    duplicate: bool = False
    """The same peer used this Transaction UID before, for other instances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What an N-EVENT-REPORT-RQ says."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: Mapping[Reference, int]
    """Reference -> failure reason."""

    @property
    def event_type(self) -> int:
        """1: all are committed; 2: at least one is not."""
        return SOME_FAILED if self.failed else ALL_COMMITTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one instance stands in the ledger."""

    sop_class_uid: str
    missed: bool
    """Its bytes are gone though nobody freed them."""
    owed_count: int
    """Deliveries (and commitments asked of destinations) that are not done: owed or failed."""
    done_count: int
    """Deliveries that are done."""


def describe_reason(reason: int) -> str:
    """E.g. «0x0112 (no such object instance)»."""
    return f"0x{reason:04X} ({_REASONS.get(reason, 'a reason that the Standard does not define')})"


def verdict(reference: Reference, standings: Sequence[Standing], *, promise: Promise) -> int | None:
    """0: committed; a failure reason; or None: it will be delivered, and is not yet.

    `standings` has one entry for each object under the SOP Instance UID: more than one is a conflict, and all must be safe.
    """
    if not standings:
        return NO_SUCH_INSTANCE
    if any(standing.sop_class_uid != reference.sop_class_uid for standing in standings):
        return CLASS_INSTANCE_CONFLICT
    verdicts = [_verdict(standing, promise) for standing in standings]
    if None in verdicts:
        return None
    return max(v for v in verdicts if v is not None)


def report_on(
    request: CommitmentRequest, standings: Mapping[str, Sequence[Standing]], *, promise: Promise, expired: bool
) -> CommitmentReport | None:
    """What to answer to the request, or None while something of it is still on its way.

    `standings`: SOP Instance UID -> how it stands. `expired`: `commitment.give_up_s` is over, and what is still on its way
    is reported as failed.
    """
    if request.duplicate:
        failed = dict.fromkeys(request.references, DUPLICATE_TRANSACTION_UID)
        return CommitmentReport(transaction_uid=request.transaction_uid, committed=(), failed=failed)
    committed: list[Reference] = []
    refused: dict[Reference, int] = {}
    for reference in request.references:
        said = verdict(reference, standings.get(reference.sop_instance_uid, ()), promise=promise)
        if said is None:
            if not expired:
                return None
            said = PROCESSING_FAILURE
        if said == 0:
            committed.append(reference)
        else:
            refused[reference] = said
    return CommitmentReport(transaction_uid=request.transaction_uid, committed=tuple(committed), failed=refused)


def _verdict(standing: Standing, promise: Promise) -> int | None:
    if standing.missed:
        return PROCESSING_FAILURE
    if not (standing.owed_count or standing.done_count):
        # Nobody will ever get it from us, and we are no archive: its bytes go after the retention time.
        return PROCESSING_FAILURE
    if promise is Promise.DELIVERED and standing.owed_count:
        return None
    return 0
