"""What people and pages ask the ledger. Nothing here writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, func, or_, select

from router.core.findings import Outcome, outcome_from_json
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import OWED, TaskKind, TaskState
from router.ledger.instants import from_us
from router.ledger.lanes import LaneCounts, counted, standing
from router.ledger.rows import INSTANCE_COLUMNS, driver_instance_of, instance_of
from router.ledger.schema import commitment, event, instance, is_state, notice, outcome, task, word
from router.ledger.statement import Statement

#: What `reports` tells of: documents about one image, and about a study.
_REPORTS = [InstanceKind.SR.value, InstanceKind.SUMMARY.value]
#: SQLite takes at most this many values in one IN (...) of a default build, PostgreSQL many more.
_VALUES_MAX = 500
_ORIGINAL = select(instance.c.instance_id).where(
    instance.c.sop_instance_uid == bindparam("of_uid"), instance.c.digest == bindparam("of_bytes")
)
# Asked for each image that is classified.
_MADE_BY = Statement(
    select(*(instance.c[name] for name in INSTANCE_COLUMNS))
    .where(
        instance.c.instance_id.in_(
            select(event.c.instance_id).where(
                event.c.root_id.in_(_ORIGINAL),
                event.c.what == word("made"),
                event.c.target == bindparam("by"),
            )
        ),
        instance.c.kind == bindparam("its_kind"),
    )
    .order_by(instance.c.instance_id.desc())
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """One task as it stands."""

    task_id: int
    kind: TaskKind
    target: str
    state: TaskState
    attempts: int
    sop_instance_uid: str
    """Of a report to a peer: the Transaction UID of its request; of a notification: the number of its message."""
    error: str
    created_at: datetime
    not_before: datetime | None
    settled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLine:
    """One event in the life of an instance or of what was made from it."""

    at: datetime
    what: str
    """received, received_again, duplicate, conflict, analysed, not_analysed, made, delivered, replaced, done, deferred, failed,
    lease_lost, requeued, freed, committed, not_committed, commitment_asked, commitment_reported."""
    sop_instance_uid: str
    instance_kind: InstanceKind
    digest: str
    """See `SopInstance.digest`."""
    task_kind: str
    target: str
    attempt: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """One SOP instance: what is known, done and owed."""

    instance_id: int
    root_id: int | None
    """The number of the original that it was made of; None for an original."""
    instance: SopInstance
    conflict: bool
    rules: tuple[str, ...]
    notes: tuple[str, ...]
    tasks: tuple[TaskStatus, ...]
    outcomes: dict[str, Outcome]
    """Classifier -> what it said."""
    results: tuple[InstanceStatus, ...]
    """What was made from it."""

    @property
    def deliveries(self) -> tuple[TaskStatus, ...]:
        """`settled_at` of a done one is when the destination had it."""
        return tuple(item for item in self.tasks if item.kind is TaskKind.DELIVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeReport:
    """A Structured Report that this node made."""

    instance: SopInstance
    freed_at: datetime | None
    """When its bytes were freed; None: they should be in the spool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBytes:
    """An instance whose bytes should lie in the spool."""

    instance_id: int
    spool_key: str
    sop_instance_uid: str
    missed: bool
    """The janitor looked before, and they were gone."""


