"""Moves of a task's state in SQL, each made from `core.lifecycle.TRANSITIONS`: nowhere else is a state written."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, select, update

from router.core.lifecycle import TRANSITIONS, Event, TaskKind, TaskState
from router.core.ports import Task
from router.errors import LeaseLost
from router.ledger.entry import record
from router.ledger.schema import is_state, task
from router.ledger.writer import Transaction


def sources(happening: Event) -> tuple[TaskState, ...]:
    """The states from which `happening` leads anywhere, by core.lifecycle."""
    return tuple(state for state, other in TRANSITIONS if other is happening)


def after(happening: Event) -> str:
    """The one state that `happening` leads to, by core.lifecycle, as it stands in the table."""
    (state,) = {to for (_, other), to in TRANSITIONS.items() if other is happening}
    return state.value


def due(tx: Transaction, lane: Any, limit: int) -> list[int]:
    """Ids of due tasks, oldest first. Two looks, because each has its own index that ends at what is due."""
    ready = select(task.c.task_id).where(lane, is_state(task.c.state, TaskState.READY)).order_by(task.c.task_id)
    retry = (
        select(task.c.task_id)
        .where(lane, is_state(task.c.state, TaskState.RETRY), task.c.not_before <= tx.now_us)
        .order_by(task.c.not_before)
    )
    ids: list[int] = []
    for query in (ready, retry):
        ids += tx.connection.execute(query.limit(limit).with_for_update(skip_locked=True)).scalars()
    return sorted(ids)[:limit]


def end_leases(tx: Transaction, which: Any) -> int:
    """Makes leased tasks due again, with the attempt counted; returns how many."""
    rows = tx.connection.execute(
        update(task)
        .where(which, is_state(task.c.state, *sources(Event.LEASE_LOST)))
        .values(
            state=after(Event.LEASE_LOST),
            not_before=tx.now_us,
            lease=None,
            lease_until=None,
            error="its worker was gone when the lease ended",
        )
        .returning(task.c.instance_id, task.c.root_id, task.c.kind, task.c.target, task.c.attempts)
    ).all()
    for row in rows:
        record(tx, row, "lease_lost", task=row)
        tx.lanes.add((TaskKind(row.kind), row.target))
    return len(rows)


def holds(held: Task) -> Any:
    """The fence: this very claim of the task still stands."""
    return and_(
        task.c.task_id == held.task_id,
        task.c.attempts == held.attempts,
        task.c.lease == held.lease,
        is_state(task.c.state, TaskState.LEASED),
    )


def settle(tx: Transaction, held: Task, happening: Event, **values: Any) -> Any:
    """Ends a lease by a move of the task's state; returns the row as it was. Raises LeaseLost."""
    row = tx.connection.execute(
        select(task.c.instance_id, task.c.root_id, task.c.error).where(holds(held)).with_for_update()
    ).one_or_none()
    if row is None:
        raise LeaseLost(f"task {held.task_id} was taken over by another worker")
    tx.connection.execute(
        update(task)
        .where(task.c.task_id == held.task_id)
        .values(state=after(happening), lease=None, lease_until=None, **values)
    )
    return row


def requeue(tx: Transaction, which: Any) -> int:
    """Puts tasks back as if they had never been tried; returns how many."""
    rows = tx.connection.execute(
        update(task)
        .where(which, is_state(task.c.state, *sources(Event.REQUEUE)))
        .values(state=after(Event.REQUEUE), attempts=0, not_before=None, settled_at=None)
        .returning(task.c.instance_id, task.c.root_id, task.c.kind, task.c.target, task.c.attempts)
    ).all()
    for row in rows:
        record(tx, row, "requeued", task=row)
        tx.lanes.add((TaskKind(row.kind), row.target))
    return len(rows)
