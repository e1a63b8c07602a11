"""What the pages ask: studies, images, what failed, what conflicts. Every answer is bounded, however large the ledger is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Select, and_, bindparam, func, literal, select, union_all
from sqlalchemy.sql.elements import ColumnElement

from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import OWED, Event, TaskKind, TaskState
from router.ledger.instants import from_us
from router.ledger.lanes import lanes_of
from router.ledger.moves import sources
from router.ledger.rows import instance_of
from router.ledger.schema import catalogue, event, instance, is_state, task

#: More objects of a study are not counted one by one.
OBJECTS_MAX = 1000
#: A timeline of a study is made of so many of its images.
TIMELINE_IMAGES_MAX = 2000
#: So many of the newest failed and of the newest owed tasks are looked at to mark studies in a list.
_MARKED_MAX = 500
_EVENTS_MAX = 500
#: Of one SOP Instance UID.
_VERSIONS_MAX = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What a search asks for; empty parts ask for nothing. Values are matched whole."""

    patient_id: str = ""
    accession_number: str = ""
    uid: str = ""
    """Study Instance UID or SOP Instance UID."""
    calling_ae_title: str = ""

    def words(self) -> str:
        """For the audit trail."""
        parts = {
            "PatientID": self.patient_id,
            "AccessionNumber": self.accession_number,
            "UID": self.uid,
            "CallingAETitle": self.calling_ae_title,
        }
        return "&".join(f"{key}={value}" for key, value in parts.items() if value)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One line of the list of studies."""

    catalogue_id: int
    study_instance_uid: str
    patient_id: str
    accession_number: str
    calling_ae_title: str
    first_at: datetime
    object_count: int
    """Images and results; `OBJECTS_MAX` + 1 for more than that."""
    header: Mapping[str, str]
    """Of the first instance that came."""
    failed: bool
    owed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One kind of event in the life of a study."""

    what: str
    target: str
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One original of a study, and how far it is."""

    instance_id: int
    sop_instance_uid: str
    sop_class_uid: str
    received_at: datetime
    calling_ae_title: str
    byte_count: int
    conflict: bool
    header: Mapping[str, str]
    tasks: Sequence[tuple[str, str, str]]
    """(kind, target, state) of what is owed or done for it and its results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An instance that a peer sent, as the ledger keeps it."""

    instance_id: int
    instance: SopInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One event in the life of an image or of what was made from it."""

    at: datetime
    what: str
    target: str
    attempt: int
    detail: str
    instance_id: int
    instance_kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTask:
    """A task that waits for an operator."""

    task_id: int
    kind: str
    target: str
    attempts: int
    error: str
    settled_at: datetime | None
    instance_id: int | None
    """None for a report to a peer that asked for storage commitment."""
    sop_instance_uid: str
    study_instance_uid: str
    instance_kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictRow:
    """Instances with one SOP Instance UID and different bytes."""

    sop_instance_uid: str
    versions: Sequence[ImageRow] = field(default_factory=tuple)


