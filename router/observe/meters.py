"""What only this process sees happen, counted and timed for Prometheus since its start; what the ledger knows is read from there.

Labels are names of events, statuses and names of the configuration: no UID, nothing of patients.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram

from router.core.admission import (
    CANNOT_UNDERSTAND,
    DATA_SET_MISMATCH,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
)
from router.observe.events import EVENTS
from router.observe.log import also_tell

#: Name -> what it says. `docs/operating/metrics.md` lists the same; a test compares.
METERS: dict[str, str] = {
    "router_events_total": "lines of the log since the start, by event, written or not; see the list of events",
    "router_store_answers_total": "answers to C-STORE since the start, by status",
    "router_durable_seconds": "from the last byte of a C-STORE to its durable Success",
    "router_classify_seconds": "from a question to the classify process to its answer, by classifier",
    "router_ledger_commit_seconds": "one transaction of the ledger, with its fsync",
    "router_traces_total": "spans that the collector of traces took (sent), and events of the ledger that it was away for too long to get (dropped)",
}
REGISTRY = CollectorRegistry()
_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SLOW_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

_EVENTS = Counter("router_events", METERS["router_events_total"], ["event"], registry=REGISTRY)
_ANSWERS = Counter("router_store_answers", METERS["router_store_answers_total"], ["status"], registry=REGISTRY)
_DURABLE = Histogram("router_durable_seconds", METERS["router_durable_seconds"], buckets=_FAST_S, registry=REGISTRY)
_CLASSIFY = Histogram(
    "router_classify_seconds", METERS["router_classify_seconds"], ["classifier"], buckets=_SLOW_S, registry=REGISTRY
)
_COMMIT = Histogram(
    "router_ledger_commit_seconds", METERS["router_ledger_commit_seconds"], buckets=_FAST_S, registry=REGISTRY
)
_TRACES = Counter("router_traces", METERS["router_traces_total"], ["outcome"], registry=REGISTRY)
for _outcome in ("sent", "dropped"):
    _TRACES.labels(_outcome)
#: Each is there from the start with 0, so that the first one is an increase.
for _status in (0, *sorted({OUT_OF_RESOURCES, DATA_SET_MISMATCH, CANNOT_UNDERSTAND, SOP_CLASS_NOT_SUPPORTED})):
    _ANSWERS.labels(f"0x{_status:04X}")
_OF_EVENT = {event: _EVENTS.labels(event) for event in EVENTS}


def happened(event: str, fields: Mapping[str, object]) -> None:
    """One line of the log."""
    _OF_EVENT[event].inc()
    if event.startswith("instance.") and (status := fields.get("status")):
        _ANSWERS.labels(str(status)).inc()


def traced(outcome: str, count: int) -> None:
    """Spans were sent, or events dropped."""
    _TRACES.labels(outcome).inc(count)


def durable(seconds: float) -> None:
    """An instance was answered with Success."""
    _DURABLE.observe(seconds)


def committed(seconds: float) -> None:
    """A transaction of the ledger."""
    _COMMIT.observe(seconds)


@contextmanager
def classifying(classifier: str) -> Iterator[None]:
    """A question and its answer; also when there was none."""
    begun_s = time.monotonic()
    try:
        yield
    finally:
        _CLASSIFY.labels(classifier).observe(time.monotonic() - begun_s)


def answered_within_s(classifier: str, share: float) -> float | None:
    """The time within which that share of the answers to `classifying` came, since the start; None without any.

    As exact as the buckets; what took longer than the last of them counts as that.
    """
    counts = {
        float(sample.labels["le"]): sample.value
        for metric in _CLASSIFY.collect()
        for sample in metric.samples
        if sample.name.endswith("_bucket") and sample.labels["classifier"] == classifier
    }
    wanted, low, before = share * max(counts.values(), default=0.0), 0.0, 0.0
    for high, count in sorted(counts.items()):
        if count and count >= wanted:
            return low + (min(high, _SLOW_S[-1]) - low) * (wanted - before) / (count - before)
        low, before = high, count
    return None


also_tell(happened)
