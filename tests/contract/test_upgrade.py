"""A data folder of version 1 with work in it is taken over, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from router.core.findings import Prediction
from router.core.lifecycle import TaskKind, TaskState
from router.core.ports import Receipt
from router.ledger.engine import open_engines
from router.ledger.store import SqlLedger
from tests.ledger import made, version_1
from tests.ledger.made import FakeClock, instance, plan


@pytest.fixture
def old_ledger(ledger_url: str) -> Iterator[SqlLedger]:
    version_1.make(ledger_url)
    clock = FakeClock()
    clock.forward(3600)
    ledger = SqlLedger(ledger_url, clock=clock)
    yield ledger
    ledger.close()


def test_every_row_is_still_there_and_says_the_same(old_ledger: SqlLedger) -> None:
    status = old_ledger.queries.instance_status("1.2.3.1")
    assert status is not None
    assert [(t.kind, t.state) for t in status.tasks] == [
        (TaskKind.CLASSIFY, TaskState.DONE),
        (TaskKind.DELIVER, TaskState.DONE),
    ]
    assert isinstance(status.outcomes["cxr"], Prediction)
    assert status.results[0].deliveries[0].state is TaskState.DONE
    assert [line.what for line in old_ledger.queries.trace("1.2.3.1")][:2] == ["received", "delivered"]
    (failed,) = old_ledger.queries.failed()
    assert (failed.sop_instance_uid, failed.error) == ("1.2.3.4", "no accepted context")


def test_what_was_owed_is_owed_and_what_was_leased_by_a_dead_worker_is_due(old_ledger: SqlLedger) -> None:
    (retried,) = old_ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9)
    assert (retried.instance.spool_key, retried.attempts) == (version_1.CT_KEY, 2)
    (leased,) = old_ledger.claim(TaskKind.DELIVER, "other", lease_s=60, limit=9)
    assert (leased.instance.sop_instance_uid, leased.attempts) == ("1.2.3.3", 2)
    old_ledger.complete(retried)
    assert old_ledger.requeue() == 1


def test_new_tasks_get_numbers_that_no_old_one_had(old_ledger: SqlLedger) -> None:
    before = {t.task_id for t in (*old_ledger.queries.owed(), *old_ledger.queries.failed())}
    assert old_ledger.accept(instance("9.9"), plan(deliver=("new",))) is Receipt.NEW
    (task,) = old_ledger.claim(TaskKind.DELIVER, "new", lease_s=60, limit=9)
    assert task.task_id > max(before)


def test_an_upgraded_ledger_has_the_same_tables_as_a_new_one(
    ledger_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    version_1.make(ledger_url)
    SqlLedger(ledger_url).close()
    if ledger_url.startswith("sqlite"):
        new_url = f"sqlite:///{tmp_path}/new.db"
        SqlLedger(new_url).close()
        assert tables(ledger_url) == tables(new_url)
        return
    with made.database(request.getfixturevalue("postgres_url")) as new_url:
        SqlLedger(new_url).close()
        assert tables(ledger_url) == tables(new_url)


def tables(url: str) -> dict[str, Any]:
    """Everything about them that matters, whatever order they were made in."""
    engines = open_engines(url)
    found = {}
    inspector = sa.inspect(engines.read)
    for name in inspector.get_table_names():
        columns = {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)}
        indexes = {
            i["name"]: (
                i["column_names"],
                str((i.get("dialect_options") or {}).get(f"{engines.read.dialect.name}_where")),
            )
            for i in inspector.get_indexes(name)
        }
        foreign = sorted((f["constrained_columns"], f["referred_table"]) for f in inspector.get_foreign_keys(name))
        key = inspector.get_pk_constraint(name)["constrained_columns"]
        unique = sorted(str(u["column_names"]) for u in inspector.get_unique_constraints(name))
        found[name] = {"columns": columns, "indexes": indexes, "foreign": foreign, "key": key, "unique": unique}
    engines.close()
    assert found, "there are tables"
    return found
