"""The spool folder: keys are ours, one node per folder, nothing half-written survives a start."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from router.errors import ConfigError, SpoolDamaged
from router.spool.durable import Disk
from router.spool.files import FileSpool
from tests.spool.failing import FailingDisk


@pytest.fixture
def spool(tmp_path: Path):
    opened = FileSpool(tmp_path / "spool")
    yield opened
    opened.close()


def files_in(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and p.name != "lock"]


def test_what_was_put_is_found_under_its_key(spool: FileSpool) -> None:
    key = spool.put(b"bytes")
    assert spool.path(key).read_bytes() == b"bytes"


def test_what_is_not_committed_counts_for_nothing(spool: FileSpool) -> None:
    writer = spool.writer()
    writer.write(b"half")
    assert list(spool.keys()) == []
    key = writer.commit()
    assert list(dict(spool.keys())) == [key]


def test_what_is_written_can_be_read_before_the_commit(spool: FileSpool) -> None:
    writer = spool.writer()
    writer.write(b"begin ")
    reader = writer.reader()
    assert reader.read(100) == b"begin "
    assert reader.seek(2) == 2
    assert (reader.read(1), reader.read(2), reader.read(100)) == (b"g", b"in", b" ")
    writer.write(b"end")
    assert spool.path(writer.commit()).read_bytes() == b"begin end"


def test_discard_removes_every_trace_and_may_be_called_twice(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path, names_stock=0)
    writer = spool.writer()
    writer.write(b"half")
    writer.discard()
    writer.discard()
    assert files_in(tmp_path) == []
    with pytest.raises(ValueError, match="discarded"):
        writer.write(b"more")
    spool.close()


def test_discard_after_the_commit_changes_nothing(spool: FileSpool) -> None:
    writer = spool.writer()
    writer.write(b"whole")
    key = writer.commit()
    writer.discard()
    assert spool.path(key).read_bytes() == b"whole"


@pytest.mark.parametrize("call", ["create", "write", "sync", "close", "sync_folder"])
def test_a_failing_disk_surfaces_and_leaves_no_file(tmp_path: Path, call: str) -> None:
    disk = FailingDisk(number=errno.ENOSPC)
    spool = FileSpool(tmp_path, names_stock=0, disk=disk)
    disk.calls.clear()
    disk.fails = call
    with pytest.raises(OSError, match="made to fail") as raised:
        spool.put(b"a whole file")
    assert raised.value.errno == errno.ENOSPC
    assert disk.calls.count(call) == 1, "a failed sync is never tried again"
    assert files_in(tmp_path) == []
    assert list(spool.keys()) == []
    spool.close()


def test_keys_are_in_the_order_of_time_and_never_the_same(tmp_path: Path) -> None:
    now = [1000.0]
    spool = FileSpool(tmp_path, now_s=lambda: now[0], names_stock=0)
    keys = []
    for now[0] in (1000.0, 1000.001, 1000.002, 5000.0):
        keys.append(spool.put(b"x"))
    assert keys == sorted(keys)
    assert len({key[12:] for key in keys}) == 4
    spool.close()


def test_keys_lists_what_is_durable_with_its_age(tmp_path: Path) -> None:
    now = [1000.0]
    spool = FileSpool(tmp_path, now_s=lambda: now[0], names_stock=0)
    old = spool.put(b"old")
    now[0] = 1100.0
    new = spool.put(b"new")
    spool.writer().write(b"half")
    (tmp_path / "objects" / "00" / "not-ours").write_text("left by somebody")
    now[0] = 1130.0
    assert dict(spool.keys()) == {old: pytest.approx(130.0), new: pytest.approx(30.0)}
    spool.close()


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "/etc/passwd", "0" * 27, "0" * 29, "G" * 28, "0" * 27 + "\n"])
def test_a_key_that_is_not_ours_never_becomes_a_path(spool: FileSpool, key: str) -> None:
    with pytest.raises(SpoolDamaged):
        spool.path(key)
    with pytest.raises(SpoolDamaged):
        spool.delete(key)


def test_a_file_that_is_gone_is_damage_for_a_reader_and_nothing_for_delete(spool: FileSpool) -> None:
    key = spool.put(b"x")
    spool.delete(key)
    spool.delete(key)
    with pytest.raises(SpoolDamaged, match="gone"):
        spool.path(key)


def test_what_an_earlier_process_left_behind_is_scratch_names_without_bytes_and_orphans(tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from router.spool.files import FileSpool
spool = FileSpool(Path({str(tmp_path)!r}), names_stock=8)
print(spool.put(b"whole"))
spool.writer().write(b"x" * 100_000)
spool.writer()
spool.scratch().write_bytes(b"nobody keeps this")
os._exit(9)
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    kept = killed.stdout.strip()
    left = files_in(tmp_path)
    spool = FileSpool(tmp_path)
    assert files_in(tmp_path / "incoming") == []
    assert spool.remove_unused() == len([path for path in left if path.parent.name != "incoming"]) - 2
    assert spool.remove_unused() == 0
    found = set(dict(spool.keys()))
    assert kept in found
    (half,) = found - {kept}
    assert spool.path(half).stat().st_size == 100_000, "an orphan, which the janitor finds"
    assert spool.path(kept).read_bytes() == b"whole"
    spool.close()


def test_a_second_node_on_the_same_folder_refuses_to_start_and_touches_nothing(tmp_path: Path) -> None:
    first = FileSpool(tmp_path)
    writer = first.writer()
    writer.write(b"x" * 100_000)
    program = f"from pathlib import Path; from router.spool.files import FileSpool; FileSpool(Path({str(tmp_path)!r}))"
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert "is in use by another node" in second.stderr
    assert first.path(writer.commit()).stat().st_size == 100_000
    first.close()


def test_the_folder_is_free_again_after_close(tmp_path: Path) -> None:
    FileSpool(tmp_path).close()
    FileSpool(tmp_path).close()


def test_a_folder_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"spool\.path"):
        FileSpool(tmp_path / "file" / "spool")


def test_free_bytes_are_those_of_the_file_system(spool: FileSpool) -> None:
    assert spool.free_byte_count() > 0


def test_a_file_that_was_long_on_its_way_is_young_when_it_is_durable(tmp_path: Path) -> None:
    """Its row is not committed yet: by the age of its key it would be taken for an orphan, and removed."""
    now = [time.time() - 2 * 3600]
    spool = FileSpool(tmp_path, now_s=lambda: now[0])
    writer = spool.writer()
    writer.write(b"x")
    now[0] = time.time()
    assert list(spool.keys()) == [], "nor is it an orphan while it is on its way"
    key = writer.commit()
    ((found, age_s),) = spool.keys()
    assert found == key
    assert age_s < 3600
    now[0] += 1800
    assert 1800 <= dict(spool.keys())[key] < 3600, "from then on it grows old as any other"
    spool.close()


def test_a_file_is_as_old_as_its_bytes_also_after_a_crash(tmp_path: Path) -> None:
    """PostgreSQL may commit a row whose node has died meanwhile; and the name had been made the evening before."""
    now_s = time.time()
    spool = FileSpool(tmp_path, now_s=lambda: now_s - 12 * 3600, names_stock=0)
    keys = {spool.put(b"this moment"): 0, (old := spool.put(b"long ago")): 5 * 3600}
    os.utime(spool.path(old), (now_s - 5 * 3600, now_s - 5 * 3600))
    spool.close()
    spool = FileSpool(tmp_path, now_s=lambda: now_s + 60)
    assert dict(spool.keys()) == {key: pytest.approx(age_s + 60, abs=60) for key, age_s in keys.items()}
    spool.close()


def test_files_that_were_long_on_their_way_may_be_whole_at_once(tmp_path: Path) -> None:
    """After a quiet hour every name that was made beforehand is old."""
    now = [1000.0]
    spool = FileSpool(tmp_path, now_s=lambda: now[0], names_stock=0)
    writers = [spool.writer() for _ in range(400)]
    now[0] = 4600.0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            keys = list(pool.map(lambda writer: writer.commit(), writers))
    finally:
        sys.setswitchinterval(interval)
    assert dict(spool.keys()) == dict.fromkeys(keys, 0.0)
    spool.close()


def test_what_is_still_written_while_another_thread_discards_lands_in_no_other_file(tmp_path: Path) -> None:
    """A file descriptor that is closed is the next file's at once."""
    discarding: list[threading.Thread] = []
    others = []

    def discard_and_open_another() -> None:
        writer.discard()
        others.append(spool.writer())

    class Slow(Disk):
        def write(self, fd, parts) -> int:
            count = super().write(fd, [memoryview(parts[0])[:10]])
            if not discarding:
                discarding.append(threading.Thread(target=discard_and_open_another))
                discarding[0].start()
                discarding[0].join(0.2)  # as long as it likes, when it need not wait for us
            return count

    spool = FileSpool(tmp_path, disk=Slow(), names_stock=0)
    writer = spool.writer()
    with suppress(OSError):
        writer.write(b"x" * 100_000)
    discarding[0].join(60)
    (other,) = others
    assert spool.path(other.commit()).read_bytes() == b""
    assert [path.stat().st_size for path in files_in(tmp_path)] == [0]
    spool.close()


