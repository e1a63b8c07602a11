"""Traces are made of what the ledger has written down: the same numbers in any process, nothing of patients, and nobody waits."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from router.core.findings import NotAnalysed
from router.core.instance import InstanceKind
from router.core.lifecycle import TaskKind
from router.core.ports import Produced
from router.errors import ConfigError
from router.ledger.store import SqlLedger
from router.observe import meters, traces
from router.observe.spans import _NAMES, ATTRIBUTES, Span, spans_of
from router.observe.traces import NotTaken, Tracer, build_tracer, otlp
from router.settings import parse
from tests.ledger.made import FakeClock, instance, plan
from tests.observe.collector import Collector, attributes, tree
from tests.peers import wait_until
from tests.project import tree as project

SECRETS = ("PID-4711", "ACC-0815", "Doe^Jane")
HEADER = {"PatientID": SECRETS[0], "AccessionNumber": SECRETS[1], "Modality": "CR", "StudyDescription": SECRETS[2]}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: FakeClock) -> Iterator[SqlLedger]:
    made = SqlLedger(f"sqlite:///{tmp_path}/ledger.db", clock=clock)
    yield made
    made.close()


def whole_way(ledger: SqlLedger, clock: FakeClock) -> None:
    """Received, refused once by a destination, delivered, classified, reported; the report failed for good."""
    image = instance("1.1", header=HEADER)
    ledger.accept(replace(image, received_at=clock.now()), plan(classify=("cxr",), deliver=("pacs",)))
    clock.forward(1)
    (task,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1)
    clock.forward(1)
    ledger.defer(task, error=f"PACS answered: wrong name {SECRETS[2]}", at=clock.now())
    (task,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1)
    ledger.delivered([(task, "")])
    (task,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    clock.forward(2)
    report = instance("9.9", kind=InstanceKind.SR, header=HEADER)
    refusal = NotAnalysed(code="view", reason=f"a lateral of {SECRETS[2]}")
    ledger.complete(task, outcome=refusal, produced=[Produced(instance=report, destinations=("pacs",))])
    (task,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1)
    ledger.defer(task, error="refused", at=None)


def spans(ledger: SqlLedger, after_id: int = 0) -> list[Span]:
    growth = ledger.trail.since(after_id, limit=1000)
    return [span for trail in growth.trails for span in spans_of(trail, after_id=after_id, receiving_s=lambda _: None)]


class Taker:
    """Instead of a collector."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.works = threading.Event()
        self.works.set()
        self.tries = 0

    def __call__(self, some: Sequence[Span]) -> None:
        self.tries += 1
        if not self.works.is_set():
            raise NotTaken("away")
        self.spans += some


@pytest.fixture
def tracers() -> list[Tracer]:
    """All that this test has started."""
    return []


@pytest.fixture
def stop_all(tracers: list[Tracer]) -> Callable[[], None]:
    """As a node does when it ends."""

    def stop() -> None:
        while tracers:
            tracers.pop().stop()

    return stop


@pytest.fixture
def trace(
    ledger: SqlLedger, tracers: list[Tracer], stop_all: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Taker]]:
    """trace(): a tracer on this ledger, and what it sends."""
    monkeypatch.setattr(traces, "_LOOK_EVERY_S", 0.01)

    def make() -> Taker:
        taker = Taker()
        tracers.append(Tracer(trail=ledger.trail, send=taker))
        tracers[-1].start()
        return taker

    yield make
    stop_all()


def sent(outcome: str) -> float:
    found = re.search(rf'router_traces_total{{outcome="{outcome}"}} (\S+)', meters_text())
    assert found is not None
    return float(found[1])


def meters_text() -> str:
    from prometheus_client import generate_latest

    return generate_latest(meters.REGISTRY).decode()


def test_each_step_is_a_span_below_the_step_without_which_it_would_not_be(ledger: SqlLedger, clock: FakeClock) -> None:
    whole_way(ledger, clock)
    made = spans(ledger)
    assert len({span.trace_id for span in made}) == 1
    parents = {span.span_id: span.name for span in made}
    assert [(span.name, parents.get(span.parent_id or 0, ""), span.failed) for span in made] == [
        ("receive", "", False),
        ("durable", "receive", False),
        ("deliver", "durable", True),
        ("deliver", "durable", False),
        ("classify", "durable", False),
        ("report", "classify", False),
        ("deliver", "report", True),
    ]


