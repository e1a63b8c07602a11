"""Names made beforehand: nobody is given one that is not durable, and nothing of them is left."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from router.spool.durable import Disk
from router.spool.files import FileSpool
from router.spool.names import STOCK
from tests.peers import wait_until


class Watching(Disk):
    """Knows which names are durable; `before_folder` is called before a folder is synced."""

    def __init__(self, before_folder: Callable[[], None] = lambda: None) -> None:
        self.durable: set[str] = set()
        self.folder_syncs = 0
        self._before_folder = before_folder

    def sync_folder(self, path: Path) -> None:
        names = {entry.name for entry in path.iterdir()}
        self._before_folder()
        super().sync_folder(path)
        self.folder_syncs += 1
        self.durable |= names


def empties(folder: Path) -> int:
    return sum(1 for path in folder.glob("objects/*/*") if not path.stat().st_size)


def test_every_key_that_is_given_out_is_durable_and_a_folder_is_synced_for_many(tmp_path: Path) -> None:
    disk = Watching()
    spool = FileSpool(tmp_path, disk=disk)
    disk.folder_syncs = 0
    keys = []
    for _ in range(10):
        for _ in range(STOCK // 2):  # no faster than names are made
            keys.append(spool.put(b"bytes"))
            assert keys[-1] in disk.durable
        wait_until(lambda: empties(tmp_path) >= STOCK // 2, 60)
    assert len(set(keys)) == 10 * STOCK // 2
    assert disk.folder_syncs < len(keys) / 4
    assert set(dict(spool.keys())) == set(keys), "what nobody has taken is no instance"
    spool.close()
    assert empties(tmp_path) == 0
    assert all(spool.path(key).read_bytes() == b"bytes" for key in keys)


def test_many_at_once_are_given_different_durable_names(tmp_path: Path) -> None:
    disk = Watching()
    spool = FileSpool(tmp_path, disk=disk, names_stock=4)

    def put(number: int) -> tuple[str, bool]:
        key = spool.put(b"x" * number)
        return key, key in disk.durable

    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(put, range(1, 201)))
    spool.close()
    assert all(durable for _, durable in keys)
    assert [spool.path(key).stat().st_size for key, _ in keys] == list(range(1, 201))
    assert empties(tmp_path) == 0


def test_who_finds_none_made_waits_for_nobody_elses_folder(tmp_path: Path) -> None:
    """While names are being made and that hangs, an instance gets a name of its own."""
    hang, hanging = threading.Event(), threading.Event()

    def before() -> None:
        if threading.current_thread().name == "spool-names":
            hanging.set()
            assert hang.wait(60)

    spool = FileSpool(tmp_path, disk=Watching(before), names_stock=4, now_s=iter(range(0, 10**9, 100)).__next__)
    first = spool.put(b"x")
    assert hanging.wait(60)
    assert spool.put(b"y") != first
    hang.set()
    spool.close()


def test_a_disk_that_cannot_make_names_for_a_while_says_so_and_then_makes_them_again(tmp_path: Path) -> None:
    class Full(Disk):
        full = False

        def create(self, path: Path) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().create(path)

    disk = Full()
    spool = FileSpool(tmp_path, disk=disk, names_stock=4)
    spool.put(b"x")
    wait_until(lambda: empties(tmp_path) == 4, 60)
    disk.full = True
    with pytest.raises(OSError, match="No space left"):
        for _ in range(5):
            spool.put(b"x")
    disk.full = False
    spool.put(b"x")
    wait_until(lambda: empties(tmp_path) >= 3, 60)
    spool.close()
    assert empties(tmp_path) == 0


def test_a_folder_that_cannot_be_synced_leaves_no_names(tmp_path: Path) -> None:
    class Failing(Disk):
        armed = False

        def sync_folder(self, path: Path) -> None:
            if self.armed:
                raise OSError(errno.EIO, "Input/output error")
            super().sync_folder(path)

    disk = Failing()
    spool = FileSpool(tmp_path, disk=disk, names_stock=4)
    disk.armed = True
    with pytest.raises(OSError, match="Input/output"):
        spool.put(b"x")
    spool.close()
    assert list(tmp_path.glob("objects/*/*")) == []


def test_a_disk_that_fails_while_the_node_stops_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    """Nobody wakes the maker of names any more once the spool is closed."""
    failing, may_fail = threading.Event(), threading.Event()

    class Full(Disk):
        def create(self, path: Path) -> int:
            if threading.current_thread().name == "spool-names":
                failing.set()
                assert may_fail.wait(60)
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().create(path)

    spool = FileSpool(tmp_path, disk=Full(), names_stock=4)
    spool.put(b"x")
    assert failing.wait(60)
    closing = threading.Thread(target=spool.close, daemon=True)
    closing.start()
    wait_until(lambda: spool._names._closed, 60)
    may_fail.set()
    closing.join(60)
    assert not closing.is_alive()