class Search:
    """Reads by an engine of its own, so that a page never holds up a receipt."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def studies(self, criteria: Criteria, *, before_id: int | None = None, limit: int = 50) -> list[StudyRow]:
        """Newest first; ask for more with the last one's `catalogue_id`."""
        query = _STUDIES.order_by(catalogue.c.catalogue_id.desc()).limit(limit)
        for column, value in (
            (catalogue.c.patient_id, criteria.patient_id),
            (catalogue.c.accession_number, criteria.accession_number),
            (catalogue.c.calling_ae_title, criteria.calling_ae_title),
        ):
            if value:
                query = query.where(column == value)
        if before_id is not None:
            query = query.where(catalogue.c.catalogue_id < before_id)
        with self._engine.connect() as connection:
            if criteria.uid:
                # Two questions: with both in one, PostgreSQL looks at every study.
                of_instance = select(instance.c.study_instance_uid).where(instance.c.sop_instance_uid == criteria.uid)
                known = connection.execute(of_instance.distinct()).scalars()
                query = query.where(catalogue.c.study_instance_uid.in_([criteria.uid, *known]))
            rows = connection.execute(query).all()
            uids = {"uids": [row.study_instance_uid for row in rows]}
            failed = set(connection.execute(_FAILED_STUDIES, uids).scalars()) if rows else ()
            owed = set(connection.execute(_OWED_STUDIES, uids).scalars()) if rows else ()
            return [
                StudyRow(
                    catalogue_id=row.catalogue_id,
                    study_instance_uid=row.study_instance_uid,
                    patient_id=row.patient_id,
                    accession_number=row.accession_number,
                    calling_ae_title=row.calling_ae_title,
                    first_at=from_us(row.first_at),
                    object_count=row.object_count,
                    header=row.header or {},
                    failed=row.study_instance_uid in failed,
                    owed=row.study_instance_uid in owed,
                )
                for row in rows
            ]

    def timeline(self, study_instance_uid: str) -> list[Moment]:
        """What happened to a study, by kind of event and target, in the order in which it began."""
        roots = (
            select(instance.c.instance_id)
            .where(instance.c.study_instance_uid == study_instance_uid, instance.c.root_id.is_(None))
            .order_by(instance.c.instance_id)
            .limit(TIMELINE_IMAGES_MAX)
        )
        first_at = func.min(event.c.at).label("first_at")
        query = (
            select(
                event.c.what, event.c.target, func.count().label("n"), first_at, func.max(event.c.at).label("last_at")
            )
            .where(event.c.root_id.in_(roots))
            .group_by(event.c.what, event.c.target)
            .order_by(first_at, func.min(event.c.event_id))
        )
        with self._engine.connect() as connection:
            return [
                Moment(
                    what=row.what,
                    target=row.target,
                    count=row.n,
                    first_at=from_us(row.first_at),
                    last_at=from_us(row.last_at),
                )
                for row in connection.execute(query)
            ]

    def images(self, study_instance_uid: str, *, after_id: int = 0, limit: int = 50) -> list[ImageRow]:
        """Originals of a study as they came; ask for more with the last one's `instance_id`."""
        query = (
            select(instance)
            .where(
                instance.c.study_instance_uid == study_instance_uid,
                instance.c.root_id.is_(None),
                instance.c.instance_id > after_id,
            )
            .order_by(instance.c.instance_id)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return _image_rows(connection, query)

    def newest(self, *, limit: int = 8) -> list[ImageRow]:
        """The originals that came last, the last one first."""
        query = (
            select(instance).where(instance.c.root_id.is_(None)).order_by(instance.c.instance_id.desc()).limit(limit)
        )
        with self._engine.connect() as connection:
            return _image_rows(connection, query)

    def originals(self, *, uid: str = "", limit: int) -> list[Original]:
        """What came last, the last one first: of all, or of a Study or SOP Instance UID."""
        query = select(instance).where(instance.c.root_id.is_(None)).order_by(instance.c.instance_id.desc())
        if uid:
            columns = (instance.c.sop_instance_uid, instance.c.study_instance_uid)
            found = (select(instance.c.instance_id).where(column == uid) for column in columns)
            query = query.where(instance.c.instance_id.in_(union_all(*found)))
        with self._engine.connect() as connection:
            return [
                Original(instance_id=row.instance_id, instance=instance_of(row))
                for row in connection.execute(query.limit(limit))
            ]

    def steps(self, root_id: int) -> list[Step]:
        """What happened to an original and to what was made from it."""
        query = (
            select(event, instance.c.kind.label("instance_kind"))
            .join_from(event, instance, event.c.instance_id == instance.c.instance_id)
            .where(event.c.root_id == root_id)
            .order_by(event.c.event_id)
            .limit(_EVENTS_MAX)
        )
        with self._engine.connect() as connection:
            return [
                Step(
                    at=from_us(row.at),
                    what=row.what,
                    target=row.target,
                    attempt=row.attempt,
                    detail=row.detail,
                    instance_id=row.instance_id,
                    instance_kind=row.instance_kind,
                )
                for row in connection.execute(query)
            ]

    def failed(
        self, *, kind: str = "", target: str = "", before_id: int | None = None, limit: int = 50
    ) -> list[FailedTask]:
        """Failed tasks, the newest first; ask for more with the last one's `task_id`."""
        columns = (
            task,
            instance.c.sop_instance_uid,
            instance.c.study_instance_uid.label("of_study"),
            instance.c.kind.label("instance_kind"),
        )
        query = (
            select(*columns)
            .outerjoin_from(task, instance, task.c.instance_id == instance.c.instance_id)
            .where(is_state(task.c.state, TaskState.FAILED))
            .order_by(task.c.task_id.desc())
            .limit(limit)
        )
        if before_id is not None:
            query = query.where(task.c.task_id < before_id)
        rows: list[Any] = []
        with self._engine.connect() as connection:
            for some in _of_lanes(connection, kind, target):
                rows += connection.execute(query.where(*some)).all()
        rows.sort(key=lambda row: -int(row.task_id))
        return [
            FailedTask(
                task_id=row.task_id,
                kind=row.kind,
                target=row.target,
                attempts=row.attempts,
                error=row.error,
                settled_at=from_us(row.settled_at) if row.settled_at is not None else None,
                instance_id=row.instance_id,
                sop_instance_uid=row.sop_instance_uid or "",
                study_instance_uid=row.of_study or "",
                instance_kind=row.instance_kind or "",
            )
            for row in rows[:limit]
        ]

    def failed_count(self, *, kind: str = "", target: str = "", task_ids: Sequence[int] | None = None) -> int:
        """How many tasks `requeue` would put back."""
        with self._engine.connect() as connection:
            if task_ids is not None:
                states = [state.value for state in sources(Event.REQUEUE)]
                named = select(func.count()).where(task.c.task_id.in_(task_ids), task.c.state.in_(states))
                return connection.execute(named).scalar_one()
            failed = select(func.count()).select_from(task).where(is_state(task.c.state, TaskState.FAILED))
            some_each = _of_lanes(connection, kind, target)
            return sum(connection.execute(failed.where(*some)).scalar_one() for some in some_each)

    def conflicts(self, *, before_id: int | None = None, limit: int = 25) -> list[ConflictRow]:
        """SOP Instance UIDs that came with different bytes, the newest first, each with all its versions."""
        query = (
            select(instance.c.instance_id, instance.c.sop_instance_uid)
            .where(instance.c.conflict)
            .order_by(instance.c.instance_id.desc())
            .limit(limit)
        )
        if before_id is not None:
            query = query.where(instance.c.instance_id < before_id)
        with self._engine.connect() as connection:
            uids = dict.fromkeys(row.sop_instance_uid for row in connection.execute(query))
            versions: dict[str, list[ImageRow]] = {uid: [] for uid in uids}
            query = select(instance).where(instance.c.sop_instance_uid.in_(uids)).order_by(instance.c.instance_id)
            for row in _image_rows(connection, query.limit(limit * _VERSIONS_MAX)):
                versions[row.sop_instance_uid].append(row)
            return [ConflictRow(sop_instance_uid=uid, versions=versions[uid]) for uid in uids]


def _of_lanes(connection: Connection, kind: str, target: str) -> Sequence[Sequence[ColumnElement[bool]]]:
    """Conditions on tasks, one for each look: by kind or target alone no index leads to the failed ones."""
    if not kind and not target:
        return [()]
    lanes = [(kind, target)] if kind and target else lanes_of(connection)
    return [
        (task.c.kind == of_kind, task.c.target == for_target)
        for of_kind, for_target in lanes
        if kind in ("", of_kind) and target in ("", for_target)
    ]


def _studies_with(*states: TaskState) -> Select[Any]:
    """Those of `uids` of which one of the newest tasks is in one of the states."""
    newest = (
        select(task.c.instance_id)
        .where(is_state(task.c.state, *states))
        .order_by(task.c.task_id.desc())
        .limit(_MARKED_MAX)
        .subquery()
    )
    # An expression, so that no planner begins at the studies: of those each may have thousands of instances.
    wanted = instance.c.study_instance_uid.concat("").in_(bindparam("uids", expanding=True))
    return (
        select(instance.c.study_instance_uid)
        .join_from(newest, instance, instance.c.instance_id == newest.c.instance_id)
        .where(wanted)
        .distinct()
    )


_FAILED_STUDIES, _OWED_STUDIES = _studies_with(TaskState.FAILED), _studies_with(*OWED)
_of_study = instance.c.study_instance_uid == catalogue.c.study_instance_uid
_some_objects = select(literal(1)).where(_of_study).limit(OBJECTS_MAX + 1).correlate(catalogue).subquery()
#: A study, how many objects it has and the header of the first: one statement for a whole page.
_STUDIES = select(
    catalogue,
    select(func.count()).select_from(_some_objects).scalar_subquery().label("object_count"),
    select(instance.c.header)
    .where(_of_study, instance.c.root_id.is_(None))
    .order_by(instance.c.instance_id)
    .limit(1)
    .scalar_subquery()
    .label("header"),
)


def _image_rows(connection: Connection, query: Select[Any]) -> list[ImageRow]:
    rows = connection.execute(query).all()
    tasks: dict[int, list[tuple[str, str, str]]] = {}
    if rows:
        about = and_(
            task.c.root_id.in_([row.root_id or row.instance_id for row in rows]),
            task.c.kind != TaskKind.REPORT.value,
        )
        found = select(task.c.root_id, task.c.kind, task.c.target, task.c.state, instance.c.kind.label("of")).join_from(
            task, instance, task.c.instance_id == instance.c.instance_id
        )
        for one in connection.execute(found.where(about).order_by(task.c.task_id)):
            kind = one.kind if one.of == InstanceKind.ORIGINAL.value else f"{one.kind} {one.of}"
            tasks.setdefault(one.root_id, []).append((kind, one.target, one.state))
    return [
        ImageRow(
            instance_id=row.instance_id,
            sop_instance_uid=row.sop_instance_uid,
            sop_class_uid=row.sop_class_uid,
            received_at=from_us(row.received_at),
            calling_ae_title=row.calling_ae_title,
            byte_count=row.byte_count,
            conflict=row.conflict,
            header=row.header,
            tasks=tasks.get(row.root_id or row.instance_id, []),
        )
        for row in rows
    ]
