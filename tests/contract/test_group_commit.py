"""Many pieces of work in one transaction, on a database that fails: nothing is done twice, and nobody waits for the others' turns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import DBAPIError

from router.core.lifecycle import TaskKind
from router.core.ports import Receipt
from router.errors import LeaseLost
from router.ledger import writer
from router.ledger.entry import enter
from router.ledger.schema import instance as table
from router.ledger.store import SqlLedger
from router.ledger.writer import Transaction
from tests.ledger.made import database, instance, plan
from tests.peers import wait_until


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[SqlLedger]:
    ledger = SqlLedger(ledger_url)
    yield ledger
    ledger.close()


def together(ledger: SqlLedger, works: list[Callable[[], Any]], before: Callable[[], None]) -> list[Any]:
    """What each returned or raised, when all of them share a transaction; `before`: called when they are about to."""
    held, go = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        held.set()
        assert go.wait(60)

    def outcome(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - what it was is the result
            return error

    with ThreadPoolExecutor(len(works) + 1) as pool:
        holder = pool.submit(ledger._writer.do, hold)
        assert held.wait(60)
        outcomes = [pool.submit(outcome, work) for work in works]
        wait_until(lambda: len(ledger._writer._waiting) == len(works), 60)
        before()
        go.set()
        holder.result(60)
        return [one.result(60) for one in outcomes]


def answers_get_lost(engine: Engine, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """After so many, the next COMMIT is carried out and its answer never comes: the connection broke in between."""
    count = 0
    commit = engine.dialect.do_commit

    def lossy(connection: Any) -> None:
        nonlocal count
        commit(connection)
        count += 1
        if count == after + 1:
            raise engine.dialect.loaded_dbapi.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(engine.dialect, "do_commit", lossy)


def test_after_a_commit_whose_answer_was_lost_nobody_hears_of_a_duplicate(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run again it would be one, of itself: whoever receives would delete the second copy, which is the only one."""
    outcomes = together(
        ledger,
        [lambda n=n: ledger.accept(instance(f"1.{n}"), plan()) for n in range(4)],  # type: ignore[misc]
        lambda: answers_get_lost(ledger._engines.write, monkeypatch, after=1),
    )
    assert Receipt.DUPLICATE not in outcomes
    assert all(isinstance(outcome, DBAPIError) for outcome in outcomes)
    assert len(ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9)) == 4, "all the same it was written"


def test_after_a_commit_whose_answer_was_lost_nobody_hears_that_nothing_was_written(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LeaseLost says so; whoever made results deletes them then."""
    for number in range(3):
        ledger.accept(instance(f"1.{number}"), plan())
    tasks = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9)
    outcomes = together(
        ledger,
        [lambda task=task: ledger.complete(task) for task in tasks],  # type: ignore[misc]
        lambda: answers_get_lost(ledger._engines.write, monkeypatch, after=1),
    )
    assert not any(isinstance(outcome, LeaseLost) for outcome in outcomes)
    assert len(outcomes) == 3
    assert all(isinstance(outcome, DBAPIError) for outcome in outcomes)


def test_a_database_that_is_away_is_asked_once_for_all_who_wait(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try may take as long as a time-out does: the senders of a batch would hang for as many."""
    asked = 0

    def away(*_: object) -> Any:
        nonlocal asked
        asked += 1
        raise OSError("away")

    outcomes = together(
        ledger,
        [lambda n=n: ledger.accept(instance(f"1.{n}"), plan()) for n in range(4)],  # type: ignore[misc]
        lambda: monkeypatch.setattr(writer, "write_transaction", away),
    )
    assert [str(outcome) for outcome in outcomes] == ["away"] * 4
    assert asked == 1
    monkeypatch.undo()
    assert ledger.accept(instance("2"), plan()) is Receipt.NEW


@pytest.mark.parametrize("first", ["by the driver", "by SQLAlchemy"])
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_written_by_the_driver_and_by_sqlalchemy_is_one_transaction(
    ledger: SqlLedger, first: str, fails: bool
) -> None:
    ledger.accept(instance("0"), plan())

    def by_driver(tx: Transaction) -> None:
        enter(tx, instance("1"), root_id=None, rules=(), notes=())

    def by_sqlalchemy(tx: Transaction) -> None:
        tx.connection.execute(update(table).where(table.c.sop_instance_uid == "0").values(spool_key="moved"))

    def both(tx: Transaction) -> None:
        for write in (by_driver, by_sqlalchemy) if first == "by the driver" else (by_sqlalchemy, by_driver):
            write(tx)
        if fails:
            raise ValueError

    with pytest.raises(ValueError) if fails else nullcontext():
        ledger._writer.do(both)
    with ledger._engines.read.connect() as connection:
        rows = connection.execute(select(table.c.sop_instance_uid, table.c.spool_key)).all()
    keys = {row.sop_instance_uid: row.spool_key for row in rows}
    assert ("1" in keys, keys["0"] == "moved") == (not fails, not fails)
    assert ledger.accept(instance("2"), plan()) is Receipt.NEW, "and the next one begins anew"


def test_a_sqlite_file_that_another_program_has_locked_is_an_error_of_the_database_and_no_more(tmp_path: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    try:
        ledger._writer.do(lambda tx: tx.connection.exec_driver_sql("PRAGMA busy_timeout = 10"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DBAPIError, match="locked"):
            ledger.accept(instance("1"), plan())
        other.execute("ROLLBACK")
        assert ledger.accept(instance("1"), plan()) is Receipt.NEW
    finally:
        other.close()
        ledger.close()


@pytest.fixture
def cut(postgres_url: str) -> Iterator[tuple[SqlLedger, Callable[[], None]]]:
    """A ledger on PostgreSQL, and what ends all of its connections, as a restart of the server does."""
    import psycopg

    with database(postgres_url) as url:

        def cut() -> None:
            with psycopg.connect(url, autocommit=True) as operator:
                operator.execute(
                    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

        ledger = SqlLedger(url)
        yield ledger, cut
        ledger.close()


def test_no_receipt_fails_because_postgresql_was_restarted_before_it(
    cut: tuple[SqlLedger, Callable[[], None]],
) -> None:
    """Also when the connection that is kept was used a moment ago, and nobody has looked whether it lives."""
    ledger, restart = cut
    for turn in range(3):
        assert ledger.accept(instance(f"1.{turn}"), plan()) is Receipt.NEW
        assert ledger._writer._kept is not None
        restart()
        assert ledger.accept(instance(f"2.{turn}"), plan()) is Receipt.NEW


def test_a_connection_that_breaks_in_the_middle_fails_its_transaction_and_no_later_one(
    cut: tuple[SqlLedger, Callable[[], None]],
) -> None:
    """What the driver raises there SQLAlchemy does not see: the pool must not hand the broken connection out again."""
    ledger, restart = cut

    def broken(tx: Transaction) -> None:
        enter(tx, instance("1.1"), root_id=None, rules=(), notes=())
        restart()
        enter(tx, instance("1.2"), root_id=None, rules=(), notes=())

    with pytest.raises(DBAPIError, match="connection is lost"):
        ledger._writer.do(broken)
    for number in (1, 2):
        assert ledger.accept(instance(f"1.{number}"), plan()) is Receipt.NEW