class Queries:
    """Reads by an engine of its own, so that a page never holds up a receipt."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # ---- counts

    def lanes(self, *, done: Mapping[tuple[str, str], int] | None = None) -> list[LaneCounts]:
        """Every kind and target that ever had a task, in order.

        `done`: how many tasks of a (kind, target) are done, if that was counted a moment ago; then nothing is counted that
        takes longer the longer the ledger is, and errors are left out.
        """
        with self._engine.connect() as connection:
            return counted(connection) if done is None else standing(connection, done)

    def instance_counts(self) -> dict[InstanceKind, int]:
        """Kind -> instances in the ledger, those whose bytes were freed included."""
        query = select(instance.c.kind, func.count()).group_by(instance.c.kind)
        with self._engine.connect() as connection:
            return {InstanceKind(kind): count for kind, count in connection.execute(query)}

    def outcome_counts(self) -> dict[str, int]:
        """«analysed» and the codes of reasons why not -> images."""
        query = select(outcome.c.code, func.count()).group_by(outcome.c.code)
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def undelivered_count(self) -> int:
        """Deliveries that are owed or have failed."""
        query = select(func.count()).where(
            task.c.kind == TaskKind.DELIVER.value, task.c.state.in_([*(s.value for s in OWED), TaskState.FAILED.value])
        )
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def conflict_count(self) -> int:
        """Instances that have another one's SOP Instance UID and other bytes."""
        query = select(func.count()).select_from(instance).where(instance.c.conflict)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def missed_count(self) -> int:
        """How many `missed` would list."""
        query = select(func.count()).select_from(instance).where(instance.c.bytes_missed_at.is_not(None))
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one()

    # ---- tasks

    def tried_again(self, kind: TaskKind) -> dict[str, int]:
        """Target -> tasks of a kind that were tried in vain and wait for another try; targets without any are absent."""
        query = (
            select(task.c.target, func.count())
            .where(task.c.kind == kind.value, is_state(task.c.state, TaskState.RETRY), task.c.attempts > 0)
            .group_by(task.c.target)
        )
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def failed(self, *, target: str | None = None, limit: int = 1000) -> list[TaskStatus]:
        """Tasks that wait for an operator, oldest first."""
        query = _tasks().where(is_state(task.c.state, TaskState.FAILED)).order_by(task.c.task_id).limit(limit)
        if target is not None:
            query = query.where(task.c.target == target)
        with self._engine.connect() as connection:
            return [_task_status(row) for row in connection.execute(query)]

    def owed(self, *, target: str | None = None, limit: int = 1000) -> list[TaskStatus]:
        """Tasks in which work is still owed, oldest first."""
        query = _tasks().where(is_state(task.c.state, *OWED)).order_by(task.c.task_id).limit(limit)
        if target is not None:
            query = query.where(task.c.target == target)
        with self._engine.connect() as connection:
            return [_task_status(row) for row in connection.execute(query)]

    # ---- custody

    def trace(self, uid: str) -> list[TraceLine]:
        """The chain of custody behind a SOP Instance UID (of an original or of a result) or a Study Instance UID."""
        roots = select(func.coalesce(instance.c.root_id, instance.c.instance_id)).where(
            or_(instance.c.sop_instance_uid == uid, instance.c.study_instance_uid == uid)
        )
        query = (
            select(
                event.c.at,
                event.c.what,
                event.c.kind.label("task_kind"),
                event.c.target,
                event.c.attempt,
                event.c.detail,
                instance.c.sop_instance_uid,
                instance.c.kind,
                instance.c.digest,
            )
            .join_from(event, instance, event.c.instance_id == instance.c.instance_id)
            .where(event.c.root_id.in_(roots))
            .order_by(event.c.at, event.c.event_id)
        )
        with self._engine.connect() as connection:
            return [
                TraceLine(
                    at=from_us(row.at),
                    what=row.what,
                    sop_instance_uid=row.sop_instance_uid,
                    instance_kind=InstanceKind(row.kind),
                    digest=row.digest,
                    task_kind=row.task_kind,
                    target=row.target,
                    attempt=row.attempt,
                    detail=row.detail,
                )
                for row in connection.execute(query)
            ]

    def instance_status(self, sop_instance_uid: str) -> InstanceStatus | None:
        """The instance with this UID, the one received last when there is a conflict; None when there is none."""
        query = (
            select(instance)
            .where(instance.c.sop_instance_uid == sop_instance_uid)
            .order_by(instance.c.instance_id.desc())
            .limit(1)
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
            return _instance_status(connection, row) if row is not None else None

    def status_of(self, instance_id: int) -> InstanceStatus | None:
        """The instance with this number in the ledger; None when there is none."""
        with self._engine.connect() as connection:
            row = connection.execute(select(instance).where(instance.c.instance_id == instance_id)).one_or_none()
            return _instance_status(connection, row) if row is not None else None

    def original_of(self, result_uid: str) -> SopInstance | None:
        """What a result object was made of; None when the ledger does not know it."""
        root = select(instance.c.root_id).where(
            instance.c.sop_instance_uid == result_uid, instance.c.root_id.is_not(None)
        )
        with self._engine.connect() as connection:
            row = connection.execute(select(instance).where(instance.c.instance_id == root.limit(1).scalar_subquery()))
            found = row.one_or_none()
            return instance_of(found) if found is not None else None

    def made_by(self, classifier: str, *, of: SopInstance, kind: InstanceKind) -> list[SopInstance]:
        """What the classifier of this name has made of an original, newest first."""
        asked = {"of_uid": of.sop_instance_uid, "of_bytes": of.digest, "by": classifier, "its_kind": kind.value}
        with self._engine.connect() as connection:
            return [driver_instance_of(row) for row in _MADE_BY.rows(connection, asked)]

    def reports(self, uid: str) -> list[MadeReport]:
        """The SR with this SOP Instance UID; or, of an original or a study, the newest SR of each classifier about each
        image (what was made only because a destination takes no other SR class says the same), oldest first.
        """
        roots = select(func.coalesce(instance.c.root_id, instance.c.instance_id)).where(
            or_(instance.c.sop_instance_uid == uid, instance.c.study_instance_uid == uid)
        )
        query = (
            select(instance, event.c.kind.label("made_in"), event.c.target)
            .join_from(event, instance, event.c.instance_id == instance.c.instance_id)
            .where(event.c.root_id.in_(roots), event.c.what == "made", instance.c.kind.in_(_REPORTS))
            .order_by(instance.c.instance_id)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        newest = {(r.root_id, r.target): r for r in rows if r.made_in == TaskKind.CLASSIFY.value}
        itself = [row for row in rows if row.sop_instance_uid == uid][:1]
        return [
            MadeReport(
                instance=instance_of(row),
                freed_at=from_us(row.bytes_freed_at) if row.bytes_freed_at is not None else None,
            )
            for row in itself or sorted(newest.values(), key=lambda row: row.instance_id)
        ]

    # ---- spool

    def held(self, *, after_id: int = 0, limit: int = 1000) -> list[HeldBytes]:
        """Instances whose bytes should be there, by id; ask again with the last one's id until none come."""
        query = (
            select(
                instance.c.instance_id, instance.c.spool_key, instance.c.sop_instance_uid, instance.c.bytes_missed_at
            )
            .where(instance.c.bytes_freed_at.is_(None), instance.c.instance_id > after_id)
            .order_by(instance.c.instance_id)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [_held(row) for row in connection.execute(query)]

    def missed(self) -> list[HeldBytes]:
        """Instances whose bytes are gone although nobody freed them: an alarm."""
        query = select(
            instance.c.instance_id, instance.c.spool_key, instance.c.sop_instance_uid, instance.c.bytes_missed_at
        ).where(instance.c.bytes_missed_at.is_not(None))
        with self._engine.connect() as connection:
            return [_held(row) for row in connection.execute(query)]

    def unheld(self, spool_keys: Iterable[str]) -> set[str]:
        """Those of `spool_keys` that no row holds: rubbish, or on their way in."""
        keys = list(spool_keys)
        held: set[str] = set()
        with self._engine.connect() as connection:
            for start in range(0, len(keys), _VALUES_MAX):
                some = keys[start : start + _VALUES_MAX]
                held.update(
                    connection.execute(
                        select(instance.c.spool_key).where(
                            instance.c.spool_key.in_(some), instance.c.bytes_freed_at.is_(None)
                        )
                    ).scalars()
                )
        return set(keys) - held


def _tasks() -> Any:
    uid = func.coalesce(instance.c.sop_instance_uid, commitment.c.transaction_uid, notice.c.uid)
    return (
        select(task, uid.label("sop_instance_uid"))
        .outerjoin_from(task, instance, task.c.instance_id == instance.c.instance_id)
        .outerjoin(commitment, task.c.commitment_id == commitment.c.commitment_id)
        .outerjoin(notice, task.c.notice_id == notice.c.notice_id)
    )


def _task_status(row: Any) -> TaskStatus:
    return TaskStatus(
        task_id=row.task_id,
        kind=TaskKind(row.kind),
        target=row.target,
        state=TaskState(row.state),
        attempts=row.attempts,
        sop_instance_uid=row.sop_instance_uid,
        error=row.error,
        created_at=from_us(row.created_at),
        not_before=from_us(row.not_before) if row.not_before is not None else None,
        settled_at=from_us(row.settled_at) if row.settled_at is not None else None,
    )


def _held(row: Any) -> HeldBytes:
    return HeldBytes(
        instance_id=row.instance_id,
        spool_key=row.spool_key,
        sop_instance_uid=row.sop_instance_uid,
        missed=row.bytes_missed_at is not None,
    )


def _instance_status(connection: Connection, row: Any) -> InstanceStatus:
    results = connection.execute(
        select(instance).where(instance.c.root_id == row.instance_id).order_by(instance.c.instance_id)
    ).all()
    ids = [one.instance_id for one in (row, *results)]
    tasks: dict[int, list[TaskStatus]] = {}
    for item in connection.execute(_tasks().where(task.c.instance_id.in_(ids)).order_by(task.c.task_id)):
        tasks.setdefault(item.instance_id, []).append(_task_status(item))
    outcomes: dict[int, dict[str, Outcome]] = {}
    for item in connection.execute(select(outcome).where(outcome.c.instance_id.in_(ids))):
        outcomes.setdefault(item.instance_id, {})[item.classifier] = outcome_from_json(item.outcome)

    def status(one: Any, of_it: tuple[InstanceStatus, ...] = ()) -> InstanceStatus:
        return InstanceStatus(
            instance_id=one.instance_id,
            root_id=one.root_id,
            instance=instance_of(one),
            conflict=one.conflict,
            rules=tuple(one.rules),
            notes=tuple(one.notes),
            tasks=tuple(tasks.get(one.instance_id, ())),
            outcomes=outcomes.get(one.instance_id, {}),
            results=of_it,
        )

    return status(row, tuple(map(status, results)))
