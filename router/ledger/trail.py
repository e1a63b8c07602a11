"""The trail of custody as it grows: what is new in it since a number, each with all that came before of the same original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, or_, select

from router.core.custody import Custody, CustodyEvent, CustodyInstance
from router.core.instance import InstanceKind
from router.ledger.instants import from_us
from router.ledger.schema import event, instance, meta, task
from router.ledger.writer import GroupCommit, Transaction

_MARK = "traced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What is new."""

    trails: Sequence[Custody]
    """Of the originals that something new is of; whole, up to `last_id`."""
    last_id: int
    """Ask with this the next time."""


class Trail:
    """Reads by an engine of its own, so that nobody who receives waits for it."""

    def __init__(self, writer: GroupCommit, engine: Engine) -> None:
        self._writer = writer
        self._engine = engine

    def newest_id(self) -> int:
        """Of the last event; 0 when there is none."""
        with self._engine.connect() as connection:
            return connection.execute(select(func.max(event.c.event_id))).scalar() or 0

    def since(self, event_id: int, *, limit: int) -> Growth:
        """At most `limit` new events, oldest first."""
        new = select(event.c.event_id, event.c.root_id).where(event.c.event_id > event_id).order_by(event.c.event_id)
        with self._engine.connect() as connection:
            rows = connection.execute(new.limit(limit)).all()
            if not rows:
                return Growth(trails=(), last_id=event_id)
            last_id = rows[-1].event_id
            roots = list(dict.fromkeys(row.root_id for row in rows))
            return Growth(trails=_trails(connection, roots, last_id), last_id=last_id)

    def mark(self) -> int | None:
        """What `keep_mark` was told last; None when it never was."""
        with self._engine.connect() as connection:
            found = connection.execute(select(meta.c.value).where(meta.c.name == _MARK)).scalar()
            return int(found) if found is not None else None

    def keep_mark(self, event_id: int) -> None:
        """So far somebody has read: the next process goes on from there."""

        def work(tx: Transaction) -> None:
            tx.connection.execute(delete(meta).where(meta.c.name == _MARK))
            tx.connection.execute(insert(meta).values(name=_MARK, value=str(event_id)))

        self._writer.do(work)


def _trails(connection: Connection, roots: Sequence[int], last_id: int) -> list[Custody]:
    instances: dict[int, dict[int, Row[Any]]] = {}
    about = or_(instance.c.instance_id.in_(roots), instance.c.root_id.in_(roots))
    for row in connection.execute(select(instance).where(about)):
        instances.setdefault(row.root_id or row.instance_id, {})[row.instance_id] = row
    tasks: dict[tuple[int, str, str], list[Row[Any]]] = {}
    columns = (task.c.instance_id, task.c.kind, task.c.target, task.c.attempts, task.c.created_at, task.c.claimed_at)
    query = select(*columns, task.c.settled_at).where(task.c.root_id.in_(roots)).order_by(task.c.task_id)
    for row in connection.execute(query):
        tasks.setdefault((row.instance_id, row.kind, row.target), []).append(row)
    events: dict[int, list[CustodyEvent]] = {}
    written = select(event).where(event.c.root_id.in_(roots), event.c.event_id <= last_id).order_by(event.c.event_id)
    for row in connection.execute(written):
        if row.instance_id in instances.get(row.root_id, ()):
            of_it = _task_of(row, tasks.get((row.instance_id, row.kind, row.target), ()))
            events.setdefault(row.root_id, []).append(_event(row, of_it))
    return [
        _custody(root_id, instances[root_id], events[root_id])
        for root_id in roots
        if root_id in events and root_id in instances.get(root_id, ())
    ]


def _task_of(row: Row[Any], tasks: Sequence[Row[Any]]) -> Row[Any] | None:
    """The task that an event tells of, if it still stands as it did then: the next attempt has another beginning."""
    fitting = [one for one in tasks if one.attempts == row.attempt and one.settled_at in (None, row.at)]
    return fitting[-1] if fitting else None


def _event(row: Row[Any], of_it: Row[Any] | None) -> CustodyEvent:
    claimed_at = of_it.claimed_at if of_it is not None else None
    return CustodyEvent(
        event_id=row.event_id,
        instance_id=row.instance_id,
        at=from_us(row.at),
        what=row.what,
        kind=row.kind,
        target=row.target,
        attempt=row.attempt,
        detail=row.detail,
        claimed_at=from_us(min(claimed_at, row.at)) if claimed_at is not None else None,
        owed_at=from_us(min(of_it.created_at, row.at)) if of_it is not None else None,
    )


def _custody(root_id: int, instances: dict[int, Row[Any]], events: Sequence[CustodyEvent]) -> Custody:
    original = instances[root_id]
    return Custody(
        root_id=root_id,
        study_instance_uid=original.study_instance_uid,
        digest=original.digest,
        calling_ae_title=original.calling_ae_title,
        called_ae_title=original.called_ae_title,
        received_at=from_us(original.received_at),
        instances={
            number: CustodyInstance(
                sop_instance_uid=row.sop_instance_uid,
                sop_class_uid=row.sop_class_uid,
                kind=InstanceKind(row.kind),
                byte_count=row.byte_count,
            )
            for number, row in instances.items()
        },
        events=events,
    )
