"""Every call of a durable write made to fail: a file under its final name is whole, or there is none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from router.spool.durable import Disk, DurableFile
from tests.spool.failing import FailingDisk

CALLS = ("create", "write", "sync", "close", "rename", "sync_folder")


def write_file(folder: Path, disk: Disk, data: bytes = b"a whole file") -> Path:
    final = folder / "objects" / "final"
    final.parent.mkdir(exist_ok=True)
    file = DurableFile(temporary=folder / "temporary", final=final, disk=disk)
    file.write(data)
    file.commit()
    return final


def test_content_is_synced_before_it_gets_its_name_and_the_name_before_it_counts(tmp_path: Path) -> None:
    disk = FailingDisk()
    final = write_file(tmp_path, disk)
    assert disk.calls == ["create", "write", "sync", "close", "rename", "sync_folder"]
    assert final.read_bytes() == b"a whole file"
    assert not (tmp_path / "temporary").exists()


@pytest.mark.parametrize("call", CALLS)
def test_a_failing_call_surfaces_and_leaves_no_file_under_either_name(tmp_path: Path, call: str) -> None:
    disk = FailingDisk(fails=call, number=errno.ENOSPC)
    with pytest.raises(OSError, match="made to fail") as raised:
        write_file(tmp_path, disk)
    assert raised.value.errno == errno.ENOSPC
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("call", ["sync", "sync_folder"])
def test_a_failed_fsync_is_never_tried_again(tmp_path: Path, call: str) -> None:
    disk = FailingDisk(fails=call)
    file = DurableFile(temporary=tmp_path / "temporary", final=tmp_path / "final", disk=disk)
    file.write(b"data")
    with pytest.raises(OSError, match="made to fail"):
        file.commit()
    with pytest.raises(ValueError, match="discarded"):
        file.commit()
    assert disk.calls.count(call) == 1


def test_a_file_that_cannot_be_removed_does_not_hide_why_the_write_failed(tmp_path: Path) -> None:
    class Stuck(FailingDisk):
        def unlink(self, path: Path) -> None:
            raise OSError(errno.EROFS, "read-only")

    with pytest.raises(OSError, match="made to fail"):
        write_file(tmp_path, Stuck(fails="sync"))
    assert not (tmp_path / "objects" / "final").exists()


def test_many_small_writes_become_few_and_keep_their_order(tmp_path: Path) -> None:
    disk = FailingDisk()
    file = DurableFile(temporary=tmp_path / "temporary", final=tmp_path / "final", disk=disk)
    pieces = [bytes([number % 251]) * (1 + number % 700) for number in range(4000)] + [b"x" * 300_000, b"end"]
    for piece in pieces:
        file.write(memoryview(piece))
    file.commit()
    assert (tmp_path / "final").read_bytes() == b"".join(pieces)
    assert disk.calls.count("write") < 20


def test_a_short_write_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class Short(Disk):
        def write(self, fd, parts) -> int:
            whole = b"".join(parts)
            return super().write(fd, [whole[: 50_001 if len(whole) > 50_001 else 7]])

    pieces = [bytes([65 + number]) * 30_000 for number in range(9)]
    file = DurableFile(temporary=tmp_path / "temporary", final=tmp_path / "final", disk=Short())
    file.write(b"a few bytes before")
    file.write(*pieces[:8])
    file.write(pieces[8])
    file.commit()
    assert (tmp_path / "final").read_bytes() == b"a few bytes before" + b"".join(pieces)


def test_pieces_go_to_the_disk_together_however_many_they_are(tmp_path: Path) -> None:
    disk = FailingDisk()
    file = DurableFile(temporary=tmp_path / "temporary", final=tmp_path / "final", disk=disk)
    file.write(b"head")
    file.write(*[b"x" * 100_000] * 4)
    assert disk.calls.count("write") == 1
    file.write(*[b"y" * 500] * 5000)  # more than the system takes at once
    file.commit()
    assert (tmp_path / "final").read_bytes() == b"head" + b"x" * 400_000 + b"y" * 2_500_000
    assert disk.calls.count("write") < 4


def test_discard_removes_every_trace_and_may_be_called_twice(tmp_path: Path) -> None:
    file = DurableFile(temporary=tmp_path / "temporary", final=tmp_path / "final", disk=Disk())
    file.write(b"half")
    file.discard()
    file.discard()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="discarded"):
        file.write(b"more")


@pytest.mark.parametrize("fails", [False, True])
def test_the_disk_begins_with_a_large_file_while_more_of_it_arrives(tmp_path: Path, fails: bool) -> None:
    class Watching(Disk):
        def __init__(self) -> None:
            self.begun: list[tuple[int, int]] = []

        def begin_sync(self, fd: int, begin: int, end: int) -> None:
            self.begun.append((begin, end))
            super().begin_sync(-1 if fails else fd, begin, end)  # whatever it says: the sync at the end will tell

    disk = Watching()
    data = bytes(range(250)) * 400
    file = DurableFile(temporary=tmp_path / "a", final=tmp_path / "b", disk=disk)
    for _ in range(11):
        file.write(data)
    file.write(b"end")
    file.commit()
    begun, ends = zip(*disk.begun, strict=True)
    assert begun == (0, *ends[:-1]), "nothing twice"
    assert [end // len(data) for end in ends] == [2, 5, 8], "after 300, 600 and 900 kB"
    assert [end % 4096 for end in ends] == [0, 0, 0], "no page to which more may be written"
    assert (tmp_path / "b").read_bytes() == data * 11 + b"end"
