"""Opening a ledger: what is refused, in words and not in tracebacks; versions and their steps."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from router.core.lifecycle import TRANSITIONS, TaskKind
from router.errors import ConfigError
from router.ledger import migrations
from router.ledger.moves import after, sources
from router.ledger.schema import METADATA
from router.ledger.statement import Statement
from router.ledger.store import SqlLedger
from router.ledger.wake import Bell, FileWatch
from tests.ledger.made import instance, plan


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_the_folder_of_the_file_is_made_and_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "ledger.db"
    SqlLedger(url(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    first = SqlLedger(url(tmp_path / "l.db"))
    first.accept(instance(), plan())
    first.close()
    second = SqlLedger(url(tmp_path / "l.db"))
    assert len(second.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9)) == 1
    second.close()
    second.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://host/db", "not supported"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:////proc/none/ledger.db", "cannot be created"),
        ("postgresql://someone:s3cret@127.0.0.1:1/none", "cannot be used"),
    ],
)
def test_a_url_that_cannot_work_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        SqlLedger(text)
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).startswith("ledger.url: ")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"something else entirely" * 1000)
    with pytest.raises(ConfigError, match="damaged or is no ledger"):
        SqlLedger(url(path))
    assert path.read_bytes() == b"something else entirely" * 1000


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = SqlLedger(url(path))
    for number in range(200):
        ledger.accept(instance(f"1.{number}"), plan())
    ledger.close()
    data = bytearray(path.read_bytes())
    for page in range(3, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="damaged"):
        SqlLedger(url(path))


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE patients (id INTEGER)")
    with pytest.raises(ConfigError, match="holds other tables"):
        SqlLedger(url(path))


def test_a_ledger_of_a_newer_router_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    SqlLedger(url(path)).close()
    with sqlite3.connect(path) as file:
        file.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    with pytest.raises(ConfigError, match="version 99, this program knows 3: install the newer router"):
        SqlLedger(url(path))


def _current(path: Path) -> sa.Engine:
    SqlLedger(url(path)).close()
    return sa.create_engine(url(path))


def test_an_older_ledger_is_brought_up_step_by_step(tmp_path: Path) -> None:
    engine = _current(tmp_path / "ledger.db")
    now = migrations.VERSION
    steps = {
        now: lambda c: c.exec_driver_sql("ALTER TABLE instance ADD COLUMN colour TEXT DEFAULT 'grey'"),
        now + 1: lambda c: c.exec_driver_sql("UPDATE instance SET colour = 'blue'"),
    }
    with engine.begin() as connection:
        assert migrations.migrate(connection, version=now + 2, steps=steps) == now
    with engine.begin() as connection:
        assert migrations.migrate(connection, version=now + 2, steps=steps) == now + 2, "once is enough"
    engine.dispose()


def test_a_step_that_fails_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    engine = _current(tmp_path / "ledger.db")
    sa.event.listen(engine, "connect", lambda c, _: setattr(c, "isolation_level", None))
    sa.event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))

    def fail(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE instance ADD COLUMN half TEXT")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), engine.begin() as connection:
        migrations.migrate(connection, version=migrations.VERSION + 1, steps={migrations.VERSION: fail})
    assert "half" not in {column["name"] for column in sa.inspect(engine).get_columns("instance")}
    engine.dispose()
    SqlLedger(url(tmp_path / "ledger.db")).close()


def test_the_schema_of_version_3_does_not_change_without_a_step() -> None:
    """A released version's tables are a contract with data folders. Change VERSION, add a step, then change this."""
    import hashlib

    from sqlalchemy.dialects import sqlite
    from sqlalchemy.schema import CreateTable

    text = "".join(str(CreateTable(t).compile(dialect=sqlite.dialect())) for t in METADATA.sorted_tables)
    assert migrations.VERSION == 3
    digest = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]
    assert digest == "36a6c1b03c2647f2"


def test_commits_are_durable_and_readers_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    ledger = SqlLedger(url(tmp_path / "l.db"))
    with ledger._engines.write.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL"
        assert ledger.queries.undelivered_count() == 0, "while a write transaction is open"
    with ledger._engines.read.connect() as connection, pytest.raises(sa.exc.OperationalError, match="readonly"):
        connection.exec_driver_sql("DELETE FROM event")
    ledger.close()


@pytest.mark.parametrize("event", sorted({event for _, event in TRANSITIONS}))
def test_every_move_in_sql_is_the_one_of_the_table(event) -> None:
    for state in sources(event):
        assert TRANSITIONS[state, event].value == after(event)
    assert len(sources(event)) == sum(1 for _, other in TRANSITIONS if other is event)


def test_claims_read_by_indexes_that_hold_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite takes a partial index only for literals: bound states would scan every task there ever was."""
    ledger = SqlLedger(url(tmp_path / "l.db"))
    plans: list[str] = []

    def explain(connection: Any, statement: str, parameters: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE")) and "FROM task" in statement + " FROM task":
            rows = connection.connection.driver_connection.execute("EXPLAIN QUERY PLAN " + statement, parameters)
            plans.extend(row[3] for row in rows)

    def by_sqlalchemy(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: Any) -> None:
        explain(connection, statement, parameters)

    of = Statement._of

    def by_driver(self: Statement, connection: Any, values: Mapping[str, Any]) -> Any:
        compiled = of(self, connection.dialect, values)
        explain(connection, compiled.sql, compiled.parameters(values))
        return compiled

    rows = Statement.rows
    run = Statement.run

    def explained_rows(self: Statement, connection: Any, values: Mapping[str, Any]) -> list[Any]:
        by_driver(self, connection, values)
        return rows(self, connection, values)

    def explained_run(self: Statement, connection: Any, *lines: Mapping[str, Any]) -> None:
        for line in lines:
            by_driver(self, connection, line)
        run(self, connection, *lines)

    sa.event.listen(ledger._engines.write, "before_cursor_execute", by_sqlalchemy)
    sa.event.listen(ledger._engines.read, "before_cursor_execute", by_sqlalchemy)
    ledger.accept(instance(), plan())
    monkeypatch.setattr(Statement, "rows", explained_rows)
    monkeypatch.setattr(Statement, "run", explained_run)
    tasks = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9)
    ledger._due_in_s((TaskKind.DELIVER, "pacs"))
    ledger.complete(tasks[0])
    ledger.queries.failed()
    ledger.queries.owed()
    ledger.close()
    text = "\n".join(plans)
    for index in ("task_retry", "task_leased", "task_failed", "task_owed"):
        assert f"INDEX {index}" in text, text
    whole = [line for line in plans if line.startswith("SCAN task")]
    assert whole == ["SCAN task USING INDEX task_failed", "SCAN task USING INDEX task_owed"], text


def test_a_look_that_fails_does_not_end_the_watch_for_other_processes_writes(tmp_path: Path) -> None:
    looks: list[str] = []

    class Connection:
        def execute(self, statement: str) -> Connection:
            looks.append(statement)
            if len(looks) < 3:
                raise sqlite3.OperationalError("disk I/O error")
            return self

        def fetchone(self) -> tuple[int]:
            return (len(looks),)

    class Raw:
        driver_connection = Connection()

        def close(self) -> None: ...

    class Engine:
        def raw_connection(self) -> Raw:
            return Raw()

    bell = Bell()
    heard = bell.heard((TaskKind.DELIVER, "pacs"))
    watch = FileWatch(Engine(), bell)  # type: ignore[arg-type]
    assert bell.sleep((TaskKind.DELIVER, "pacs"), heard, 20)
    watch.close()
