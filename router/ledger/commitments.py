"""Storage commitment in the ledger: what peers asked of us and must hear, what we asked of destinations and they said."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, and_, case, func, insert, select, update

from router.core.commitment import (
    DUPLICATE_TRANSACTION_UID,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    CommitmentReport,
    CommitmentRequest,
    Standing,
    describe_reason,
)
from router.core.lifecycle import OWED, Event, TaskKind, TaskState
from router.core.ports import Answered, ReportTask, Task
from router.errors import LeaseLost
from router.ledger.entry import owe, record, record_each
from router.ledger.instants import seconds_to_us, to_us
from router.ledger.moves import claim_reports, lease_reports, move, requeue, settle
from router.ledger.notices import NoticeBook
from router.ledger.schema import asked, commitment, instance, is_state, task
from router.ledger.writer import GroupCommit, Transaction

#: All reports to peers are one lane: AE titles come and go, workers do not.
REPORT_TARGET = "requestors"
#: A peer that comes again hears at once of so many of its requests that still wait.
_CLAIMED_MAX = 16
#: SQLite takes at most this many values in one IN (...) of a default build, PostgreSQL many more.
_VALUES_MAX = 500
#: The destination could not say; asking again at once would hear the same.
_ASK_AGAIN_S = 60.0
#: Failure reasons that say nothing about whether the destination has the instance.
_UNDECIDED = frozenset({PROCESSING_FAILURE, RESOURCE_LIMITATION, DUPLICATE_TRANSACTION_UID})


class CommitmentBook:
    """`core.ports.Commitments`; part of `SqlLedger`."""

    def __init__(self, writer: GroupCommit, read: Engine, notices: NoticeBook) -> None:
        """`notices`: hears of every task that is given up."""
        self._writer = writer
        self._read = read
        self._notices = notices

    # ---- what peers ask of us

    def take(self, request: CommitmentRequest, *, lease_s: float) -> list[ReportTask]:
        """Request and report in one transaction; see core.ports.Commitments."""

        def work(tx: Transaction) -> list[ReportTask]:
            commitment_id = _enter(tx, request)
            owed = select(task.c.task_id).where(
                task.c.commitment_id == commitment_id, task.c.state != TaskState.DONE.value
            )
            if tx.connection.execute(owed).first() is None:
                owe(tx, None, TaskKind.REPORT, REPORT_TARGET, commitment_id=commitment_id)
            waiting = _of_peer(request.calling_ae_title)
            requeue(tx, and_(task.c.task_id.in_(waiting), is_state(task.c.state, TaskState.RETRY, TaskState.FAILED)))
            if lease_s <= 0:
                return []
            due = select(task.c.task_id).where(task.c.task_id.in_(waiting), is_state(task.c.state, TaskState.READY))
            newest_first = due.order_by(task.c.task_id.desc()).limit(_CLAIMED_MAX).with_for_update(skip_locked=True)
            ids = tx.connection.execute(newest_first).scalars().all()
            return lease_reports(tx, ids, lease_us=seconds_to_us(lease_s))

        return self._writer.do(work)

    def claim(self, kind: TaskKind, target: str, *, lease_s: float, limit: int) -> list[ReportTask]:
        """Up to `limit` due reports, oldest first."""
        assert kind is TaskKind.REPORT
        return self._writer.do(lambda tx: claim_reports(tx, target, lease_us=seconds_to_us(lease_s), limit=limit))

    def standings(self, sop_instance_uids: Collection[str]) -> Mapping[str, Sequence[Standing]]:
        """How instances stand now; those that the ledger does not know are absent."""
        owed = and_(
            task.c.kind.in_([TaskKind.DELIVER.value, TaskKind.COMMIT.value]), task.c.state != TaskState.DONE.value
        )
        done = and_(task.c.kind == TaskKind.DELIVER.value, task.c.state == TaskState.DONE.value)
        found: dict[str, list[Standing]] = {}
        with self._read.connect() as connection:
            for some in _chunks(sop_instance_uids):
                rows = connection.execute(
                    select(
                        instance.c.sop_instance_uid,
                        instance.c.sop_class_uid,
                        instance.c.bytes_missed_at,
                        func.sum(case((owed, 1), else_=0)).label("owed_count"),
                        func.sum(case((done, 1), else_=0)).label("done_count"),
                    )
                    .outerjoin_from(instance, task, task.c.instance_id == instance.c.instance_id)
                    .where(instance.c.sop_instance_uid.in_(some))
                    .group_by(instance.c.instance_id)
                )
                for row in rows:
                    standing = Standing(
                        sop_class_uid=row.sop_class_uid,
                        missed=row.bytes_missed_at is not None,
                        owed_count=row.owed_count,
                        done_count=row.done_count,
                    )
                    found.setdefault(row.sop_instance_uid, []).append(standing)
        return found

    def reported(self, held: ReportTask, report: CommitmentReport) -> None:
        """The peer has the report. Raises LeaseLost."""

        def work(tx: Transaction) -> None:
            settle(tx, held, Event.SUCCEED, settled_at=tx.now_us, error="")
            failed = {reference.sop_instance_uid: reason for reference, reason in report.failed.items()}
            tx.connection.execute(
                update(commitment)
                .where(commitment.c.commitment_id == _commitment_id(held))
                .values(reported_at=tx.now_us, failed=failed)
            )
            peer = held.request.calling_ae_title or "?"
            said = {uid: f"{describe_reason(reason)}, to {peer}" for uid, reason in failed.items()}
            known = _known(tx, [reference.sop_instance_uid for reference in held.request.references])
            details = [(row, held, said.get(row.sop_instance_uid, f"committed, to {peer}")) for row in known]
            record_each(tx, details, "commitment_reported")

        self._writer.do(work)

    # ---- what we ask of destinations

    def ask(self, transaction_uid: str, target: str, tasks: Sequence[Task]) -> None:
        """Before the N-ACTION, because the answer may come before its response."""
        values = {"transaction_uid": transaction_uid, "target": target, "task_ids": [held.task_id for held in tasks]}

        def work(tx: Transaction) -> None:
            tx.connection.execute(insert(asked).values(asked_at=tx.now_us, **values))

        self._writer.do(work)

    def postpone(self, tasks: Sequence[Task], *, error: str, at: datetime | None, tried: bool = True) -> None:
        """See core.ports.Commitments."""

        def work(tx: Transaction) -> None:
            for held in tasks:
                attempts = held.attempts - (0 if tried else 1)
                with suppress(LeaseLost):  # answered meanwhile
                    if at is None:
                        row = settle(tx, held, Event.GIVE_UP, settled_at=tx.now_us, error=error)
                        record(tx, row, "failed", task=held, detail=error)
                        self._notices.failed(tx, row, held, error)
                        continue
                    row = settle(tx, held, Event.DEFER, not_before=to_us(at), error=error, attempts=attempts)
                    if tried and row.error != error:
                        record(tx, row, "deferred", task=held, detail=error)
                    tx.lanes.add((held.kind, held.target))

        self._writer.do(work)

    def answered(self, report: CommitmentReport, *, resends_max: int) -> Answered:
        """See core.ports.Commitments. Raises KeyError."""
        committed = {reference.sop_instance_uid for reference in report.committed}
        failed = {reference.sop_instance_uid: reason for reference, reason in report.failed.items()}

        def work(tx: Transaction) -> Answered:
            question = tx.connection.execute(
                select(asked.c.target, asked.c.task_ids).where(asked.c.transaction_uid == report.transaction_uid)
            ).one_or_none()
            if question is None:
                raise KeyError(report.transaction_uid)
            owed = tx.connection.execute(
                select(task, instance.c.sop_instance_uid)
                .join_from(task, instance, task.c.instance_id == instance.c.instance_id)
                .where(task.c.task_id.in_(question.task_ids), is_state(task.c.state, *OWED))
                .with_for_update(of=task)
            ).all()
            kept = [row for row in owed if row.sop_instance_uid in committed - failed.keys()]
            _end(tx, kept, Event.SUCCEED, settled_at=tx.now_us, error="")
            for row in kept:
                record(tx, row, "committed", task=row)
            sorted_out: dict[str, list[str]] = {"committed": [row.sop_instance_uid for row in kept]}
            for row in owed:
                if row.sop_instance_uid in failed:
                    became = _not_committed(
                        tx, row, failed[row.sop_instance_uid], resends_max=resends_max, notices=self._notices
                    )
                    sorted_out.setdefault(became, []).append(row.sop_instance_uid)
            return Answered(target=question.target, **{what: tuple(uids) for what, uids in sorted_out.items()})

        return self._writer.do(work)

    def waive(self, *, asking: Collection[str]) -> int:
        """Nothing is asked any more of targets other than `asking`: what they should still have committed to is done.
        Returns how many tasks that were. For the node's start, when the configuration may have changed.
        """

        def work(tx: Transaction) -> int:
            off = and_(task.c.kind == TaskKind.COMMIT.value, task.c.target.not_in(list(asking)))
            rows = tx.connection.execute(
                select(task).where(off, is_state(task.c.state, TaskState.READY, TaskState.RETRY, TaskState.FAILED))
            ).all()
            requeue(tx, and_(off, is_state(task.c.state, TaskState.RETRY, TaskState.FAILED)))
            _end(tx, rows, Event.SUCCEED, settled_at=tx.now_us, error="")
            for row in rows:
                record(tx, row, "done", task=row, detail="commitment of this destination was switched off")
            return len(rows)

        return self._writer.do(work)


def _enter(tx: Transaction, request: CommitmentRequest) -> int:
    """The row of this request, a new one unless this very request was there before."""
    instances = [[reference.sop_class_uid, reference.sop_instance_uid] for reference in request.references]
    before = tx.connection.execute(
        select(commitment.c.commitment_id, commitment.c.instances).where(
            commitment.c.transaction_uid == request.transaction_uid,
            commitment.c.calling_ae_title == request.calling_ae_title,
        )
    ).all()
    for row in before:
        if sorted(row.instances) == sorted(instances):
            return int(row.commitment_id)
    (commitment_id,) = tx.connection.execute(
        insert(commitment)
        .values(
            transaction_uid=request.transaction_uid,
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            peer_host=request.peer_host,
            requested_at=to_us(request.requested_at),
            instances=instances,
            duplicate=bool(before),
        )
        .returning(commitment.c.commitment_id)
    ).one()
    by = f"by {request.calling_ae_title or '?'} at {request.peer_host or '?'}"
    known = _known(tx, [reference.sop_instance_uid for reference in request.references])
    record_each(tx, [(row, None, by) for row in known], "commitment_asked")
    return int(commitment_id)


def _of_peer(calling_ae_title: str) -> Any:
    """Reports that one peer waits for."""
    return (
        select(task.c.task_id)
        .join_from(task, commitment, task.c.commitment_id == commitment.c.commitment_id)
        .where(commitment.c.calling_ae_title == calling_ae_title, task.c.state != TaskState.DONE.value)
    )


def _commitment_id(held: ReportTask) -> Any:
    return select(task.c.commitment_id).where(task.c.task_id == held.task_id).scalar_subquery()


def _known(tx: Transaction, sop_instance_uids: Sequence[str]) -> Iterable[Any]:
    """instance_id, root_id and UID of those that the ledger has."""
    root_id = func.coalesce(instance.c.root_id, instance.c.instance_id).label("root_id")
    for some in _chunks(sop_instance_uids):
        yield from tx.connection.execute(
            select(instance.c.instance_id, root_id, instance.c.sop_instance_uid).where(
                instance.c.sop_instance_uid.in_(some)
            )
        ).all()


def _not_committed(tx: Transaction, row: Any, reason: int, *, resends_max: int, notices: NoticeBook) -> str:
    """What becomes of an instance that the destination does not commit to: a key of Answered."""
    said = describe_reason(reason)
    resent = int(row.options.get("resent", 0))
    record(tx, row, "not_committed", task=row, detail=said)
    if reason in _UNDECIDED:
        again_at = tx.now_us + seconds_to_us(_ASK_AGAIN_S)
        _end(tx, [row], Event.DEFER, not_before=again_at, error=f"{row.target} could not say: {said}")
        tx.lanes.add((TaskKind.COMMIT, row.target))
        return "asked_again"
    if resent >= resends_max:
        error = f"{row.target} does not commit to it after it was sent {resent + 1} times: {said}"
        _end(tx, [row], Event.GIVE_UP, settled_at=tx.now_us, error=error)
        record(tx, row, "failed", task=row, detail=error)
        notices.failed(tx, row, row, error)
        return "failed"
    _end(tx, [row], Event.SUCCEED, settled_at=tx.now_us, error="")
    owe(tx, row, TaskKind.DELIVER, row.target, {"resent": resent + 1})
    return "resent"


def _end(tx: Transaction, rows: Sequence[Any], happening: Event, **values: Any) -> None:
    """Whoever has the tasks, if anybody: the destination's own word settles them, and a worker that has one is too late."""
    ids = [row.task_id for row in rows]
    move(tx, ids, Event.CLAIM)
    move(tx, ids, happening, lease=None, lease_until=None, **values)


def _chunks(values: Collection[str]) -> Iterable[list[str]]:
    every = list(dict.fromkeys(values))
    return (every[start : start + _VALUES_MAX] for start in range(0, len(every), _VALUES_MAX))
