"""Moves of a task's state in SQL, each made from `core.lifecycle.TRANSITIONS`: nowhere else is a state written."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, and_, bindparam, func, literal_column, null, select, update

from router.core.lifecycle import TRANSITIONS, Event, TaskKind, TaskState
from router.core.ports import Claimed, ReportTask, Task
from router.errors import LeaseLost
from router.ledger.entry import record
from router.ledger.rows import INSTANCE_COLUMNS, report_task_of, task_of
from router.ledger.schema import commitment, instance, is_state, task, word
from router.ledger.statement import Statement
from router.ledger.writer import Lane, Transaction


def sources(happening: Event) -> tuple[TaskState, ...]:
    """The states from which `happening` leads anywhere, by core.lifecycle."""
    return tuple(state for state, other in TRANSITIONS if other is happening)


def after(happening: Event) -> str:
    """The one state that `happening` leads to, by core.lifecycle, as it stands in the table."""
    (state,) = {to for (_, other), to in TRANSITIONS.items() if other is happening}
    return state.value


# Statements are made once: making one anew costs SQLAlchemy more than SQLite needs to run it. Those that every instance
# needs are run by the driver.
_ZERO, _ONE = literal_column("0", Integer), literal_column("1", Integer)
_LANE = and_(task.c.kind == bindparam("lane_kind"), task.c.target == bindparam("lane_target"))
_READY = Statement(
    select(task.c.task_id)
    .where(_LANE, is_state(task.c.state, TaskState.READY))
    .order_by(task.c.task_id)
    .limit(bindparam("count"))
    .offset(_ZERO)
    .with_for_update(skip_locked=True)
)
_RETRY = Statement(
    select(task.c.task_id)
    .where(_LANE, is_state(task.c.state, TaskState.RETRY), task.c.not_before <= bindparam("now"))
    .order_by(task.c.not_before, task.c.task_id)
    .limit(bindparam("count"))
    .offset(_ZERO)
    .with_for_update(skip_locked=True)
)
_ENDED = Statement(
    select(task.c.task_id).where(
        _LANE, is_state(task.c.state, TaskState.LEASED), task.c.lease_until <= bindparam("now")
    )
)
_NEW_LEASE = Statement(
    update(task)
    .where(task.c.task_id == bindparam("claimed_id"), is_state(task.c.state, *sources(Event.CLAIM)))
    .values(
        state=word(after(Event.CLAIM)),
        attempts=task.c.attempts + _ONE,
        lease=bindparam("new_lease"),
        lease_until=bindparam("new_lease_until"),
        claimed_at=bindparam("now"),
    )
)
_TASKS = Statement(
    select(
        task.c.task_id,
        task.c.kind,
        task.c.target,
        task.c.attempts,
        task.c.lease,
        task.c.options,
        *(instance.c[name] for name in INSTANCE_COLUMNS),
    )
    .join_from(task, instance, task.c.instance_id == instance.c.instance_id)
    .where(
        _LANE,
        is_state(task.c.state, TaskState.LEASED),
        task.c.lease_until == bindparam("new_lease_until"),  # of which there is an index
        task.c.lease == bindparam("new_lease"),
    )
    .order_by(task.c.task_id)
)
_REPORTS = (
    select(
        task.c.task_id,
        task.c.kind.label("task_kind"),
        task.c.target,
        task.c.attempts,
        task.c.lease,
        task.c.options,
        *(column for column in commitment.c if column.name != "commitment_id"),
    )
    .join_from(task, commitment, task.c.commitment_id == commitment.c.commitment_id)
    .where(task.c.task_id.in_(bindparam("ids", expanding=True)))
    .order_by(task.c.task_id)
)
_HELD = (
    select(task.c.instance_id, task.c.root_id, task.c.error, task.c.created_at)
    .where(
        task.c.task_id == bindparam("held_id"),
        task.c.attempts == bindparam("held_attempts"),
        task.c.lease == bindparam("held_lease"),
        is_state(task.c.state, TaskState.LEASED),
    )
    .with_for_update()
)
_SETTLE = update(task).where(task.c.task_id == bindparam("held_id"))
_DONE = Statement(
    update(task)
    .where(
        task.c.task_id == bindparam("held_id"),
        task.c.attempts == bindparam("held_attempts"),
        task.c.lease == bindparam("held_lease"),
        is_state(task.c.state, TaskState.LEASED),
    )
    .values(
        state=word(after(Event.SUCCEED)),
        lease=null(),
        lease_until=null(),
        settled_at=bindparam("now"),
        error=word(""),
    )
    .returning(task.c.instance_id, task.c.root_id, task.c.created_at)
)
_DUE = Statement(
    select(
        select(task.c.task_id)
        .where(_LANE, is_state(task.c.state, TaskState.READY))
        .limit(_ONE)
        .offset(_ZERO)
        .scalar_subquery(),
        select(func.min(task.c.not_before)).where(_LANE, is_state(task.c.state, TaskState.RETRY)).scalar_subquery(),
        select(func.min(task.c.lease_until)).where(_LANE, is_state(task.c.state, TaskState.LEASED)).scalar_subquery(),
    )
)


class Held(NamedTuple):
    """Whose lease it was, in the order of _DONE."""

    instance_id: int
    root_id: int
    created_at: int


def claim(tx: Transaction, kind: TaskKind, target: str, *, lease_us: int, limit: int) -> list[Task]:
    """Leases due tasks of a lane, oldest first; those whose lease has ended are due again."""
    ids = _due(tx, kind, target, limit=limit)
    if not ids:
        return []
    lease = _lease(tx, ids, lease_us=lease_us)
    return [task_of(row) for row in _TASKS.rows(tx.connection, {**_lane(kind, target), **lease})]


def claim_reports(tx: Transaction, target: str, *, lease_us: int, limit: int) -> list[ReportTask]:
    """The same for reports to peers (TaskKind.REPORT)."""
    ids = lease_due(tx, TaskKind.REPORT, target, lease_us=lease_us, limit=limit)
    return [report_task_of(row) for row in tx.connection.execute(_REPORTS, {"ids": ids})] if ids else []


def lease_reports(tx: Transaction, ids: Sequence[int], *, lease_us: int) -> list[ReportTask]:
    """Leases these very reports, due or not."""
    _lease(tx, ids, lease_us=lease_us)
    return [report_task_of(row) for row in tx.connection.execute(_REPORTS, {"ids": list(ids)})]


def lease_due(tx: Transaction, kind: TaskKind, target: str, *, lease_us: int, limit: int) -> list[int]:
    """Leases due tasks of a lane, oldest first; their numbers."""
    ids = _due(tx, kind, target, limit=limit)
    _lease(tx, ids, lease_us=lease_us)
    return ids


def _due(tx: Transaction, kind: TaskKind, target: str, *, limit: int) -> list[int]:
    lane = {**_lane(kind, target), "now": tx.now_us, "count": limit}
    if ended := [task_id for (task_id,) in _ENDED.rows(tx.connection, lane)]:
        end_leases(tx, and_(task.c.task_id.in_(ended), task.c.lease_until <= tx.now_us))
    # Two looks, because each has its own index, which ends at what is due.
    ids = [task_id for query in (_READY, _RETRY) for (task_id,) in query.rows(tx.connection, lane)]
    return sorted(ids)[:limit]


def _lane(kind: TaskKind, target: str) -> dict[str, Any]:
    return {"lane_kind": kind.value, "lane_target": target}


def _lease(tx: Transaction, ids: Sequence[int], *, lease_us: int) -> dict[str, Any]:
    """By what the tasks are leased from now on."""
    lease = {"new_lease": uuid.uuid4().hex, "new_lease_until": tx.now_us + lease_us}
    _NEW_LEASE.run(tx.connection, *({"claimed_id": one, "now": tx.now_us, **lease} for one in ids))
    return lease


def move(tx: Transaction, ids: Sequence[int], happening: Event, **values: Any) -> None:
    """Moves those of the tasks for which the move is in the table; others stay as they are."""
    if ids:
        tx.connection.execute(
            update(task)
            .where(task.c.task_id.in_(ids), is_state(task.c.state, *sources(happening)))
            .values(state=after(happening), **values)
        )


def due_at(connection: Connection, kind: TaskKind, target: str) -> int | None:
    """When something in the lane is due, in microseconds; 0 when it is, None when nothing is there."""
    [(ready, *times)] = _DUE.rows(connection, _lane(kind, target))
    if ready is not None:
        return 0
    return min((at for at in times if at is not None), default=None)


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


def bring_forward(tx: Transaction, lane: Lane, *, latest_us: int) -> int:
    """Tasks of a lane that wait for a later time than `latest_us` wait for that; returns how many. No state changes."""
    kind, target = lane
    here = and_(task.c.kind == kind.value, task.c.target == target, is_state(task.c.state, TaskState.RETRY))
    moved = tx.connection.execute(
        update(task).where(here, task.c.not_before > latest_us).values(not_before=latest_us)
    ).rowcount
    if moved:
        tx.lanes.add(lane)
    return moved


def holds(held: Claimed) -> Any:
    """The fence: this very claim of the task still stands."""
    return and_(
        task.c.task_id == held.task_id,
        task.c.attempts == held.attempts,
        task.c.lease == held.lease,
        is_state(task.c.state, TaskState.LEASED),
    )


def settle(tx: Transaction, held: Claimed, happening: Event, **values: Any) -> Any:
    """Ends a lease by a move of the task's state; returns the row as it was. Raises LeaseLost."""
    fence = {"held_id": held.task_id, "held_attempts": held.attempts, "held_lease": held.lease}
    row = tx.connection.execute(_HELD, fence).one_or_none()
    if row is None:
        raise LeaseLost(f"task {held.task_id} was taken over by another worker")
    state = {"state": after(happening), "lease": None, "lease_until": None}
    tx.connection.execute(_SETTLE, {"held_id": held.task_id, **state, **values})
    return row


def done(tx: Transaction, held: Claimed) -> Held | None:
    """Ends the lease of a task that succeeded; None when the lease was lost."""
    fence = {"held_id": held.task_id, "held_attempts": held.attempts, "held_lease": held.lease}
    rows = _DONE.rows(tx.connection, {**fence, "now": tx.now_us})
    return Held(*rows[0]) if rows else None


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
