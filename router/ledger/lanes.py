"""Lanes: each kind of work for each target. Which there are, how many tasks stand where, which has waited longest.

Every look is one statement, however many lanes there are: each statement that a page makes lets other threads go first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CTE, Connection, Text, func, literal, select, union_all

from router.core.lifecycle import OWED, TaskKind, TaskState
from router.ledger.instants import from_us
from router.ledger.schema import is_state, task


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCounts:
    """One kind of work for one target."""

    kind: TaskKind
    target: str
    counts: dict[TaskState, int]
    """States that no task is in are absent."""
    oldest_at: datetime | None
    """When the oldest task that is still owed came in; None when nothing is owed."""
    last_error: str = ""
    """Of the oldest task that waits for another try or failed; empty when there is none."""


def counted(connection: Connection) -> list[LaneCounts]:
    """Every lane, in order, and all its tasks: takes longer the longer the ledger is."""
    lane = (task.c.kind, task.c.target, task.c.state)
    done = {
        (kind, target): count
        for kind, target, state, count in connection.execute(select(*lane, func.count()).group_by(*lane))
        if state == TaskState.DONE.value
    }
    return [
        LaneCounts(
            kind=one.kind,
            target=one.target,
            counts=one.counts,
            oldest_at=one.oldest_at,
            last_error=_last_error(connection, one),
        )
        for one in standing(connection, done)
    ]


def standing(connection: Connection, done: Mapping[tuple[str, str], int]) -> list[LaneCounts]:
    """The same, without errors: `done` is how many tasks of a (kind, target) are done, all others are found by small indexes."""
    rows = connection.execute(_STANDING).all()
    oldest = {
        (row.kind, row.target): min(ids) for row in rows if (ids := [i for i in row[-len(OWED) :] if i is not None])
    }
    created = {}
    if oldest:
        query = select(task.c.task_id, task.c.created_at).where(task.c.task_id.in_(oldest.values()))
        created = {row.task_id: from_us(row.created_at) for row in connection.execute(query)}
    found = []
    for row in rows:
        key = (row.kind, row.target)
        counts = {state: count for state, count in zip(_UNSETTLED, row[2:], strict=False) if count}
        if done.get(key):
            counts[TaskState.DONE] = done[key]
        found.append(
            LaneCounts(
                kind=TaskKind(row.kind), target=row.target, counts=counts, oldest_at=created.get(oldest.get(key))
            )
        )
    return sorted(found, key=lambda one: (one.kind, one.target))


def lanes_of(connection: Connection) -> list[tuple[str, str]]:
    """Every (kind, target) that ever had a task, in order."""
    return sorted((row.kind, row.target) for row in connection.execute(_LANES))


def _targets() -> CTE:
    """(kind, target), from one target of a kind to the next: SELECT DISTINCT would walk through all tasks."""
    kinds = union_all(*(select(literal(kind.value, Text).label("kind")) for kind in TaskKind)).subquery("kinds")
    first = select(func.min(task.c.target)).where(task.c.kind == kinds.c.kind).scalar_subquery()
    lane = select(kinds.c.kind, first.label("target")).cte("lane", recursive=True)
    after = task.c.kind == lane.c.kind, task.c.target > lane.c.target
    following = select(func.min(task.c.target)).where(*after).scalar_subquery()
    return lane.union_all(select(lane.c.kind, following).where(lane.c.target.is_not(None)))


def _of_lane(lane: Any, state: TaskState) -> Sequence[Any]:
    return task.c.kind == lane.kind, task.c.target == lane.target, is_state(task.c.state, state)


_UNSETTLED = (*sorted(OWED), TaskState.FAILED)
_LANE = _targets()
_LANES = select(_LANE).where(_LANE.c.target.is_not(None))
_STANDING = _LANES.add_columns(
    *(
        select(func.count()).where(*_of_lane(_LANE.c, state)).scalar_subquery().label(f"{state}_count")
        for state in _UNSETTLED
    ),
    *(
        select(func.min(task.c.task_id)).where(*_of_lane(_LANE.c, state)).scalar_subquery().label(f"{state}_id")
        for state in sorted(OWED)
    ),
)


def _last_error(connection: Connection, lane: LaneCounts) -> str:
    for state in (TaskState.RETRY, TaskState.FAILED):
        if lane.counts.get(state):
            query = select(task.c.error).where(*_of_lane(lane, state)).order_by(task.c.task_id).limit(1)
            if error := connection.execute(query).scalar():
                return str(error)
    return ""
