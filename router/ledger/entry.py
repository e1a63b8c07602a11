"""How an instance, its tasks and its events come into the ledger, inside a transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sqlalchemy import BigInteger, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from router.core.digest import comparable
from router.core.instance import SopInstance
from router.core.lifecycle import TaskKind, TaskState
from router.core.ports import Receipt
from router.ledger.rows import instance_values
from router.ledger.schema import event, forgotten, instance, task
from router.ledger.statement import Statement
from router.ledger.writer import Transaction

_SAME_UID = Statement(
    select(
        instance.c.instance_id,
        instance.c.root_id,
        instance.c.digest,
        instance.c.bytes_freed_at,
        instance.c.bytes_missed_at,
        instance.c.conflict,
    ).where(instance.c.sop_instance_uid == bindparam("uid"))
)
# What came before and was forgotten came when it came first: objects made of it say so, and must not differ under one UID.
_FIRST_AT = select(forgotten.c.received_at).where(forgotten.c.fingerprint == bindparam("of_bytes")).scalar_subquery()
_NEW_INSTANCE = Statement(
    *(
        dialect.insert(instance)
        .values(received_at=func.coalesce(_FIRST_AT, bindparam("now_at", type_=BigInteger)))
        .on_conflict_do_nothing(index_elements=["sop_instance_uid", "digest"])
        .returning(instance.c.instance_id)
        for dialect in (postgresql, sqlite)
    )
)
_NEW_TASK = Statement(insert(task).inline())
_NEW_EVENT = Statement(insert(event).inline())


class Undecided(Exception):
    """A row has the same SOP Instance UID and a digest by another algorithm: the same bytes or others, nobody knows yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What became of an instance that was to be entered."""

    receipt: Receipt
    instance_id: int
    root_id: int
    again: bool = False
    """The row was there, but its bytes had been freed or were gone: they have come again and are kept."""
    mended: bool = False
    """`again`, and its tasks are still in the ledger: nothing new is owed."""


def fingerprint(sop_instance_uid: str, digest: str) -> str:
    """What stays of an instance that is forgotten: only who has its bytes can tell that it was here."""
    return hashlib.sha256(f"{sop_instance_uid}\x1f{digest}".encode()).hexdigest()[:32]


class _Same(NamedTuple):
    """A row with the same SOP Instance UID, in the order of _SAME_UID."""

    instance_id: int
    root_id: int | None
    digest: str
    bytes_freed_at: int | None
    bytes_missed_at: int | None
    conflict: bool


class _Rooted(Protocol):
    @property
    def instance_id(self) -> int | None: ...
    @property
    def root_id(self) -> int | None: ...


def enter(
    tx: Transaction,
    new: SopInstance,
    *,
    root_id: int | None,
    rules: Sequence[str],
    notes: Sequence[str],
    also: Collection[str] | None = None,
) -> Entry:
    """Writes the instance, unless the same bytes are held already. Same UID, other bytes: kept apart as a conflict.

    `also`: digests of the same bytes by every other algorithm. Without them it may raise Undecided, having written nothing.
    """
    same_uid = [_Same(*row) for row in _SAME_UID.rows(tx.connection, {"uid": new.sop_instance_uid})]
    values = {**instance_values(new), "rules": list(rules), "notes": list(notes), "bytes_missed_at": None}
    at_us = values.pop("received_at")  # of a row that is there it stays: objects that were made of it say when it came
    digests = {new.digest, *(also or ())}
    for row in same_uid:
        if row.digest not in digests:
            continue
        old_root_id = row.root_id or row.instance_id
        if row.bytes_freed_at is None and row.bytes_missed_at is None:
            return Entry(receipt=Receipt.DUPLICATE, instance_id=row.instance_id, root_id=old_root_id)
        tx.connection.execute(
            update(instance)
            .where(instance.c.instance_id == row.instance_id)
            # The digest stays, by whatever algorithm it is: the UIDs of what was made of it come from its text.
            .values({**values, "digest": row.digest, "bytes_freed_at": None})
        )
        return Entry(
            receipt=Receipt.CONFLICT if row.conflict else Receipt.NEW,
            instance_id=row.instance_id,
            root_id=old_root_id,
            again=True,
            mended=row.bytes_freed_at is None,
        )
    if also is None and not all(comparable(row.digest, new.digest) for row in same_uid):
        raise Undecided
    conflict = bool(same_uid)
    entered = _NEW_INSTANCE.rows(
        tx.connection,
        {
            **values,
            "root_id": root_id,
            "conflict": conflict,
            "now_at": at_us,
            "of_bytes": fingerprint(new.sop_instance_uid, new.digest),
        },
    )
    if not entered:  # PostgreSQL: another node entered it since our look
        return enter(tx, new, root_id=root_id, rules=rules, notes=notes, also=also)
    ((instance_id,),) = entered
    return Entry(
        receipt=Receipt.CONFLICT if conflict else Receipt.NEW, instance_id=instance_id, root_id=root_id or instance_id
    )


def owe(
    tx: Transaction,
    entry: _Rooted | None,
    kind: TaskKind,
    target: str,
    options: Mapping[str, Any] | None = None,
    *,
    at_us: int | None = None,
    **about: int | str,
) -> None:
    """A new task, due at once or from `at_us` on. `about`: columns that say what else than an instance it is about."""
    new = {
        "kind": kind.value,
        "target": target,
        "instance_id": entry.instance_id if entry is not None else None,
        "root_id": entry.root_id if entry is not None else None,
        "options": dict(options or {}),
        "state": (TaskState.READY if at_us is None else TaskState.RETRY).value,
        "attempts": 0,
        "not_before": at_us,
        "created_at": tx.now_us,
        "error": "",
        **about,
    }
    _NEW_TASK.run(tx.connection, new)
    tx.lanes.add((kind, target))


def owed_before(tx: Transaction, entry: _Rooted, kind: TaskKind, target: str) -> bool:
    """True when there is or was such a task."""
    here = (task.c.instance_id == entry.instance_id, task.c.kind == kind.value, task.c.target == target)
    return tx.connection.execute(select(task.c.task_id).where(*here).limit(1)).first() is not None


def record(tx: Transaction, about: _Rooted, what: str, *, task: Any = None, detail: str = "") -> None:
    """One line of the custody trail; `task` is a Task or a row with kind, target and attempts.

    None for what is about no instance: the report on a peer's request says itself what became of it.
    """
    record_each(tx, [(about, task, detail)], what)


def record_each(tx: Transaction, about: Sequence[tuple[_Rooted, Any, str]], what: str) -> None:
    """The same for many instances, each with a task (or None) and a detail of its own."""
    lines = [
        {
            "root_id": one.root_id,
            "instance_id": one.instance_id,
            "at": tx.now_us,
            "what": what,
            "kind": str(task.kind) if task is not None else "",
            "target": task.target if task is not None else "",
            "attempt": task.attempts if task is not None else 0,
            "detail": detail,
        }
        for one, task, detail in about
        if one.instance_id is not None
    ]
    _NEW_EVENT.run(tx.connection, *lines)
