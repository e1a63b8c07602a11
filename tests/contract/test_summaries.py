"""When a study is summarised, and of what: on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from router.core.findings import ClassifierIdentity, Finding, NotAnalysed, Prediction
from router.core.instance import InstanceKind
from router.core.lifecycle import TaskKind
from router.core.ports import Produced, Receipt, Task
from router.core.rules import ClassifyOrder, Plan
from router.ledger.store import SqlLedger
from tests.ledger.made import START, FakeClock, instance

QUIET_S = 300.0
PREDICTION = Prediction(
    classifier=ClassifierIdentity(
        name="cxr", algorithm="a", version="1", manufacturer="m", weights_sha256="00", parameters={}
    ),
    findings=(Finding(label="Effusion", score=0.75, raw=0.5),),
)


def plan(*results: str, to: tuple[str, ...] = ("pacs",), deliver: tuple[str, ...] = ()) -> Plan:
    """What a rule with these results asks for; without any, the image is not classified."""
    order = ClassifyOrder(classifier="cxr", results=results, results_to=to)
    return Plan(rules=("all",), classify=(order,) if results else (), deliver=deliver, summary_quiet_s=QUIET_S)


SUMMARY = ("sr", "study-summary")


def due(ledger: SqlLedger) -> list[Task]:
    return ledger.claim(TaskKind.SUMMARISE, "cxr", lease_s=60, limit=9)


def analyse(ledger: SqlLedger, *, outcome: Prediction | NotAnalysed = PREDICTION) -> None:
    """Everything that is to be classified gets its outcome and, when that is a prediction, an SR."""
    for task in ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=99):
        uid = f"2.25.{task.task_id}"
        report = instance(uid, kind=InstanceKind.SR, series_instance_uid="1.2.9", made_by_router=True)
        produced = [Produced(instance=report, destinations=("pacs",))] if outcome is PREDICTION else []
        ledger.complete(task, outcome=outcome, produced=produced)


def test_a_study_is_summarised_once_nothing_came_for_the_quiet_time(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance("1"), plan(*SUMMARY))
    clock.forward(QUIET_S - 1)
    assert due(ledger) == []
    ledger.accept(instance("2"), plan(*SUMMARY))
    clock.forward(2)
    assert due(ledger) == [], "the second image made it wait anew"
    clock.forward(QUIET_S)
    (task,) = due(ledger)
    assert (task.options, task.attempts) == ({"results_to": ["pacs"]}, 1)


def test_an_image_of_the_study_that_is_not_classified_makes_it_wait_too(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance("1"), plan(*SUMMARY))
    clock.forward(QUIET_S - 1)
    ledger.accept(instance("lateral"), plan())
    ledger.accept(instance("x", study_instance_uid="1.3"), plan())
    clock.forward(2)
    assert due(ledger) == []
    clock.forward(QUIET_S)
    assert len(due(ledger)) == 1


def test_the_same_bytes_again_and_what_a_router_made_change_nothing(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance("1"), plan(*SUMMARY))
    clock.forward(QUIET_S)
    assert ledger.accept(instance("1"), plan(*SUMMARY)) is Receipt.DUPLICATE
    ledger.accept(instance("2.25.1", made_by_router=True), plan())
    assert len(due(ledger)) == 1


@pytest.mark.parametrize("results", [("sr",), ()])
def test_nothing_is_summarised_that_no_rule_asks_for(
    ledger: SqlLedger, clock: FakeClock, results: tuple[str, ...]
) -> None:
    ledger.accept(instance("1"), plan(*results))
    ledger.accept(instance("2"), replace(plan(*SUMMARY), summary_quiet_s=0))
    ledger.accept(instance("3", study_instance_uid=""), plan(*SUMMARY))
    clock.forward(QUIET_S)
    assert due(ledger) == []


def test_each_study_has_its_own_and_it_goes_wherever_its_images_results_go(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance("1"), plan(*SUMMARY))
    ledger.accept(instance("2"), plan(*SUMMARY, to=("viewer", "pacs")))
    ledger.accept(instance("3", study_instance_uid="1.3"), plan(*SUMMARY))
    clock.forward(QUIET_S)
    wanted = {task.instance.study_instance_uid: task.options["results_to"] for task in due(ledger)}
    assert wanted == {"1.2": ["pacs", "viewer"], "1.3": ["pacs"]}


def test_an_image_that_comes_while_the_summary_is_made_gets_another_one(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance("1"), plan(*SUMMARY))
    clock.forward(QUIET_S)
    (first,) = due(ledger)
    ledger.accept(instance("2"), plan(*SUMMARY))
    ledger.accept(instance("3"), plan(*SUMMARY))
    ledger.complete(first)
    clock.forward(QUIET_S)
    (second,) = due(ledger)
    assert second.task_id != first.task_id
    ledger.defer(second, error="disk full", at=START)
    assert len(due(ledger)) == 1


def test_what_there_is_to_summarise(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance("1", header={"Modality": "CR"}), plan(*SUMMARY))
    analyse(ledger)
    ledger.accept(instance("2"), plan(*SUMMARY))
    analyse(ledger, outcome=NotAnalysed(code="lateral", reason="a lateral view"))
    ledger.accept(instance("3"), plan(*SUMMARY))
    ledger.accept(instance("4"), plan())
    ledger.accept(instance("5", study_instance_uid="1.3"), plan(*SUMMARY))
    clock.forward(QUIET_S)
    task = next(task for task in due(ledger) if task.instance.study_instance_uid == "1.2")
    study = ledger.study(task)
    assert study.study_instance_uid == "1.2"
    assert [(i.instance.sop_instance_uid, i.waiting, len(i.reports)) for i in study.images] == [
        ("1", False, 1),
        ("2", False, 0),
        ("3", True, 0),
    ]
    assert [type(i.outcome) for i in study.images] == [Prediction, NotAnalysed, type(None)]
    assert study.images[0].instance.header == {"Modality": "CR"}
    assert study.summaries == ()

    for number in (1, 2):
        made = instance(f"2.25.9{number}", kind=InstanceKind.SUMMARY, made_by_router=True)
        ledger.complete(task, produced=[Produced(instance=made, destinations=("pacs",))])
        ledger.accept(instance(f"7.{number}"), plan(*SUMMARY))
        clock.forward(QUIET_S)
        task = next(task for task in due(ledger) if task.instance.study_instance_uid == "1.2")
    assert [one.sop_instance_uid for one in ledger.study(task).summaries] == ["2.25.92", "2.25.91"]
    assert len(ledger.study(task).images[0].reports) == 1, "a summary is no report of an image"
    assert ledger.queries.made_by("cxr", of=study.images[0].instance, kind=InstanceKind.SR) == list(
        study.images[0].reports
    )


def test_bytes_of_all_its_images_and_reports_are_kept_until_a_study_is_summarised(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    for uid in ("1", "2"):
        ledger.accept(instance(uid), plan(*SUMMARY))
    analyse(ledger)
    for delivery in ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9):
        ledger.complete(delivery)
    clock.forward(10)
    assert ledger.free(retention_s=1) == []
    clock.forward(QUIET_S)
    (task,) = due(ledger)
    ledger.complete(task)
    clock.forward(10)
    assert len(ledger.free(retention_s=1)) == 4


def test_it_survives_a_restart_and_a_clock_that_was_set_back(ledger_url: str, clock: FakeClock) -> None:
    first = SqlLedger(ledger_url, clock=clock)
    first.accept(instance("1"), plan(*SUMMARY))
    first.close()
    clock.forward(-3600)
    second = SqlLedger(ledger_url, clock=clock)
    second.bring_forward({(TaskKind.SUMMARISE, "cxr"): QUIET_S})
    clock.forward(timedelta(seconds=QUIET_S).total_seconds())
    assert len(due(second)) == 1
    second.close()
