"""A trail of custody as a trace: one for each original, a span for each step, numbers that any process computes alike.

The trace's number comes from the original's SOP Instance UID and digest, a span's from that and the ledger's number of its
event: so what a node does after a crash, or another node with the same image, joins the same trace. Nothing of a patient is
part of a span: UIDs, AE titles, names of the configuration, coded reasons. `docs/operating/traces.md` lists them; a test compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from router.core.custody import Custody, CustodyEvent

#: Every attribute: name -> what it says.
ATTRIBUTES: dict[str, str] = {
    "dicom.sop_instance_uid": "SOP Instance UID of the image, or of the result that the span is about",
    "dicom.sop_class_uid": "its SOP Class UID",
    "dicom.study_instance_uid": "Study Instance UID",
    "dicom.calling_ae_title": "who sent the image",
    "dicom.called_ae_title": "whom they called",
    "router.instance_kind": "original, sr, heatmap, …",
    "router.byte_count": "of the data set",
    "router.target": "classifier or destination",
    "router.attempt": "1 for the first one",
    "router.outcome": "the ledger's word for what happened",
    "router.reason": "code of the reason why an image was not analysed",
    "router.waited_s": "from when it was owed to when this attempt began",
}


class Kind(Enum):
    """OpenTelemetry's SpanKind."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One step."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    begun_at: datetime
    ended_at: datetime
    kind: Kind = Kind.INTERNAL
    failed: bool = False
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)


#: The ledger's word -> the span's name; a word that is not here is no step of an image's way.
_NAMES = {
    "received": "durable",
    "received_again": "durable",
    "conflict": "durable",
    "duplicate": "duplicate",
    "analysed": "classify",
    "not_analysed": "classify",
    "made": "report",
    "delivered": "deliver",
    "replaced": "deliver",
    "committed": "commit",
    "not_committed": "commit",
    "commitment_asked": "commitment asked",
    "commitment_reported": "commitment reported",
    "requeued": "requeue",
    "lease_lost": "lease lost",
    # by the kind of the task
    "done": "",
    "failed": "",
    "deferred": "",
}
_DURABLE = ("received", "received_again", "conflict")
_DURABLE_WITHIN = timedelta(minutes=10)
_FAILED = ("failed", "deferred", "not_committed", "lease_lost")


def trace_id_of(sop_instance_uid: str, digest: str) -> int:
    """Of an original; not zero."""
    return int.from_bytes(hashlib.sha256(f"{sop_instance_uid}\x1f{digest}".encode()).digest()[:16], "big") or 1


def spans_of(trail: Custody, *, after_id: int, receiving_s: Callable[[str], float | None]) -> Iterator[Span]:
    """Of the events that are newer than `after_id`.

    `receiving_s`: how long the C-STORE of a SOP instance took, from its first byte to its answer; None where nobody knows.
    """
    trace_id = trace_id_of(trail.sop_instance_uid, trail.digest)
    before: list[CustodyEvent] = []
    for one in trail.events:
        before.append(one)
        if one.event_id <= after_id or one.what not in _NAMES:
            continue
        first = one.what in _DURABLE and not any(earlier.what in _DURABLE for earlier in before[:-1])
        # An image that was forgotten and came again says when it came first: that is not part of this way.
        recent = timedelta() <= one.at - trail.received_at < _DURABLE_WITHIN
        last_byte_at = trail.received_at if first and recent else one.at
        if first:
            yield Span(
                name="receive",
                trace_id=trace_id,
                span_id=_root_id(trace_id),
                parent_id=None,
                begun_at=_begun(last_byte_at, one, receiving_s(trail.sop_instance_uid)),
                ended_at=last_byte_at,
                kind=Kind.SERVER,
                attributes=_receipt(trail, one),
            )
        yield Span(
            name=_NAMES[one.what] or one.kind,
            trace_id=trace_id,
            span_id=_span_id(trace_id, one.event_id),
            parent_id=_parent(trace_id, trail, before),
            begun_at=one.claimed_at or last_byte_at,
            ended_at=one.at,
            kind=Kind.CLIENT if one.kind in ("deliver", "commit") else Kind.INTERNAL,
            failed=one.what in _FAILED,
            attributes=_attributes(trail, one),
        )


def _begun(last_byte_at: datetime, durable: CustodyEvent, receiving_s: float | None) -> datetime:
    """When its first byte came: `receiving_s` ends with the answer, shortly after it was durable."""
    if receiving_s is None:
        return last_byte_at
    return min(last_byte_at, durable.at - timedelta(seconds=receiving_s))


def _parent(trace_id: int, trail: Custody, events: list[CustodyEvent]) -> int:
    """The span without which the last of `events` would not be."""
    one, earlier = events[-1], events[:-1]
    same_target = [event for event in earlier if event.target == one.target]
    match one.kind if one.what not in ("made", *_DURABLE) else one.what:
        case "made":  # of a look, of a study's images, or because a destination takes no other SOP class
            candidates = [event for event in same_target if event.what != "made" and event.kind == one.kind]
        case "deliver" if one.instance_id != trail.root_id:
            candidates = [event for event in earlier if event.what == "made" and event.instance_id == one.instance_id]
        case "commit":
            candidates = [e for e in same_target if e.what == "delivered" and e.instance_id == one.instance_id]
        case word if word in _DURABLE:
            candidates = []
        case _:
            candidates = [event for event in earlier if event.what in _DURABLE]
    return _span_id(trace_id, candidates[-1].event_id) if candidates else _root_id(trace_id)


def _receipt(trail: Custody, durable: CustodyEvent) -> Mapping[str, str | int | float]:
    return {
        **_attributes(trail, durable),
        "dicom.study_instance_uid": trail.study_instance_uid,
        "dicom.calling_ae_title": trail.calling_ae_title,
        "dicom.called_ae_title": trail.called_ae_title,
    }


def _attributes(trail: Custody, one: CustodyEvent) -> Mapping[str, str | int | float]:
    about = trail.instances[one.instance_id]
    found: dict[str, str | int | float] = {
        "dicom.sop_instance_uid": about.sop_instance_uid,
        "dicom.sop_class_uid": about.sop_class_uid,
        "router.instance_kind": about.kind.value,
        "router.byte_count": about.byte_count,
        "router.outcome": one.what,
    }
    if one.target:
        found |= {"router.target": one.target, "router.attempt": one.attempt}
    if one.what == "not_analysed":
        # Of a text only what is a code: a reason in words may quote what a peer said, and that an image.
        found["router.reason"] = one.detail.partition(":")[0]
    if one.claimed_at is not None and one.owed_at is not None:
        found["router.waited_s"] = max(0.0, (one.claimed_at - one.owed_at).total_seconds())
    return found


def _root_id(trace_id: int) -> int:
    return _span_id(trace_id, 0)


def _span_id(trace_id: int, event_id: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{trace_id:032x}/{event_id}".encode()).digest()[:8], "big") or 1