def test_a_file_that_goes_meanwhile_ends_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A duplicate is deleted as soon as it is known for one, whatever the janitor is at."""
    spool = FileSpool(tmp_path, names_stock=0)
    duplicate, kept = spool.put(b"duplicate"), spool.put(b"kept")
    found = spool._found

    def late():
        listed = list(found())
        spool.delete(duplicate)
        return iter(listed)

    monkeypatch.setattr(spool, "_found", late)
    (tmp_path / "objects" / "00" / ("0" * 28)).touch()
    assert spool.remove_unused() == 1
    assert kept in dict(spool.keys())
    spool.close()


def test_setting_the_clock_forward_makes_no_file_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = FileSpool(tmp_path)
    key = spool.put(b"its row is not committed yet")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86400)
    ((found, age_s),) = spool.keys()
    assert found == key
    assert age_s < 3600
    spool.close()


def test_a_file_that_the_disk_cannot_even_look_at_is_damaged(spool: FileSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error would take the other deliveries of its batch along."""
    key = spool.put(b"bytes")

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "stat", broken)
    with pytest.raises(SpoolDamaged, match="Input/output error"):
        spool.path(key)


def test_a_spool_that_is_made_is_for_its_own_user_only_and_one_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    FileSpool(tmp_path / "made").close()
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0
    (tmp_path / "there").mkdir(mode=0o750)
    before = (tmp_path / "there").stat().st_mode
    FileSpool(tmp_path / "there").close()
    assert (tmp_path / "there").stat().st_mode == before
