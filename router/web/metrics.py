"""Prometheus metrics: what the ledger knows is read from it at the moment of the scrape, the rest is `observe.meters`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.observe.meters import METERS
from router.web.status import ReadStatus

#: Every metric: name -> what it says. `docs/operating/metrics.md` lists the same; a test compares.
METRICS: dict[str, str] = {
    "router_ready": "1 when /health/ready says so, else 0",
    "router_classifier_ready": "1 while a classifier's process is ready, by classifier; originals never wait for it",
    "router_instances": "SOP instances in the ledger, by kind",
    "router_conflicts": "instances that came with another one's SOP Instance UID and other bytes; `router trace UID` shows both",
    "router_outcomes": "images looked at by a classifier, by outcome: analysed, or the code of the reason why not",
    "router_score_drifts": "findings, each by calling AE title, whose scores have moved lately, by classifier; the dashboard says which",
    "router_tasks": "tasks in the ledger, by kind, target and state",
    "router_audit_syslog_lost": "audit messages since the start that the syslog receiver never got; the files have them",
    "router_audit_syslog_waiting": "audit messages that wait for the syslog receiver",
    "router_oldest_task_age_seconds": "age of the oldest task that is still owed, by kind and target; 0 when none is",
    "router_destination_up": "0 while a destination cannot be reached or its breaker is not closed, else 1, by target",
    "router_destination_down_seconds": "how long a destination has not been reached, by target; 0 while it is",
    "router_spool_free_bytes": "free space of the spool's file system",
    "router_spool_free_bytes_min": "spool.free_byte_count_min: with less C-STORE is answered 0xA700",
    **METERS,
}


class StatusCollector(Collector):
    """Turns one `Status` into metric families."""

    def __init__(self, read_status: ReadStatus) -> None:
        self._read_status = read_status

    def collect(self) -> Iterator[Metric]:
        status = self._read_status()
        yield GaugeMetricFamily("router_ready", METRICS["router_ready"], value=float(not status.problems))
        for name, count in (
            ("router_audit_syslog_lost", status.audit_lost_count),
            ("router_audit_syslog_waiting", status.audit_waiting_count),
            ("router_spool_free_bytes", status.spool_free_byte_count),
            ("router_spool_free_bytes_min", status.spool_free_byte_count_min),
        ):
            yield GaugeMetricFamily(name, METRICS[name], value=float(count))
        classifiers = self._family("router_classifier_ready", ["classifier"])
        for name, ready in status.classifiers.items():
            classifiers.add_metric([name], float(ready))
        instances = self._family("router_instances", ["kind"])
        for kind, count in status.instances.items():
            instances.add_metric([kind], count)
        yield GaugeMetricFamily("router_conflicts", METRICS["router_conflicts"], value=float(status.conflict_count))
        outcomes = self._family("router_outcomes", ["outcome"])
        for outcome, count in status.outcomes.items():
            outcomes.add_metric([outcome], count)
        drifts = self._family("router_score_drifts", ["classifier"])
        for name, count in status.drifts.items():
            drifts.add_metric([name], count)
        tasks = self._family("router_tasks", ["kind", "target", "state"])
        ages = self._family("router_oldest_task_age_seconds", ["kind", "target"])
        up = self._family("router_destination_up", ["target"])
        down = self._family("router_destination_down_seconds", ["target"])
        for lane in status.lanes:
            if lane.breaker:
                up.add_metric([lane.target], float(lane.breaker == "closed" and lane.down_s is None))
                down.add_metric([lane.target], lane.down_s or 0.0)
            ages.add_metric([lane.kind, lane.target], lane.oldest_age_s or 0.0)
            for state, count in lane.counts.items():
                tasks.add_metric([lane.kind, lane.target, state], count)
        yield from (classifiers, instances, outcomes, drifts, tasks, ages, up, down)

    def describe(self) -> list[Metric]:
        """None in advance, so that registering does not read the ledger."""
        return []

    @staticmethod
    def _family(name: str, labels: list[str]) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, METRICS[name], labels=labels)
