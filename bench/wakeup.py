"""How soon a new task begins: from the commit of a receipt to the worker that has claimed its delivery."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from bench import turns
from bench.effort import Effort
from bench.row import Row
from router.core.lifecycle import TaskKind
from router.ledger.store import SqlLedger
from tests.ledger.made import database, instance, plan, postgres

GROUP = "task"
WHAT = "from the commit of a receipt to the claim of its delivery"
MILLISECONDS = "ms"
_PAUSE_S = 0.03
_LANE = (TaskKind.DELIVER, "pacs")


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """SQLite in one process; PostgreSQL in one process, and by another connection as another node would have."""
    count = effort.count(100, 10)
    contenders: dict[str, Callable[[], turns.Figures]] = {
        "router, SQLite": partial(_on_sqlite, folder, count),
        "router, PostgreSQL": partial(_on_postgres, count, own_worker=True),
        "router, PostgreSQL, another node's worker": partial(_on_postgres, count, own_worker=False),
    }
    yield from turns.rows(effort, group=GROUP, what=WHAT, since=time.monotonic(), contenders=contenders)


def _on_sqlite(folder: Path, count: int) -> turns.Figures:
    with closing(SqlLedger(f"sqlite:///{folder}/ledger-{time.monotonic_ns()}.db")) as ledger:
        return _delays(ledger, ledger, count)


def _on_postgres(count: int, *, own_worker: bool) -> turns.Figures:
    with postgres(durable=True) as server, database(server) as url, closing(SqlLedger(url)) as ledger:
        if own_worker:
            return _delays(ledger, ledger, count)
        with closing(SqlLedger(url)) as other:
            return _delays(ledger, other, count)


def _delays(ledger: SqlLedger, workers: SqlLedger, count: int) -> turns.Figures:
    """One at a time, each after the worker has gone to sleep."""
    with _worker(workers) as claimed:
        taken = []
        for number in range(count + 3):
            time.sleep(_PAUSE_S)
            ledger.accept(instance(f"1.2.3.{number}"), plan())
            committed = time.perf_counter()
            taken.append(max(0.0, claimed.get(timeout=60) - committed))
        values = sorted(taken[3:])
        return {
            MILLISECONDS: median(values) * 1000,
            f"{MILLISECONDS}, 95th percentile": values[int(len(values) * 0.95)] * 1000,
        }


@contextmanager
def _worker(ledger: SqlLedger) -> Iterator[queue.Queue[float]]:
    """Claims as `work.worker.Worker` does; when it had each task."""
    claimed: queue.Queue[float] = queue.Queue()
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            tasks = ledger.claim(*_LANE, lease_s=60, limit=32)
            for task in tasks:
                claimed.put(time.perf_counter())
                ledger.complete(task)
            if not tasks:
                ledger.wait(*_LANE, timeout_s=30)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield claimed
    finally:
        over.set()
        while thread.is_alive():
            ledger.wake(*_LANE)
            thread.join(0.1)
