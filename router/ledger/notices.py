"""Notifications in the ledger: what people are to be told of is written down with the fact itself, and once.

A failed task and a finding are told of in the transaction that settles the task. A destination that is down and a disk that is short
are episodes: begun and ended by `notify.watch`, each told once to each subscription. A message is a task like any other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, and_, bindparam, delete, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from router.core.findings import Outcome, Prediction
from router.core.lifecycle import OWED, Event, TaskKind, TaskState
from router.core.notices import BACK_AGAIN, Episode, Fact, Gathering, Notice, NoticeEvent, Subscription
from router.core.ports import NoticeTask
from router.ledger.entry import owe
from router.ledger.instants import from_us, seconds_to_us, to_us
from router.ledger.moves import lease_due, move, requeue, settle
from router.ledger.schema import episode, instance, is_state, notice, notice_fact, task
from router.ledger.writer import GroupCommit, Transaction

#: A message names so many facts; the others it counts.
FACTS_TOLD = 20
_NEW_FACT = {
    dialect.__name__.rsplit(".", 1)[-1]: dialect.insert(notice_fact).on_conflict_do_nothing(
        index_elements=["target", "key"]
    )
    for dialect in (postgresql, sqlite)
}
_FACTS = (
    select(
        notice_fact,
        instance.c.sop_instance_uid,
        instance.c.study_instance_uid,
        instance.c.calling_ae_title,
    )
    .outerjoin_from(notice_fact, instance, notice_fact.c.instance_id == instance.c.instance_id)
    .where(notice_fact.c.notice_id == bindparam("of_notice"))
    .order_by(notice_fact.c.fact_id)
    .limit(bindparam("count"))
)
_FACT_COUNT = select(func.count()).where(notice_fact.c.notice_id == bindparam("of_notice"))

_BEGAN = {end: begin for begin, end in BACK_AGAIN.items()}
#: A message that waits for another one is looked at again after so long.
_SOON_S = 1.0

#: What helps with a failed task, by kind, target and reason: fixed sentences, never the reason, which may quote the peer.
Advise = Callable[[str, str, str], str]


class About(Protocol):
    """A row that says which instance something is about; None: about none."""

    @property
    def instance_id(self) -> int | None: ...
    @property
    def root_id(self) -> int | None: ...


class GivenUp(Protocol):
    """A task, or its row."""

    @property
    def task_id(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def target(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeStatus:
    """One notification as it stands."""

    notice: Notice
    target: str
    task_id: int
    state: TaskState
    attempts: int
    due_at: datetime | None
    settled_at: datetime | None
    error: str
    note: str


class NoticeBook:
    """Part of `SqlLedger`."""

    def __init__(self, writer: GroupCommit, read: Engine) -> None:
        self._writer = writer
        self._read = read
        self._subscriptions: Sequence[Subscription] = ()
        self._advise: Advise = lambda *_: ""

    def subscribe(self, subscriptions: Sequence[Subscription], *, advise: Advise) -> None:
        """Who is told of what from now on; nobody at first."""
        self._subscriptions = tuple(subscriptions)
        self._advise = advise

    # ---- facts, in the transactions in which they become true

    def failed(self, tx: Transaction, about: About, given_up: GivenUp, reason: str) -> None:
        """A task failed for good."""
        kind, target = TaskKind(given_up.kind), given_up.target
        for one in self._subscriptions:
            if one.failed is None or not one.failed.wants(kind, target):
                continue
            detail = {
                "task_id": given_up.task_id,
                "kind": kind.value,
                "target": target,
                "advice": self._advise(kind.value, target, reason),
            }
            subject = f"{kind.value} {target}"
            key = f"task/{given_up.task_id}/{tx.now_us}"  # put back, it may fail again, and that is another fact
            _tell(
                tx,
                one.name,
                NoticeEvent.TASK_FAILED,
                subject,
                key=key,
                detail=detail,
                about=about,
                gathering=one.failed.gathering,
            )

    def found(self, tx: Transaction, about: About, classifier: str, outcome: Outcome) -> None:
        """A classifier has looked at an image. A finding is told once, however often the image is looked at."""
        if not isinstance(outcome, Prediction):
            return
        for one in self._subscriptions:
            for label, (finding, gathering) in one.chosen(classifier, outcome.findings).items():
                detail = {
                    "classifier": classifier,
                    "label": label,
                    "score": finding.score,
                    "threshold": finding.threshold,
                    "demonstration": outcome.classifier.demonstration,
                }
                key = f"finding/{about.instance_id}/{classifier}/{label}"
                _tell(
                    tx,
                    one.name,
                    NoticeEvent.FINDING,
                    classifier,
                    key=key,
                    detail=detail,
                    about=about,
                    gathering=gathering,
                )

    # ---- episodes

    def episodes(self) -> list[Episode]:
        """Those that have not ended, with whom has been told."""
        with self._read.connect() as connection:
            rows = connection.execute(select(episode).where(episode.c.ended_at.is_(None))).all()
            return [_episode_of(connection, row) for row in rows]

    def begin(self, event: NoticeEvent, subject: str, began_at: datetime) -> Episode:
        """A new one."""

        def work(tx: Transaction) -> int:
            values = {"event": event.value, "subject": subject, "began_at": to_us(began_at)}
            return int(
                tx.connection.execute(insert(episode).values(**values).returning(episode.c.episode_id)).scalar_one()
            )

        return Episode(episode_id=self._writer.do(work), event=event, subject=subject, began_at=began_at)

    def tell(self, one: Episode, targets: Collection[str], detail: Mapping[str, Any]) -> None:
        """Subscriptions that have to hear of it; who heard before hears nothing."""

        def work(tx: Transaction) -> None:
            for target in targets:
                _tell(tx, target, one.event, one.subject, key=_key(one.event, one.episode_id), detail=detail)

        self._writer.do(work)

    def end(self, one: Episode, *, told: NoticeEvent, targets: Collection[str], detail: Mapping[str, Any]) -> None:
        """It is over; `targets` hear that, as `told`."""

        def work(tx: Transaction) -> None:
            here = and_(episode.c.episode_id == one.episode_id, episode.c.ended_at.is_(None))
            tx.connection.execute(update(episode).where(here).values(ended_at=tx.now_us))
            for target in targets:
                _tell(tx, target, told, one.subject, key=_key(told, one.episode_id), detail=detail)

        self._writer.do(work)

    # ---- messages

    def claim(self, kind: TaskKind, target: str, *, lease_s: float, limit: int) -> list[NoticeTask]:
        """Up to `limit` due messages to one [notify.NAME], oldest first. No fact joins them any more."""
        assert kind is TaskKind.NOTIFY

        def work(tx: Transaction) -> list[NoticeTask]:
            ids = lease_due(tx, kind, target, lease_us=seconds_to_us(lease_s), limit=limit)
            if not ids:
                return []
            rows = tx.connection.execute(
                select(task.c.task_id, task.c.attempts, task.c.lease, notice)
                .join_from(task, notice, task.c.notice_id == notice.c.notice_id)
                .where(task.c.task_id.in_(ids))
                .order_by(task.c.task_id)
            ).all()
            _seal(tx, [row.notice_id for row in rows])
            tasks = [
                NoticeTask(
                    task_id=row.task_id,
                    kind=kind,
                    target=target,
                    attempts=row.attempts,
                    lease=row.lease,
                    notice=_notice_of(tx.connection, row, count=FACTS_TOLD),
                )
                for row in rows
            ]
            return [held for held, row in zip(tasks, rows, strict=True) if not _put_off(tx, held, row)]

        return self._writer.do(work)

    def sent(self, held: NoticeTask, *, note: str = "") -> None:
        """The channel has it. Raises LeaseLost."""

        def work(tx: Transaction) -> None:
            settle(tx, held, Event.SUCCEED, settled_at=tx.now_us, error="")
            if note:
                tx.connection.execute(update(notice).where(notice.c.uid == held.notice.uid).values(note=note))

        self._writer.do(work)

    def waive(self, *, telling: Collection[str]) -> int:
        """Nobody but `telling` is told of anything any more: what others should still have heard is done. Returns
        how many messages that were. For the node's start, when the configuration may have changed.
        """

        def work(tx: Transaction) -> int:
            off = and_(task.c.kind == TaskKind.NOTIFY.value, task.c.target.not_in(list(telling)))
            waiting = is_state(task.c.state, TaskState.READY, TaskState.RETRY, TaskState.FAILED)
            ids = tx.connection.execute(select(task.c.task_id).where(off, waiting)).scalars().all()
            requeue(tx, and_(task.c.task_id.in_(ids), is_state(task.c.state, TaskState.RETRY, TaskState.FAILED)))
            move(tx, ids, Event.CLAIM)
            move(tx, ids, Event.SUCCEED, lease=None, lease_until=None, settled_at=tx.now_us, error="")
            _seal(tx, select(task.c.notice_id).where(task.c.task_id.in_(ids)))
            return len(ids)

        return self._writer.do(work)

    def newest(self, *, target: str = "", limit: int = 50) -> list[NoticeStatus]:
        """The last ones, the newest first."""
        query = (
            select(notice, *(task.c[name] for name in _TASK_COLUMNS))
            .join_from(notice, task, task.c.notice_id == notice.c.notice_id)
            .order_by(notice.c.notice_id.desc())
            .limit(limit)
        )
        if target:
            query = query.where(notice.c.target == target)
        with self._read.connect() as connection:
            return [
                NoticeStatus(
                    notice=_notice_of(connection, row, count=FACTS_TOLD),
                    target=row.target,
                    task_id=row.task_id,
                    state=TaskState(row.state),
                    attempts=row.attempts,
                    due_at=from_us(row.not_before) if row.not_before is not None else None,
                    settled_at=from_us(row.settled_at) if row.settled_at is not None else None,
                    error=row.error,
                    note=row.note,
                )
                for row in connection.execute(query).all()
            ]


def _put_off(tx: Transaction, held: NoticeTask, row: Any) -> bool:
    """True when it is the end of a trouble whose beginning was not sent yet: then it goes back, as if it had not been tried."""
    began = _BEGAN.get(held.notice.event)
    if began is None:
        return False
    key = tx.connection.execute(select(notice_fact.c.key).where(notice_fact.c.notice_id == row.notice_id)).scalar_one()
    first = tx.connection.execute(
        select(task.c.not_before)
        .join_from(task, notice_fact, task.c.notice_id == notice_fact.c.notice_id)
        .where(
            notice_fact.c.target == held.target,
            notice_fact.c.key == _key(began, int(key.partition("/")[2])),
            is_state(task.c.state, *OWED),
        )
    ).one_or_none()
    if first is None:
        return False
    at_us = max(first.not_before or 0, tx.now_us + seconds_to_us(_SOON_S))
    reason = "that the trouble began is to be told first"
    settle(tx, held, Event.DEFER, not_before=at_us, error=reason, attempts=held.attempts - 1)
    return True


def expire_notices(tx: Transaction, cutoff_us: int, limit: int) -> None:
    """Removes messages that were sent so long ago, unless what they told of still lasts, and episodes that ended so long ago."""
    lasts = exists().where(
        episode.c.event == notice.c.event, episode.c.subject == notice.c.subject, episode.c.ended_at.is_(None)
    )
    over = and_(
        task.c.kind == TaskKind.NOTIFY.value,
        task.c.state == TaskState.DONE.value,
        task.c.settled_at <= cutoff_us,
        ~lasts,
    )
    ids = tx.connection.execute(
        select(notice.c.notice_id)
        .join_from(notice, task, task.c.notice_id == notice.c.notice_id)
        .where(over)
        .limit(limit)
    ).scalars()
    gone = list(ids)
    for column in (notice_fact.c.notice_id, task.c.notice_id, notice.c.notice_id):
        tx.connection.execute(delete(column.table).where(column.in_(gone)))
    tx.connection.execute(delete(episode).where(episode.c.ended_at <= cutoff_us))


_TASK_COLUMNS = ("task_id", "state", "attempts", "not_before", "settled_at", "error")


def _seal(tx: Transaction, notice_ids: Any) -> None:
    """No fact joins these messages any more."""
    unsealed = and_(notice.c.notice_id.in_(notice_ids), notice.c.sealed_at.is_(None))
    tx.connection.execute(update(notice).where(unsealed).values(sealed_at=tx.now_us))


def _key(event: NoticeEvent, episode_id: int) -> str:
    return f"{event.value}/{episode_id}"


def _tell(
    tx: Transaction,
    target: str,
    event: NoticeEvent,
    subject: str,
    *,
    key: str,
    detail: Mapping[str, Any],
    about: About | None = None,
    gathering: Gathering | None = None,
) -> None:
    """Nothing when `target` knows `key`. `gathering`: the fact joins the message of its group that waits; None: it gets its own."""
    known = select(notice_fact.c.fact_id).where(notice_fact.c.target == target, notice_fact.c.key == key)
    if tx.connection.execute(known).first() is not None:
        return
    notice_id = _open_notice(tx, target, event, subject, gathering)
    values = {
        "notice_id": notice_id,
        "target": target,
        "key": key,
        "instance_id": about.instance_id if about else None,
        "root_id": about.root_id if about else None,
        "at": tx.now_us,
        "detail": dict(detail),
    }
    tx.connection.execute(_NEW_FACT[tx.connection.dialect.name], values)


def _open_notice(tx: Transaction, target: str, event: NoticeEvent, subject: str, gathering: Gathering | None) -> int:
    due_at = from_us(tx.now_us)
    if gathering is not None:
        before = tx.connection.execute(
            select(notice.c.notice_id, notice.c.due_at, notice.c.sealed_at)
            .where(notice.c.target == target, notice.c.event == event.value, notice.c.subject == subject)
            .order_by(notice.c.notice_id.desc())
            .limit(1)
            .with_for_update()
        ).one_or_none()
        if before is not None and before.sealed_at is None:
            return int(before.notice_id)
        due_at = gathering.due_at(due_at, from_us(before.due_at) if before is not None else None)
    notice_id = tx.connection.execute(
        insert(notice)
        .values(
            uid=uuid.uuid4().hex,
            target=target,
            event=event.value,
            subject=subject,
            created_at=tx.now_us,
            due_at=to_us(due_at),
            note="",
        )
        .returning(notice.c.notice_id)
    ).scalar_one()
    owe(tx, None, TaskKind.NOTIFY, target, at_us=to_us(due_at), notice_id=int(notice_id))
    return int(notice_id)


def _notice_of(connection: Connection, row: Any, *, count: int) -> Notice:
    facts = connection.execute(_FACTS, {"of_notice": row.notice_id, "count": count}).all()
    return Notice(
        uid=row.uid,
        event=NoticeEvent(row.event),
        subject=row.subject,
        created_at=from_us(row.created_at),
        fact_count=connection.execute(_FACT_COUNT, {"of_notice": row.notice_id}).scalar_one(),
        facts=tuple(
            Fact(
                at=from_us(fact.at),
                detail=fact.detail,
                sop_instance_uid=fact.sop_instance_uid or "",
                study_instance_uid=fact.study_instance_uid or "",
                calling_ae_title=fact.calling_ae_title or "",
                instance_id=fact.instance_id,
            )
            for fact in facts
        ),
    )


def _episode_of(connection: Connection, row: Any) -> Episode:
    event = NoticeEvent(row.event)
    told = connection.execute(
        select(notice_fact.c.target).where(notice_fact.c.key == _key(event, row.episode_id))
    ).scalars()
    return Episode(
        episode_id=row.episode_id,
        event=event,
        subject=row.subject,
        began_at=from_us(row.began_at),
        told=frozenset(told),
    )