def test_a_span_lasts_as_long_as_its_attempt_and_says_how_long_it_was_owed_before(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    whole_way(ledger, clock)
    (classify,) = [span for span in spans(ledger) if span.name == "classify"]
    assert (classify.ended_at - classify.begun_at).total_seconds() == 2
    assert classify.attributes["router.waited_s"] == 2
    assert classify.attributes["router.reason"] == "view"


def test_the_same_events_make_the_same_numbers_wherever_they_are_read(ledger: SqlLedger, clock: FakeClock) -> None:
    """So what comes after a crash joins what was sent before it."""
    whole_way(ledger, clock)
    everything = spans(ledger)
    in_two_parts = [*spans(ledger)[:3]]
    in_two_parts += spans(ledger, after_id=2)
    assert [span.span_id for span in in_two_parts] == [span.span_id for span in everything]
    assert len({span.span_id for span in everything}) == len(everything)


def test_how_long_receiving_took_is_known_from_the_log(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(replace(instance("1.1"), received_at=clock.now()), plan())
    (trail,) = ledger.trail.since(0, limit=9).trails
    receive, durable = spans_of(trail, after_id=0, receiving_s={"1.1": 1.5}.get)
    assert (receive.ended_at - receive.begun_at).total_seconds() == 1.5
    assert receive.ended_at == durable.begun_at


def test_nothing_of_a_patient_is_in_a_span_and_every_attribute_is_documented(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    whole_way(ledger, clock)
    made = spans(ledger)
    assert not [secret for secret in SECRETS if secret in repr(made)]
    assert {name for span in made for name in span.attributes} == set(ATTRIBUTES)
    page = project.read("docs/operating/traces.md")
    assert [name for name, says in ATTRIBUTES.items() if f"| `{name}` | {says} |" not in page] == []
    steps = {name for name in _NAMES.values() if name} | {"receive", "summarise"}
    assert [name for name in steps if f"| `{name}` |" not in page] == []


def test_a_new_reader_begins_now_and_the_next_one_where_it_ended(
    ledger: SqlLedger, trace: Callable[[], Taker], stop_all: Callable[[], None]
) -> None:
    ledger.accept(instance("1.0"), plan())
    first = trace()
    wait_until(lambda: ledger.trail.mark() == 1, 60)
    ledger.accept(instance("2.0"), plan())
    wait_until(lambda: first.spans and ledger.trail.mark() == 2, 60)
    assert {span.attributes["dicom.sop_instance_uid"] for span in first.spans} == {"2.0"}
    stop_all()
    ledger.accept(instance("3.0"), plan())
    second = trace()
    wait_until(lambda: second.spans, 60)
    assert {span.attributes["dicom.sop_instance_uid"] for span in second.spans} == {"3.0"}


def test_a_collector_that_was_away_misses_nothing(
    ledger: SqlLedger, clock: FakeClock, trace: Callable[[], Taker], told: list[tuple[str, Mapping[str, object]]]
) -> None:
    ledger.trail.keep_mark(0)
    taker = trace()
    taker.works.clear()
    whole_way(ledger, clock)
    wait_until(lambda: taker.tries > 2, 60)
    taker.works.set()
    wait_until(lambda: len(taker.spans) == 7, 60)
    wait_until(lambda: "traces.up" in [event for event, _ in told], 60)
    assert [event for event, _ in told].count("traces.down") == 1


def test_what_is_too_far_behind_is_dropped_and_counted(
    ledger: SqlLedger, trace: Callable[[], Taker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "BACKLOG_MAX", 3)
    ledger.trail.keep_mark(0)
    for number in range(10):
        ledger.accept(instance(f"1.{number}"), plan())
    before = sent("dropped")
    taker = trace()
    wait_until(lambda: taker.spans, 60)
    assert sent("dropped") - before == 7
    assert {span.attributes["dicom.sop_instance_uid"] for span in taker.spans} == {"1.7", "1.8", "1.9"}


def test_a_collector_gets_spans_as_the_protocol_has_them(ledger: SqlLedger, clock: FakeClock) -> None:
    whole_way(ledger, clock)
    with Collector() as collector:
        send, close = otlp(collector.endpoint, timeout_s=60, resource={"service.name": "dicom-ai-router"})
        send(spans(ledger))
        close()
        made = collector.spans()
        assert tree(made) == [
            "receive",
            "receive > durable",
            "receive > durable > classify cxr",
            "receive > durable > classify cxr > report cxr",
            "receive > durable > classify cxr > report cxr > deliver pacs",
            "receive > durable > deliver pacs",
            "receive > durable > deliver pacs",
        ]
        assert [span.status.code for span in made if span.name == "deliver"] == [2, 0, 2]
        assert attributes(made[0])["dicom.calling_ae_title"] == "CR_ROOM1"


def test_a_collector_that_refuses_them_has_not_taken_them(ledger: SqlLedger, clock: FakeClock) -> None:
    whole_way(ledger, clock)
    with Collector() as collector:
        collector.status = 400
        send, close = otlp(collector.endpoint, timeout_s=60, resource={})
        with pytest.raises(NotTaken):
            send(spans(ledger))
        close()


def test_without_the_sdk_a_node_with_an_endpoint_does_not_start(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.resources", None)
    settings = parse({"traces": {"endpoint": "http://127.0.0.1:1/v1/traces"}})
    with pytest.raises(ConfigError, match=r"pip install 'dicom-ai-router\[otel\]'"):
        build_tracer(settings, ledger.trail)


def test_switched_off_nothing_is_read_and_nothing_imported(ledger: SqlLedger) -> None:
    tracer = build_tracer(parse({}), ledger.trail)
    tracer.start()
    tracer.stop()
    assert ledger.trail.mark() is None
