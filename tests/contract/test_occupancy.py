"""One node to a ledger, on SQLite and on PostgreSQL; and what happens when the connection that holds the lock breaks."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy.exc import TimeoutError as NoConnection

from router.errors import ConfigError
from router.ledger import occupancy
from router.ledger.occupancy import _LOCK_KEY, ServerOccupancy
from router.ledger.store import SqlLedger
from tests.ledger import made
from tests.peers import ROOT, wait_until
from tests.whole.router_process import RouterProcess, destination

HOLD = """
import sys
from router.ledger.store import SqlLedger
ledger = SqlLedger(sys.argv[1])
ledger.occupy(lost=print)
print("has it", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def opened(ledger_url: str) -> Iterator[list[SqlLedger]]:
    """Two openings of one ledger, as two nodes would have them."""
    ledgers = [SqlLedger(ledger_url), SqlLedger(ledger_url)]
    yield ledgers
    for ledger in ledgers:
        ledger.close()


def nobody(holder: str) -> None:
    raise AssertionError(f"lost to {holder}")


def test_a_second_node_is_refused_in_one_line_and_takes_over_when_the_first_has_ended(opened: list[SqlLedger]) -> None:
    first, second = opened
    first.occupy(lost=nobody)
    with pytest.raises(ConfigError, match="is in use by another node") as caught:
        second.occupy(lost=nobody, patience_s=0)
    (line,) = caught.value.problems
    assert line.startswith("ledger.url: ")
    assert f"process {os.getpid()}" in line
    assert second.queries.lanes() == [], "commands beside the node still read"
    first.close()
    second.occupy(lost=nobody)


def test_a_node_that_was_killed_does_not_keep_the_ledger(ledger_url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, ledger_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        ledger = SqlLedger(ledger_url)
        with pytest.raises(ConfigError, match=f"process {process.pid}"):
            ledger.occupy(lost=nobody, patience_s=0)
        process.kill()
        process.wait()
    ledger.occupy(lost=nobody, patience_s=60)
    ledger.close()


def test_router_serve_refuses_a_ledger_that_another_node_has(tmp_path: Path) -> None:
    ledger_url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = SqlLedger(ledger_url)
    ledger.occupy(lost=nobody)
    node = RouterProcess(tmp_path / "node", destination("pacs", "X", 104))
    node.config.write_text(node.config.read_text().replace(node.ledger_url, ledger_url))
    node.start(wait=False)
    assert node.wait(120) == 1
    assert f"is in use by another node (process {os.getpid()})" in node.log.read_text()
    assert '"node.ready"' not in node.log.read_text()
    ledger.close()


# ---- PostgreSQL: the lock lives as long as a connection


@pytest.fixture
def server(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(occupancy, "LOOK_S", 0.02)
    monkeypatch.setattr(occupancy, "_PAUSE_S", 0.02)
    with made.database(postgres_url) as url:
        yield url


def holders(url: str) -> list[tuple[int, str]]:
    """Server process and application name of whoever has the lock."""
    import psycopg

    query = (
        "SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_database d"
        " ON d.oid = l.database WHERE l.locktype = 'advisory' AND l.granted AND l.objid = %s"
        " AND d.datname = current_database()"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query, (_LOCK_KEY,)).fetchall()


def end(url: str, pid: int) -> None:
    """As a server that is restarted, or a firewall that forgets."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))


def test_a_broken_connection_is_taken_anew(server: str) -> None:
    ledger = SqlLedger(server)
    ledger.occupy(lost=nobody)
    ((pid, name),) = holders(server)
    assert name.startswith("dicom-ai-router ")
    end(server, pid)
    again = wait_until(lambda: [h for h in holders(server) if h[0] != pid], 60, "the lock is taken anew")
    assert [n for _, n in again] == [name]
    other = SqlLedger(server)
    with pytest.raises(ConfigError, match="in use by another node"):
        other.occupy(lost=nobody, patience_s=0)
    assert ledger.taken_over_by == ""
    other.close()
    ledger.close()


def test_a_node_hears_that_another_one_took_the_ledger_while_its_connection_was_broken(server: str) -> None:
    import psycopg

    lost: queue.Queue[str] = queue.Queue()
    ledger = SqlLedger(server)
    ledger.occupy(lost=lost.put)
    ((pid, _),) = holders(server)
    with psycopg.connect(server, autocommit=True, application_name="another router") as other:
        # In the server's own queue: it has the lock at the moment at which the first one's session ends.
        taken = threading.Thread(target=other.execute, args=("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,)))
        taken.start()
        wait_until(lambda: _waits(server), 60, "the other one waits for the lock")
        end(server, pid)
        assert lost.get(timeout=60).startswith("another router at ")
        taken.join(60)
        assert ledger.taken_over_by.startswith("another router")
        ledger.close()
        assert [name for _, name in holders(server)] == ["another router"]


def _waits(url: str) -> bool:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s"
        return connection.execute(query, (_LOCK_KEY,)).fetchone() is not None


def test_a_session_of_ours_that_the_server_still_believes_in_is_ended(server: str) -> None:
    lost: queue.Queue[str] = queue.Queue()
    ledger = SqlLedger(server)
    ledger.occupy(lost=lost.put)
    held = ledger._occupancy
    assert isinstance(held, ServerOccupancy)
    ((pid, name),) = holders(server)
    # The line is cut without a word: the server keeps the session, and we have no connection any more.
    kept, held._connection = held._connection, None
    assert kept is not None
    again = wait_until(lambda: [h for h in holders(server) if h[0] != pid], 60, "the lock is taken anew")
    assert [n for _, n in again] == [name]
    assert lost.empty()
    ledger.close()
    kept.invalidate()
    kept.close()


def test_a_connection_that_cannot_be_had_at_the_moment_does_not_end_the_watch(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = SqlLedger(server)
    ledger.occupy(lost=nobody)
    held = ledger._occupancy
    assert isinstance(held, ServerOccupancy)
    opened = held._open
    refusals = [NoConnection("QueuePool limit reached")]
    monkeypatch.setattr(held, "_open", lambda: opened() if not refusals else _raise(refusals.pop()))
    ((pid, _),) = holders(server)
    end(server, pid)
    wait_until(lambda: [h for h in holders(server) if h[0] != pid], 60, "the lock is taken anew")
    assert not refusals
    ledger.close()


def _raise(error: Exception) -> NoReturn:
    raise error
