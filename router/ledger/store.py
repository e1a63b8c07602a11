"""The ledger on SQLite (WAL, synchronous=FULL) or PostgreSQL: `core.ports.Ledger`, and what operators need besides.

Every method that writes returns after the commit. Every move of a task's state is made from `core.lifecycle.TRANSITIONS`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select, text, update
from sqlalchemy.exc import DBAPIError

from router.core.findings import NotAnalysed, Outcome
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import Event, TaskKind, TaskState
from router.core.ports import Claimed, Clock, Produced, Receipt, Study, Task
from router.core.rules import Plan
from router.errors import ConfigError, LeaseLost
from router.faults import fault_point
from router.ledger import migrations
from router.ledger.catalogue import Catalogue
from router.ledger.commitments import CommitmentBook
from router.ledger.engine import Engines, check, open_engines, unusable
from router.ledger.entry import Entry, Undecided, enter, owe, owed_before, record, record_each
from router.ledger.forgetting import Forgetting
from router.ledger.instants import seconds_to_us, to_us
from router.ledger.moves import bring_forward, claim, done, due_at, end_leases, holds, requeue, settle, sources
from router.ledger.notices import NoticeBook
from router.ledger.occupancy import PATIENCE_S, Occupancy, occupy
from router.ledger.outcomes import keep_outcome
from router.ledger.queries import Queries
from router.ledger.recent import RecentEvents
from router.ledger.schema import instance, is_state, task
from router.ledger.search import Search
from router.ledger.studies import await_quiet, study_of
from router.ledger.tallies import Tallies
from router.ledger.trail import Trail
from router.ledger.wake import Bell, FileWatch, Notifications
from router.ledger.writer import GroupCommit, Lane, Transaction

#: A larger SQLite file is not checked page by page at start: that reads all of it (about 1 s for each 500 MB).
CHECK_BYTE_COUNT_MAX = 2**30


class SqlLedger:
    """The one record of what is owed and done."""

    def __init__(self, url: str, *, clock: Clock | None = None, timed: Callable[[float], None] | None = None) -> None:
        """Opens the database, makes its tables when there are none. Raises ConfigError when it cannot be used.

        `clock` is for tests; without one the time is this machine's (SQLite) or the database's (PostgreSQL), because
        leases of several machines are compared. `timed` is told how long each transaction took, in seconds.
        """
        self._engines = open_engines(url)
        self._clock = clock
        try:
            _prepare(self._engines)
        except BaseException:
            self._engines.close()
            raise
        self._bell = Bell()
        self._closed = False
        self._occupancy: Occupancy | None = None
        self.taken_over_by = ""
        """The node that has the ledger now, when that is no longer this one."""
        self._foreign_lock = threading.Lock()
        self._foreign: FileWatch | Notifications | None = None
        if not self._engines.sqlite:
            self._listen_to_others()  # a command that only writes has to tell the others too
        self._writer = GroupCommit(self._engines.write, now_us=self._now_us, committed=self._ring, timed=timed)
        self.queries = Queries(self._engines.read)
        self.recent = RecentEvents(self._engines.read)
        self.search = Search(self._engines.read)
        self.tallies = Tallies(self._engines.read)
        self._catalogue = Catalogue()
        self.trail = Trail(self._writer, self._engines.read)
        self.forgetting = Forgetting(self._writer, self._engines)
        self.notices = NoticeBook(self._writer, self._engines.read)
        self.commitments = CommitmentBook(self._writer, self._engines.read, self.notices)

    def close(self) -> None:
        """Writes what waits, then closes every connection. May be called twice."""
        with self._foreign_lock:
            self._closed = True
            if self._foreign is not None:
                self._foreign.close()
                self._foreign = None
        self._writer.close()
        if self._occupancy is not None:
            self._occupancy.release()
        self._engines.close()

    # ---- core.ports.Ledger

    def accept(self, instance: SopInstance, plan: Plan, *, also: Collection[str] | None = None) -> Receipt:
        """See core.ports.Ledger. Raises the database's errors as they are."""

        def work(tx: Transaction) -> Receipt:
            try:
                entry = enter(tx, instance, root_id=None, rules=plan.rules, notes=plan.notes, also=also)
            except Undecided:
                return Receipt.UNDECIDED
            if entry.receipt is Receipt.DUPLICATE and _has_failed(tx, entry.instance_id):
                # Perhaps because its file is damaged: these bytes are known to be good, and whoever sent them was told
                # to. The old file is nobody's now, and goes with the orphans, when no worker reads it any more.
                _set_instances(tx, [entry.instance_id], spool_key=instance.spool_key)
                entry = replace(entry, receipt=Receipt.NEW, again=True, mended=True)
            came_from = f"from {instance.calling_ae_title or '?'} at {instance.peer_host or '?'}"
            record(tx, entry, _RECEIVED[entry.receipt, entry.again], detail=came_from)
            if entry.receipt is Receipt.DUPLICATE:
                return Receipt.DUPLICATE
            self._catalogue.enter(tx, instance)
            if entry.mended:
                requeue(tx, and_(task.c.instance_id == entry.instance_id, is_state(task.c.state, TaskState.FAILED)))
                return entry.receipt
            for order in plan.classify:
                options = {"results": list(order.results), "results_to": list(order.results_to)}
                owe(tx, entry, TaskKind.CLASSIFY, order.classifier, options)
            for destination in plan.deliver:
                owe(tx, entry, TaskKind.DELIVER, destination)
            await_quiet(tx, entry, instance, plan)
            fault_point("accept.written")
            return entry.receipt

        fault_point("accept.begun")
        receipt = self._writer.do(work)
        # A duplicate may have come by another AE title than the one that is entered.
        if receipt in (Receipt.NEW, Receipt.CONFLICT):
            self._catalogue.committed(instance)
        fault_point("accept.committed")
        return receipt

    def claim(self, kind: TaskKind, target: str, *, lease_s: float, limit: int) -> list[Task]:
        """Up to `limit` due tasks, oldest first; leases that ended are found here and their tasks are due again."""
        return self._writer.do(lambda tx: claim(tx, kind, target, lease_us=seconds_to_us(lease_s), limit=limit))

    def made_before(self, task: Task) -> list[SopInstance]:
        """The SRs that the target of a classify task has made of the same image before, newest first."""
        return self.queries.made_by(task.target, of=task.instance, kind=InstanceKind.SR)

    def study(self, task: Task) -> Study:
        """What a summarise task is about, as it stands now."""
        with self._engines.read.connect() as connection:
            return study_of(connection, task.instance.study_instance_uid, task.target)

    def complete(
        self,
        task: Task,
        *,
        note: str = "",
        outcome: Outcome | None = None,
        produced: Sequence[Produced] = (),
    ) -> None:
        """Checks the lease, then: done + outcome + results + their deliver tasks. Raises LeaseLost, having written nothing."""

        def work(tx: Transaction) -> None:
            held = done(tx, task)
            if held is None:
                raise LeaseLost(f"task {task.task_id} was taken over by another worker")
            what, detail = "delivered" if task.kind is TaskKind.DELIVER else "done", note
            if task.kind is TaskKind.DELIVER and produced:
                what = "replaced"
            if outcome is not None:
                keep_outcome(
                    tx,
                    outcome,
                    instance_id=held.instance_id,
                    classifier=task.target,
                    ae_title=task.instance.calling_ae_title,
                    owed_us=held.created_at,
                )
                self.notices.found(tx, held, task.target, outcome)
                what = "analysed"
                if isinstance(outcome, NotAnalysed):
                    what, detail = "not_analysed", f"{outcome.code}: {outcome.reason}"
            record(tx, held, what, task=task, detail=detail)
            for result in produced:
                entry = _enter_result(tx, result, root_id=held.root_id)
                made_before = entry.receipt is Receipt.DUPLICATE  # and owed or delivered since, but perhaps elsewhere
                if not made_before:
                    record(tx, entry, "made", task=task, detail=f"by {task.target}")
                for destination in result.destinations:
                    if not (made_before and owed_before(tx, entry, TaskKind.DELIVER, destination)):
                        owe(tx, entry, TaskKind.DELIVER, destination)
            _written(task.kind)

        self._writer.do(work)
        _committed(task.kind)

    def delivered(self, deliveries: Sequence[tuple[Task, str]], *, commit: bool = False) -> list[Task]:
        """See core.ports.Ledger."""

        def work(tx: Transaction) -> list[Task]:
            settled = [(done(tx, task), task, note) for task, note in deliveries]
            kept = [(held, task, note) for held, task, note in settled if held is not None]
            record_each(tx, kept, "delivered")
            if commit:
                for held, task, _ in kept:
                    owe(tx, held, TaskKind.COMMIT, task.target, task.options)
            _written(TaskKind.DELIVER)
            return [task for held, task, _ in settled if held is None]

        lost = self._writer.do(work)
        _committed(TaskKind.DELIVER)
        return lost

    def defer(self, task: Claimed, *, error: str, at: datetime | None) -> None:
        """Another try at `at`, or failed for good when None. Raises LeaseLost."""

        def work(tx: Transaction) -> None:
            if at is None:
                held = settle(tx, task, Event.GIVE_UP, settled_at=tx.now_us, error=error)
                record(tx, held, "failed", task=task, detail=error)
                self.notices.failed(tx, held, task, error)
                return
            held = settle(tx, task, Event.DEFER, not_before=to_us(at), error=error)
            if held.error != error:  # the same again every five minutes of a weekend is one line, not a thousand
                record(tx, held, "deferred", task=task, detail=error)
            tx.lanes.add((task.kind, task.target))

        self._writer.do(work)

    def release(self, task: Claimed, *, at: datetime, reason: str) -> None:
        """Gives the task back as if it had not been tried. Raises LeaseLost."""

        def work(tx: Transaction) -> None:
            settle(tx, task, Event.DEFER, not_before=to_us(at), error=reason, attempts=task.attempts - 1)
            tx.lanes.add((task.kind, task.target))

        self._writer.do(work)

    def renew(self, tasks: Sequence[Claimed], *, lease_s: float) -> None:
        """Lets the leases that are still ours end `lease_s` from now; those that are lost stay lost."""

        def work(tx: Transaction) -> None:
            for held in tasks:
                tx.connection.execute(
                    update(task).where(holds(held)).values(lease_until=tx.now_us + seconds_to_us(lease_s))
                )

        self._writer.do(work)

    def wait(self, kind: TaskKind, target: str, *, timeout_s: float) -> None:
        """Sleeps until a task of this lane may be due, `wake` is called, or `timeout_s` is over. No polling."""
        self._listen_to_others()
        lane: Lane = (kind, target)
        end = monotonic() + timeout_s
        while True:
            heard = self._bell.heard(lane)
            due_in_s = self._due_in_s(lane)
            left_s = end - monotonic()
            if left_s <= 0 or (due_in_s is not None and due_in_s <= 0):
                return
            sleep_s = left_s if due_in_s is None else min(left_s, due_in_s)
            if not self._bell.sleep(lane, heard, sleep_s):
                return

    def wake(self, kind: TaskKind, target: str) -> None:
        """Ends every `wait` in this lane."""
        self._bell.dismiss((kind, target))

    # ---- the node's start

    def occupy(self, *, lost: Callable[[str], None], patience_s: float = PATIENCE_S) -> None:
        """Makes this the ledger's only node until `close`. Raises ConfigError when another node has it.

        `lost` is called, in another thread, when another node has it later (PostgreSQL): see `ledger.occupancy`.
        """

        def told(holder: str) -> None:
            self.taken_over_by = holder
            lost(holder)

        self._occupancy = occupy(self._engines, lost=told, patience_s=patience_s)

    def bring_forward(self, longest_s: Mapping[Lane, float]) -> int:
        """Lets no task wait longer than its lane ever does; returns how many did, because a clock was set back since."""

        def work(tx: Transaction) -> int:
            return sum(bring_forward(tx, lane, latest_us=tx.now_us + seconds_to_us(s)) for lane, s in longest_s.items())

        return self._writer.do(work)

    def end_all_leases(self) -> int:
        """Makes every leased task due again; returns how many. For the start of the only node of a SQLite ledger:
        whoever held a lease is gone, and nobody need wait until it ends.
        """
        return self._writer.do(lambda tx: end_leases(tx, task.c.task_id.is_not(None)))

    # ---- operators

    def requeue(
        self, task_ids: Iterable[int] | None = None, *, kind: TaskKind | None = None, target: str | None = None
    ) -> int:
        """Puts tasks back to be tried at once, with all their attempts; returns how many.

        With ids: those that failed or wait for another try. Without: all that failed (of one kind, of one target).
        """
        if task_ids is not None:
            which = and_(task.c.task_id.in_(list(task_ids)), is_state(task.c.state, *sources(Event.REQUEUE)))
        else:
            which = is_state(task.c.state, TaskState.FAILED)
        if kind is not None:
            which = and_(which, task.c.kind == kind.value)
        if target is not None:
            which = and_(which, task.c.target == target)
        return self._writer.do(lambda tx: requeue(tx, which))

    # ---- janitor

    def free(self, *, retention_s: float, limit: int = 1000) -> list[str]:
        """Spool keys whose bytes nobody needs any more: every task of the original and of all its results is done for
        at least `retention_s`. The rows say so already; the caller deletes the files.
        """

        def work(tx: Transaction) -> list[str]:
            cutoff = tx.now_us - seconds_to_us(retention_s)
            root_id = func.coalesce(instance.c.root_id, instance.c.instance_id)
            needed = select(task.c.task_id).where(
                task.c.root_id == root_id, or_(task.c.state != TaskState.DONE.value, task.c.settled_at > cutoff)
            )
            to_be_summarised = select(task.c.task_id).where(
                task.c.study_instance_uid == instance.c.study_instance_uid, task.c.state != TaskState.DONE.value
            )
            rows = tx.connection.execute(
                select(instance.c.instance_id, root_id.label("root_id"), instance.c.spool_key)
                .where(
                    instance.c.bytes_freed_at.is_(None),
                    instance.c.received_at <= cutoff,
                    ~needed.exists(),
                    ~to_be_summarised.exists(),
                )
                .order_by(instance.c.received_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            for row in rows:
                record(tx, row, "freed")
            _set_instances(tx, [row.instance_id for row in rows], bytes_freed_at=tx.now_us, bytes_missed_at=None)
            return [row.spool_key for row in rows]

        return self._writer.do(work)

    def mark_missed(self, instance_ids: Sequence[int]) -> None:
        """Their files are gone although they are needed; `queries.missed()` lists them."""

        def work(tx: Transaction) -> None:
            _set_instances(tx, instance_ids, bytes_missed_at=tx.now_us)

        self._writer.do(work)

    def mark_found(self, instance_ids: Sequence[int]) -> None:
        """Their files are there again."""

        def work(tx: Transaction) -> None:
            _set_instances(tx, instance_ids, bytes_missed_at=None)

        self._writer.do(work)

    # ---- inside

    def _now_us(self, connection: Connection) -> int:
        if self._clock is not None:
            return to_us(self._clock.now())
        if self._engines.sqlite:
            return to_us(datetime.now(UTC))
        return to_us(connection.execute(text("SELECT clock_timestamp()")).scalar_one())

    def _listen_to_others(self) -> None:
        with self._foreign_lock:
            if self._foreign is None and not self._closed:
                watch = FileWatch if self._engines.sqlite else Notifications
                self._foreign = watch(self._engines.read, self._bell)

    def _ring(self, lanes: set[Lane]) -> None:
        self._bell.ring(lanes)
        foreign = self._foreign
        if foreign is not None:
            foreign.rang()

    def _due_in_s(self, lane: Lane) -> float | None:
        """Seconds until something in the lane is due; 0 or less when it is; None when nothing is there."""
        with self._engines.read.connect() as connection:
            at = due_at(connection, *lane)
            return None if at is None else 0 if at == 0 else (at - self._now_us(connection)) / 1_000_000


_RECEIVED = {
    (Receipt.NEW, False): "received",
    (Receipt.NEW, True): "received_again",
    (Receipt.CONFLICT, False): "conflict",
    (Receipt.CONFLICT, True): "received_again",
    (Receipt.DUPLICATE, False): "duplicate",
}


def _prepare(engines: Engines) -> None:
    try:
        with engines.write.begin() as connection:
            path = engines.path
            if path is not None and path.stat().st_size <= CHECK_BYTE_COUNT_MAX and (wrong := check(connection)):
                raise ConfigError([f"ledger.url: {path} is damaged ({wrong}): restore a copy"])
            migrations.migrate(connection)
    except DBAPIError as error:
        raise unusable(engines, error) from error


def _written(kind: TaskKind) -> None:
    match kind:
        case TaskKind.DELIVER:
            fault_point("deliver.written")
        case TaskKind.SUMMARISE:
            fault_point("summary.written")
        case _:
            fault_point("classify.written")


def _committed(kind: TaskKind) -> None:
    match kind:
        case TaskKind.DELIVER:
            fault_point("deliver.committed")
        case TaskKind.SUMMARISE:
            fault_point("summary.committed")
        case _:
            fault_point("classify.committed")


def _enter_result(tx: Transaction, result: Produced, *, root_id: int) -> Entry:
    """Its bytes are small and in memory: if they must be hashed once more, that is done here, in the transaction."""
    try:
        return enter(tx, result.instance, root_id=root_id, rules=(), notes=())
    except Undecided:
        return enter(tx, result.instance, root_id=root_id, rules=(), notes=(), also=result.also())


def _has_failed(tx: Transaction, instance_id: int) -> bool:
    """True when something that needs its bytes has failed for good."""
    needs_bytes = task.c.kind.in_([TaskKind.DELIVER.value, TaskKind.CLASSIFY.value])
    failed = and_(task.c.instance_id == instance_id, needs_bytes, is_state(task.c.state, TaskState.FAILED))
    return tx.connection.execute(select(task.c.task_id).where(failed).limit(1)).first() is not None


def _set_instances(tx: Transaction, instance_ids: Sequence[int], **values: Any) -> None:
    if instance_ids:
        tx.connection.execute(update(instance).where(instance.c.instance_id.in_(instance_ids)).values(**values))
