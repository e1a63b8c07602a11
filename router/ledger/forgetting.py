"""Rows that go: those of one study when somebody wants it forgotten, those of all studies when their time is over.

Either way only when nothing is owed of an original and of what was made of it, and its bytes are freed. What stays of an original
of which objects were made is a fingerprint and when it came: see `schema.forgotten`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from router.core.lifecycle import TaskState
from router.errors import StillOwed
from router.ledger.engine import Engines
from router.ledger.entry import fingerprint
from router.ledger.instants import seconds_to_us
from router.ledger.notices import expire_notices
from router.ledger.outcomes import uncount
from router.ledger.schema import (
    asked,
    catalogue,
    commitment,
    event,
    forgotten,
    instance,
    notice_fact,
    outcome,
    task,
)
from router.ledger.writer import GroupCommit, Transaction

#: SQLite takes at most this many values in one IN (...) of a default build, PostgreSQL many more.
_VALUES_MAX = 400
_NOT_DONE = task.c.state != TaskState.DONE.value
_KEEP = {
    dialect.__name__.rsplit(".", 1)[-1]: dialect.insert(forgotten).on_conflict_do_nothing(
        index_elements=["fingerprint"]
    )
    for dialect in (postgresql, sqlite)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the ledger holds of a study."""

    instance_ids: tuple[int, ...]
    """Of originals and of what was made of them."""
    spool_keys: tuple[str, ...]
    owed_count: int
    """Tasks that are owed or have failed, and reports that peers wait for."""
    people: tuple[tuple[str, str], ...]
    """Patient ID and accession number under which it came; as a rule one pair."""


class Forgetting:
    """Part of `SqlLedger`."""

    def __init__(self, writer: GroupCommit, engines: Engines) -> None:
        self._writer = writer
        self._engines = engines

    def known(self, study_instance_uid: str) -> Known | None:
        """None when there is nothing of this study."""
        with self._engines.read.connect() as connection:
            return _known(connection, study_instance_uid)

    def mark(self, study_instance_uid: str, *, force: bool) -> Known | None:
        """Its tasks are gone and its bytes count as freed, in one transaction; the caller deletes the files. Raises StillOwed.

        `force`: also what is owed is given up. A worker that has one of its tasks loses it.
        """

        def work(tx: Transaction) -> Known | None:
            _wipe(tx)
            known = _known(tx.connection, study_instance_uid)
            if known is None:
                return None
            if known.owed_count and not force:
                raise StillOwed(f"{known.owed_count} task(s) of this study are owed or have failed")
            for ids in _some(known.instance_ids):
                tx.connection.execute(delete(task).where(or_(task.c.instance_id.in_(ids), task.c.root_id.in_(ids))))
                tx.connection.execute(
                    update(instance)
                    .where(instance.c.instance_id.in_(ids))
                    .values(bytes_freed_at=func.coalesce(instance.c.bytes_freed_at, tx.now_us), bytes_missed_at=None)
                )
            tx.connection.execute(delete(task).where(task.c.study_instance_uid == study_instance_uid))
            return known

        return self._writer.do(work)

    def remove(self, known: Known) -> int:
        """Removes the rows of what `mark` gave; returns how many instances. What came again meanwhile stays."""

        def work(tx: Transaction) -> int:
            _wipe(tx)
            roots: list[int] = []
            for ids in _some(known.instance_ids):
                roots += tx.connection.execute(
                    select(instance.c.instance_id).where(
                        instance.c.instance_id.in_(ids), instance.c.root_id.is_(None), *_over(tx.now_us)
                    )
                ).scalars()
            for some in _some(roots):
                uncount(tx, outcome.c.instance_id.in_(some))
            return _remove(tx, roots)

        count = self._writer.do(work)
        self._checkpoint()
        return count

    def expire(self, *, retention_s: float, limit: int = 100) -> int:
        """Removes originals, and what was made of them, whose bytes were freed and tasks done for so long; returns how many rows.

        Ask again until fewer than `limit` are gone.
        """

        def work(tx: Transaction) -> int:
            cutoff = tx.now_us - seconds_to_us(retention_s)
            roots = tx.connection.execute(
                select(instance.c.instance_id)
                .where(instance.c.root_id.is_(None), *_over(cutoff))
                .order_by(instance.c.bytes_freed_at)
                .limit(limit)
            ).scalars()
            count = _remove(tx, list(roots))
            _expire_commitments(tx, cutoff, limit)
            expire_notices(tx, cutoff, limit)
            return count

        return self._writer.do(work)

    def _checkpoint(self) -> None:
        """SQLite keeps what was overwritten in its write-ahead log until then; a reader in its way only puts it off."""
        if self._engines.sqlite:
            connection = self._engines.write.raw_connection()
            try:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                connection.close()


def _over(cutoff_us: int) -> tuple[Any, ...]:
    """Conditions on an original: it and what was made of it is freed, done, and has been so since `cutoff_us`."""
    made = instance.alias("made")
    return (
        instance.c.bytes_freed_at.is_not(None),
        instance.c.bytes_freed_at <= cutoff_us,
        ~exists().where(
            made.c.root_id == instance.c.instance_id,
            or_(made.c.bytes_freed_at.is_(None), made.c.bytes_freed_at > cutoff_us),
        ),
        ~exists().where(
            task.c.root_id == instance.c.instance_id, or_(_NOT_DONE, func.coalesce(task.c.settled_at, 0) > cutoff_us)
        ),
        ~exists().where(task.c.study_instance_uid == instance.c.study_instance_uid, _NOT_DONE),
    )


