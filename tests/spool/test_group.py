"""One folder sync for all who wait: nobody returns before a sync that began after its call, and everybody hears of a failure."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from router.spool.durable import Disk
from router.spool.files import FileSpool
from router.spool.group import FolderSync
from tests.peers import wait_until

FOLDER = Path("objects/00")


class Gate:
    """A sync that waits for a test before it ends, and counts."""

    def __init__(self) -> None:
        self.begun = 0
        self.fails: set[int] = set()
        self._open = threading.Semaphore(0)

    def __call__(self, folder: Path) -> None:
        self.begun += 1
        number = self.begun
        assert self._open.acquire(timeout=60)
        if number in self.fails:
            raise OSError(5, f"sync {number} failed")

    def end_one(self) -> None:
        self._open.release()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(20) as threads:
        yield threads


def waiting(sync: FolderSync) -> int:
    """How many threads wait for somebody else's sync."""
    return sum(len(one.over._cond._waiters) for one in (*sync._running.values(), *sync._next.values()))


def test_alone_nobody_waits_for_anybody() -> None:
    synced: list[Path] = []
    sync = FolderSync(synced.append)
    sync(FOLDER)
    sync(FOLDER)
    assert synced == [FOLDER, FOLDER]


def test_all_who_come_during_a_sync_share_the_next_one(pool) -> None:
    gate = Gate()
    sync = FolderSync(gate)
    first = pool.submit(sync, FOLDER)
    wait_until(lambda: gate.begun == 1, 60)
    others = [pool.submit(sync, FOLDER) for _ in range(9)]
    wait_until(lambda: waiting(sync) == 9, 60)
    gate.end_one()
    first.result(60)
    wait_until(lambda: gate.begun == 2, 60)
    assert not any(other.done() for other in others), "the sync that ran may have begun before their files had names"
    gate.end_one()
    for other in others:
        other.result(60)
    assert gate.begun == 2


def test_who_comes_when_the_shared_sync_runs_already_waits_for_one_more(pool) -> None:
    gate = Gate()
    sync = FolderSync(gate)
    first = pool.submit(sync, FOLDER)
    wait_until(lambda: gate.begun == 1, 60)
    second = pool.submit(sync, FOLDER)
    wait_until(lambda: waiting(sync) == 1, 60)
    gate.end_one()
    wait_until(lambda: gate.begun == 2, 60)
    third = pool.submit(sync, FOLDER)
    wait_until(lambda: waiting(sync) == 1, 60)
    gate.end_one()
    second.result(60)
    first.result(60)
    assert not third.done()
    gate.end_one()
    third.result(60)
    assert gate.begun == 3


def test_everybody_who_waited_for_a_failed_sync_hears_of_it_and_nobody_else_does(pool) -> None:
    gate = Gate()
    gate.fails = {2}
    sync = FolderSync(gate)
    first = pool.submit(sync, FOLDER)
    wait_until(lambda: gate.begun == 1, 60)
    others = [pool.submit(sync, FOLDER) for _ in range(3)]
    wait_until(lambda: waiting(sync) == 3, 60)
    for _ in range(2):
        gate.end_one()
    first.result(60)
    for other in others:
        with pytest.raises(OSError, match="sync 2 failed") as raised:
            other.result(60)
        assert raised.value.errno == 5
    gate.end_one()
    sync(FOLDER)
    assert gate.begun == 3


def test_folders_do_not_wait_for_each_other(pool) -> None:
    gate = Gate()
    sync = FolderSync(gate)
    both = [pool.submit(sync, Path(name)) for name in "ab"]
    wait_until(lambda: gate.begun == 2, 60)
    gate.end_one()
    gate.end_one()
    for one in both:
        one.result(60)


def test_of_many_files_at_once_every_one_is_named_before_a_sync_that_it_waited_for(tmp_path: Path, pool) -> None:
    """Whatever the order of threads: a key is given out only after a whole sync of a folder that held its name."""
    seen: list[set[str]] = []
    done = threading.Lock()
    durable: set[str] = set()

    class Watching(Disk):
        def sync_folder(self, path: Path) -> None:
            names = {entry.name for entry in path.iterdir()}
            super().sync_folder(path)
            with done:
                durable.update(names)
                seen.append(names)

    spool = FileSpool(tmp_path / "spool", disk=Watching(), names_stock=0)

    def put(number: int) -> tuple[str, bool]:
        key = spool.put(b"x" * number)
        with done:
            return key, key in durable

    keys = list(pool.map(put, range(1, 101)))
    spool.close()
    assert all(was_durable for _, was_durable in keys)
    assert len({key for key, _ in keys}) == 100
