"""Studies in the ledger: when one is due to be summarised, and what there is to summarise."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select, update

from router.core.findings import outcome_from_json
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import OWED, TaskKind, TaskState
from router.core.ports import Study, StudyImage
from router.core.rules import STUDY_SUMMARY, Plan
from router.ledger.entry import Entry, owe
from router.ledger.instants import seconds_to_us
from router.ledger.rows import instance_of
from router.ledger.schema import event, instance, is_state, outcome, task
from router.ledger.writer import Transaction

# Statements are made once: making one anew costs SQLAlchemy more than SQLite needs to run it.
_PENDING = (
    select(task.c.task_id, task.c.target, task.c.options)
    .where(
        task.c.study_instance_uid == bindparam("study"),
        task.c.kind == TaskKind.SUMMARISE.value,
        task.c.state.in_([TaskState.READY.value, TaskState.RETRY.value]),
    )
    .order_by(task.c.task_id)
    .with_for_update()
)
_LATER = (
    update(task)
    .where(task.c.task_id == bindparam("pending_id"), is_state(task.c.state, TaskState.RETRY))
    .values(not_before=bindparam("at"))
)
_OPTIONS = update(task).where(task.c.task_id == bindparam("pending_id")).values(options=bindparam("wanted"))
_ORIGINALS = (
    select(instance, task.c.state)
    .join_from(instance, task, task.c.instance_id == instance.c.instance_id)
    .where(
        instance.c.study_instance_uid == bindparam("study"),
        instance.c.kind == InstanceKind.ORIGINAL.value,
        task.c.kind == TaskKind.CLASSIFY.value,
        task.c.target == bindparam("classifier"),
    )
    .order_by(instance.c.instance_id, task.c.task_id)
)
_IN_STUDY = select(instance.c.instance_id).where(
    instance.c.study_instance_uid == bindparam("study"), instance.c.kind == InstanceKind.ORIGINAL.value
)
_OUTCOMES = select(outcome.c.instance_id, outcome.c.outcome).where(
    outcome.c.classifier == bindparam("classifier"), outcome.c.instance_id.in_(_IN_STUDY)
)
_MADE = (
    select(event.c.root_id.label("made_of"), instance)
    .join_from(event, instance, event.c.instance_id == instance.c.instance_id)
    .where(
        event.c.root_id.in_(_IN_STUDY),
        event.c.what == "made",
        event.c.kind == bindparam("by_kind"),
        event.c.target == bindparam("classifier"),
        instance.c.kind == bindparam("made_kind"),
    )
    .order_by(event.c.event_id.desc())
)


def await_quiet(tx: Transaction, entry: Entry, new: SopInstance, plan: Plan) -> None:
    """An image of a study came in: its summaries wait from now on, and those that it asks for are owed.

    One that a worker has already is left alone: this image gets another one, which then covers both.
    """
    study = new.study_instance_uid
    if not plan.summary_quiet_s or not study or new.made_by_router:
        return
    at_us = tx.now_us + seconds_to_us(plan.summary_quiet_s)
    pending = {row.target: row for row in tx.connection.execute(_PENDING, {"study": study})}
    for row in pending.values():
        tx.connection.execute(_LATER, {"pending_id": row.task_id, "at": at_us})
    for order in plan.classify:
        if STUDY_SUMMARY not in order.results:
            continue
        known = pending.get(order.classifier)
        if known is None:
            options = {"results_to": list(order.results_to)}
            owe(tx, entry, TaskKind.SUMMARISE, order.classifier, options, at_us=at_us, study_instance_uid=study)
        elif not set(order.results_to) <= set(known.options["results_to"]):
            wanted = {"results_to": list(dict.fromkeys((*known.options["results_to"], *order.results_to)))}
            tx.connection.execute(_OPTIONS, {"pending_id": known.task_id, "wanted": wanted})


def study_of(connection: Connection, study_instance_uid: str, classifier: str) -> Study:
    """Everything that a summary of the study by this classifier can be made of."""
    about = {"study": study_instance_uid, "classifier": classifier}
    rows, waiting = {}, set()
    for row in connection.execute(_ORIGINALS, about):
        rows[row.instance_id] = instance_of(row)
        if row.state in OWED:
            waiting.add(row.instance_id)
    outcomes = {row.instance_id: outcome_from_json(row.outcome) for row in connection.execute(_OUTCOMES, about)}
    reports: dict[int, list[SopInstance]] = {}
    by_image = {**about, "by_kind": TaskKind.CLASSIFY.value, "made_kind": InstanceKind.SR.value}
    for row in connection.execute(_MADE, by_image):
        reports.setdefault(row.made_of, []).append(instance_of(row))
    by_study = {**about, "by_kind": TaskKind.SUMMARISE.value, "made_kind": InstanceKind.SUMMARY.value}
    return Study(
        study_instance_uid=study_instance_uid,
        images=tuple(
            StudyImage(
                instance=image,
                outcome=outcomes.get(instance_id),
                waiting=instance_id in waiting,
                reports=tuple(reports.get(instance_id, ())),
            )
            for instance_id, image in rows.items()
        ),
        summaries=tuple(instance_of(row) for row in connection.execute(_MADE, by_study)),
    )