def _known(connection: Connection, study_instance_uid: str) -> Known | None:
    roots = select(instance.c.instance_id).where(
        instance.c.study_instance_uid == study_instance_uid, instance.c.root_id.is_(None)
    )
    rows = connection.execute(
        select(instance.c.instance_id, instance.c.spool_key)
        .where(or_(instance.c.instance_id.in_(roots), instance.c.root_id.in_(roots)))
        .order_by(instance.c.instance_id)
    ).all()
    ids = tuple(row.instance_id for row in rows)
    if not ids:
        return None
    owed = 0
    for some in _some(ids):
        owed += connection.execute(
            select(func.count()).select_from(task).where(task.c.instance_id.in_(some), _NOT_DONE)
        ).scalar_one()
    people = connection.execute(
        select(catalogue.c.patient_id, catalogue.c.accession_number).where(
            catalogue.c.study_instance_uid == study_instance_uid
        )
    ).all()
    return Known(
        instance_ids=ids,
        spool_keys=tuple(row.spool_key for row in rows),
        owed_count=owed,
        people=tuple(dict.fromkeys((row.patient_id, row.accession_number) for row in people)),
    )


def _remove(tx: Transaction, roots: Sequence[int]) -> int:
    """Originals and everything that hangs on them; returns how many instances."""
    connection, count = tx.connection, 0
    for some in _some(roots):
        of_roots = or_(instance.c.instance_id.in_(some), instance.c.root_id.in_(some))
        rows = connection.execute(
            select(
                instance.c.instance_id,
                instance.c.root_id,
                instance.c.sop_instance_uid,
                instance.c.digest,
                instance.c.received_at,
                instance.c.study_instance_uid,
            ).where(of_roots)
        ).all()
        made_of = {row.root_id for row in rows if row.root_id is not None}
        kept = [
            {"fingerprint": fingerprint(row.sop_instance_uid, row.digest), "received_at": row.received_at}
            for row in rows
            if row.instance_id in made_of
        ]
        if kept:
            connection.execute(_KEEP[connection.dialect.name], kept)
        _strip_commitments(connection, {row.sop_instance_uid for row in rows})
        for ids in _some([row.instance_id for row in rows]):
            connection.execute(delete(event).where(or_(event.c.root_id.in_(ids), event.c.instance_id.in_(ids))))
            connection.execute(delete(outcome).where(outcome.c.instance_id.in_(ids)))
            connection.execute(delete(notice_fact).where(notice_fact.c.root_id.in_(ids)))
            connection.execute(delete(task).where(or_(task.c.root_id.in_(ids), task.c.instance_id.in_(ids))))
        connection.execute(delete(instance).where(instance.c.root_id.in_(some)))
        connection.execute(delete(instance).where(instance.c.instance_id.in_(some)))
        for studies in _some(sorted({row.study_instance_uid for row in rows})):
            still = exists().where(instance.c.study_instance_uid == catalogue.c.study_instance_uid)
            connection.execute(delete(catalogue).where(catalogue.c.study_instance_uid.in_(studies), ~still))
        count += len(rows)
    return count


def _strip_commitments(connection: Connection, sop_instance_uids: set[str]) -> None:
    """Takes instances out of the requests of peers that were reported; a request of which nothing is left goes."""
    after_id = 0
    while rows := connection.execute(
        select(commitment.c.commitment_id, commitment.c.instances, commitment.c.failed)
        .where(commitment.c.commitment_id > after_id, commitment.c.reported_at.is_not(None))
        .order_by(commitment.c.commitment_id)
        .limit(_VALUES_MAX)
    ).all():
        after_id = rows[-1].commitment_id
        for row in rows:
            left = [pair for pair in row.instances if pair[1] not in sop_instance_uids]
            if len(left) == len(row.instances):
                continue
            here = commitment.c.commitment_id == row.commitment_id
            if left:
                failed = {uid: why for uid, why in (row.failed or {}).items() if uid not in sop_instance_uids}
                connection.execute(update(commitment).where(here).values(instances=left, failed=failed))
            else:
                connection.execute(delete(task).where(task.c.commitment_id == row.commitment_id))
                connection.execute(delete(commitment).where(here))


def _expire_commitments(tx: Transaction, cutoff_us: int, limit: int) -> None:
    """Requests of peers that were reported, and questions of ours that were asked, so long ago."""
    waits = exists().where(task.c.commitment_id == commitment.c.commitment_id, _NOT_DONE)
    over = and_(commitment.c.reported_at <= cutoff_us, ~waits)
    ids = tx.connection.execute(select(commitment.c.commitment_id).where(over).limit(limit)).scalars().all()
    if ids:
        tx.connection.execute(delete(task).where(task.c.commitment_id.in_(ids)))
        tx.connection.execute(delete(commitment).where(commitment.c.commitment_id.in_(ids)))
    tx.connection.execute(delete(asked).where(asked.c.asked_at <= cutoff_us))


def _wipe(tx: Transaction) -> None:
    """SQLite leaves what is deleted in its file until that place is used again; not here."""
    if tx.connection.dialect.name == "sqlite":
        tx.connection.exec_driver_sql("PRAGMA secure_delete=ON")


def _some(values: Collection[Any]) -> Iterator[list[Any]]:
    listed = list(values)
    for start in range(0, len(listed), _VALUES_MAX):
        yield listed[start : start + _VALUES_MAX]
