"""OpenTelemetry traces, when switched on: a thread reads the ledger's trail as it grows and sends spans by OTLP over HTTP.

Nothing waits for it: it reads what is written down already, by connections of its own. The ledger is its queue, so a collector that is
away for a while misses nothing; what is further behind than `BACKLOG_MAX` is dropped, and counted.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from router import __version__
from router.core.custody import Custody
from router.errors import ConfigError
from router.observe import meters
from router.observe.log import also_tell, emit
from router.observe.spans import Span, spans_of
from router.settings import Settings

#: Events of the ledger.
BACKLOG_MAX = 50_000
BATCH_MAX = 500
_LOOK_EVERY_S = 1.0
_PAUSE_CAP_S = 60.0
_STOP_S = 2.0
_DURATIONS_MAX = 10_000


class Growth(Protocol):
    """`ledger.trail.Growth`."""

    @property
    def trails(self) -> Sequence[Custody]: ...
    @property
    def last_id(self) -> int: ...


class Trail(Protocol):
    """`ledger.trail.Trail`."""

    def newest_id(self) -> int: ...
    def since(self, event_id: int, *, limit: int) -> Growth: ...
    def mark(self) -> int | None: ...
    def keep_mark(self, event_id: int) -> None: ...


class NotTaken(Exception):
    """The collector did not take the spans."""


Send = Callable[[Sequence[Span]], None]
"""Returns when the collector has them. Raises NotTaken."""


class Durations:
    """How long receiving took, from the log's events: the ledger begins when an instance is whole."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[str, float] = OrderedDict()

    def witness(self, event: str, fields: Mapping[str, object]) -> None:
        """For `log.also_tell`."""
        uid, duration_ms = fields.get("sop_instance_uid"), fields.get("duration_ms")
        if event == "instance.received" and isinstance(uid, str) and isinstance(duration_ms, int | float):
            with self._lock:
                self._of[uid] = duration_ms / 1000
                while len(self._of) > _DURATIONS_MAX:
                    self._of.popitem(last=False)

    def __call__(self, sop_instance_uid: str) -> float | None:
        """In seconds; None when this process did not see it, or long ago."""
        with self._lock:
            return self._of.get(sop_instance_uid)


class Tracer:
    """Started with the node, stopped before its ledger is closed."""

    def __init__(self, *, trail: Trail, send: Send | None, close: Callable[[], None] = lambda: None) -> None:
        """`close` ends a `send` that is under way. Without `send` it does nothing."""
        self._trail = trail
        self._send = send
        self._close = close
        self._durations = Durations()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._down = False
        self._pause_s = _LOOK_EVERY_S

    def start(self) -> None:
        """Returns at once."""
        if self._send is not None:
            also_tell(self._durations.witness)
            self._thread.start()

    def stop(self) -> None:
        """What has not been sent is sent after the next start. A collector that hangs holds nobody up."""
        self._stopping.set()
        self._close()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        at_id: int | None = None
        while not self._stopping.is_set():
            try:
                if at_id is None:
                    at_id = self._begin()
                seen_id, more = self._look(at_id)
                if seen_id != at_id:
                    self._trail.keep_mark(seen_id)
                at_id = seen_id
                self._up()
            except Exception as error:  # noqa: BLE001 - whatever it is, tracing must not end for ever, and nobody else may notice
                self._went_down(error)
                more = False
            if not more:
                self._stopping.wait(self._pause_s)

    def _begin(self) -> int:
        """Where the last process ended; the first time now, not with all that ever was."""
        mark = self._trail.mark()
        if mark is None:
            mark = self._trail.newest_id()
            self._trail.keep_mark(mark)  # what comes now is not lost when the collector and then this process go away
        return mark

    def _look(self, after_id: int) -> tuple[int, bool]:
        """Sends what is new; up to where, and whether there is more."""
        behind = self._trail.newest_id() - after_id
        if behind > BACKLOG_MAX:
            meters.traced("dropped", behind - BACKLOG_MAX)
            after_id += behind - BACKLOG_MAX
        growth = self._trail.since(after_id, limit=BATCH_MAX)
        spans = [
            span for trail in growth.trails for span in spans_of(trail, after_id=after_id, receiving_s=self._durations)
        ]
        if spans and self._send is not None:
            self._send(spans)
            meters.traced("sent", len(spans))
        return growth.last_id, growth.last_id - after_id >= BATCH_MAX

    def _up(self) -> None:
        self._pause_s = _LOOK_EVERY_S
        if self._down:
            self._down = False
            emit("traces.up")

    def _went_down(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        if not self._down:
            self._down = True
            reason = str(error) if isinstance(error, NotTaken) else type(error).__name__
            emit("traces.down", level=logging.WARNING, reason=reason)
        self._pause_s = min(_PAUSE_CAP_S, self._pause_s * 2)


def build_tracer(settings: Settings, trail: Trail) -> Tracer:
    """As configured; it does nothing without `traces.endpoint`. Raises ConfigError when the SDK is not installed."""
    if not settings.traces.endpoint:
        return Tracer(trail=trail, send=None)
    about = {
        "service.name": "dicom-ai-router",
        "service.version": __version__,
        "service.instance.id": settings.node.ae_title,
    }
    send, close = otlp(settings.traces.endpoint, timeout_s=settings.traces.timeout_s, resource=about)
    return Tracer(trail=trail, send=send, close=close)


def otlp(endpoint: str, *, timeout_s: float, resource: Mapping[str, str]) -> tuple[Send, Callable[[], None]]:
    """To a collector, by the official SDK, and what ends that. Raises ConfigError when the SDK is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ImportError as error:
        raise ConfigError(
            ["traces.endpoint: traces need the OpenTelemetry SDK: pip install 'dicom-ai-router[otel]'"]
        ) from error
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=timeout_s)
    of_node = Resource.create(dict(resource))

    def send(spans: Sequence[Span]) -> None:
        if exporter.export(list(_readable(spans, of_node))) is not SpanExportResult.SUCCESS:
            raise NotTaken(f"{endpoint} did not take them")

    return send, exporter.shutdown


def _readable(spans: Iterable[Span], resource: Any) -> Iterable[Any]:
    """As the SDK has them when they have ended."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    flags, scope = TraceFlags(TraceFlags.SAMPLED), InstrumentationScope("dicom-ai-router")
    for span in spans:
        ids = [(span.trace_id, one) for one in (span.span_id, span.parent_id) if one is not None]
        context, *parent = [SpanContext(*pair, is_remote=False, trace_flags=flags) for pair in ids]
        yield ReadableSpan(
            name=span.name,
            context=context,
            parent=parent[0] if parent else None,
            resource=resource,
            attributes=span.attributes,
            kind=SpanKind[span.kind.value],
            status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
            start_time=_nanoseconds(span.begun_at),
            end_time=_nanoseconds(span.ended_at),
            instrumentation_scope=scope,
        )


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000
