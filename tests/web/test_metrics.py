"""Metrics: what the table lists is what is served, and what dashboards and alerts ask for exists."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from router.observe import meters
from router.observe.events import EVENTS
from router.observe.log import emit
from router.web.metrics import METRICS, StatusCollector
from router.web.status import Lane, Status
from tests.peers import ROOT

STATUS = Status(
    ae_title="ROUTER",
    port=1,
    version="1",
    started_at="",
    instances={"original": 2},
    conflict_count=0,
    outcomes={"analysed": 1},
    lanes=[
        Lane(
            kind="deliver", target="pacs", counts={"done": 1, "retry": 1}, oldest_age_s=5.0, down_s=4.0, breaker="open"
        ),
        Lane(kind="deliver", target="files", counts={}, oldest_age_s=None, breaker="closed"),
        Lane(kind="classify", target="cxr", counts={}, oldest_age_s=None),
    ],
    classifiers={"cxr": True},
    drifts={"cxr": 1},
    spool_free_byte_count=7,
)


def served() -> Mapping[str, list[Mapping[str, str]]]:
    """Name of a sample -> the labels that it comes with, once each meter was used."""
    with meters.classifying("cxr"):
        meters.durable(0.01)
        meters.committed(0.01)
    emit("instance.refused", level=logging.DEBUG, status="0xA700")
    registry = CollectorRegistry()
    registry.register(StatusCollector(lambda: STATUS))
    text = (generate_latest(meters.REGISTRY) + generate_latest(registry)).decode()
    found: dict[str, list[Mapping[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append({**sample.labels, "=": str(sample.value)})
    return found


def family(sample: str) -> str:
    return re.sub(r"_(bucket|count|sum)$", "", sample)


def test_the_table_lists_exactly_what_is_served() -> None:
    assert {family(name) for name in served() if not name.endswith("_created")} == set(METRICS)


def test_each_event_counts_from_zero_on_and_each_answer_by_its_status() -> None:
    def count(name: str, label: str, value: str) -> float:
        return next((float(one["="]) for one in served()[name] if one[label] == value), 0.0)

    assert {one["event"] for one in served()["router_events_total"]} == set(EVENTS)
    before = (
        count("router_events_total", "event", "destination.down"),
        count("router_store_answers_total", "status", "0xC000"),
    )
    emit("destination.down", level=logging.DEBUG)
    emit("instance.refused", level=logging.DEBUG, status="0xC000")
    after = (
        count("router_events_total", "event", "destination.down"),
        count("router_store_answers_total", "status", "0xC000"),
    )
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


def test_a_destination_is_up_only_when_its_breaker_is_closed_and_other_lanes_are_no_destinations() -> None:
    up = {one["target"]: float(one["="]) for one in served()["router_destination_up"]}
    down = {one["target"]: float(one["="]) for one in served()["router_destination_down_seconds"]}
    assert (up, down) == ({"pacs": 0.0, "files": 1.0}, {"pacs": 4.0, "files": 0.0})


def expressions() -> list[str]:
    dashboard = json.loads((ROOT / "docs/operating/grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((ROOT / "docs/operating/alerts.yml").read_text(encoding="utf-8"))
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert len(asked) > 15
    assert len(alerts) > 10
    return asked + alerts


@pytest.mark.parametrize("expression", expressions())
def test_what_dashboard_and_alerts_ask_for_is_served_with_these_labels(expression: str) -> None:
    there = served()
    asked = re.findall(r"\b(router_\w+)(?:\{([^}]*)\})?", expression)
    assert asked
    for name, matchers in asked:
        assert name in there, f"{name} is not served"
        for label, values in re.findall(r'(\w+)[!=]?=~?"([^"]*)"', matchers):
            assert all(label in one for one in there[name]), f"{name} has no label {label}"
            if label == "event":
                assert set(values.split("|")) <= set(EVENTS), expression
    for labels in re.findall(r"by \(([^)]*)\)", expression):
        assert set(labels.split(", ")) <= {label for name, _ in asked for label in there[name][0]} | {"le"}


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = {family(name) for expression in expressions() for name in re.findall(r"\brouter_\w+", expression)}
    assert set(METRICS) - asked == set()
