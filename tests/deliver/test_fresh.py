"""What was hashed while it came in is not hashed again while it goes out, unless anything about its file says otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from router.core.digest import Algorithm, Hasher, parsed
from router.core.ports import Delivered, Delivery
from router.deliver import fresh
from router.deliver.folder import FolderDestination
from router.deliver.fresh import FreshFiles, mark_of
from router.deliver.intact import intact, intact_to_its_end
from router.errors import SpoolDamaged, UnknownDigest
from router.node import build_node
from router.settings.load import parse
from tests.deliver.made import drawn, send
from tests.peers import free_port, wait_until

WRONG = "0" * 64


def fresh_delivery(folder: Path, *, digest: str = WRONG) -> Delivery:
    """Of a file as it was when it had come in; its digest is not right, so that whoever computes it is found out."""
    here = drawn(folder, "1.2.3", byte_count=600_000)
    wait_for_the_clock(folder)
    return replace(here, instance=replace(here.instance, digest=digest), received_as=mark_of(here.path.stat()))


def wait_for_the_clock(folder: Path) -> None:
    """Until a change of a file gets another time than before: the kernel's clock for files ticks some hundred times a second."""
    probe = folder / "clock"
    probe.touch()
    began = probe.stat().st_ctime_ns

    def ticked() -> bool:
        probe.touch()
        return probe.stat().st_ctime_ns != began

    wait_until(ticked, 60, "the clock ticks")


def read_all(delivery: Delivery) -> bytes:
    with intact_to_its_end(delivery) as stream:
        buffer, data = memoryview(bytearray(2**20)), b""
        while count := stream.readinto(buffer):
            data += buffer[:count]
        return data


def test_a_file_that_nobody_touched_is_not_hashed_again(tmp_path: Path) -> None:
    delivery = fresh_delivery(tmp_path)
    assert read_all(delivery) == delivery.path.read_bytes()[-delivery.instance.byte_count :]
    with intact(delivery) as file:
        assert len(file.read()) == delivery.instance.byte_count


def test_without_a_mark_every_file_is_hashed(tmp_path: Path) -> None:
    delivery = replace(fresh_delivery(tmp_path), received_as=None)
    with pytest.raises(SpoolDamaged, match="SHA-256 differs"):
        read_all(delivery)
    with pytest.raises(SpoolDamaged, match="SHA-256 differs"), intact(delivery):
        pass


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def flip_a_bit_and_put_the_time_back(path: Path) -> None:
    before = path.stat()
    flip_a_bit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def put_another_in_its_place(path: Path) -> None:
    before, other = path.stat(), path.with_suffix(".other")
    other.write_bytes(path.read_bytes())
    flip_a_bit(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def touch(path: Path) -> None:
    os.utime(path)


@pytest.mark.parametrize(
    "change", [flip_a_bit, flip_a_bit_and_put_the_time_back, put_another_in_its_place, touch], ids=lambda f: f.__name__
)
def test_a_file_that_was_touched_since_is_hashed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    right = drawn(tmp_path / "right", "1.2.3", byte_count=600_000).instance.digest
    delivery = fresh_delivery(tmp_path, digest=right)
    change(delivery.path)
    if change is touch:
        assert read_all(delivery), "nothing was changed: it is sent"
        return
    with pytest.raises(SpoolDamaged, match="SHA-256 differs"):
        read_all(delivery)


@pytest.mark.parametrize(("algorithm", "name"), [("sha256", "SHA-256"), ("blake3", "BLAKE3")])
def test_a_damaged_file_is_found_by_the_algorithm_that_its_digest_names(
    tmp_path: Path, algorithm: Algorithm, name: str
) -> None:
    whole = hashed_by(algorithm, drawn(tmp_path, "1.2.3", byte_count=2_000_000))
    assert read_all(whole) == whole.path.read_bytes()[-whole.instance.byte_count :]
    with intact(whole) as file:
        assert len(file.read()) == whole.instance.byte_count
    flip_a_bit(whole.path)
    with pytest.raises(SpoolDamaged, match=f"{name} differs"):
        read_all(whole)
    with pytest.raises(SpoolDamaged, match=f"{name} differs"), intact(whole):
        pass
    folder = FolderDestination(name="f", settings=FolderDestination.Settings(path=tmp_path / "out"))
    (outcome,) = send(folder, [whole])
    assert isinstance(outcome, SpoolDamaged)
    assert list((tmp_path / "out").rglob("*.dcm")) == []


@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
def test_a_folder_knows_what_it_has_by_either_algorithm(tmp_path: Path, algorithm: Algorithm) -> None:
    folder = FolderDestination(name="f", settings=FolderDestination.Settings(path=tmp_path / "out"))
    one = hashed_by(algorithm, drawn(tmp_path / "one", "1.2.3"))
    other = hashed_by(algorithm, drawn(tmp_path / "other", "1.2.3", byte_count=90_000))
    for delivery in (one, one, other, other):
        assert isinstance(send(folder, [delivery])[0], Delivered)
    digits = parsed(other.instance.digest).digits
    names = sorted(path.name for path in (tmp_path / "out").rglob("*.dcm"))
    assert names == [f"1.2.3.{digits[:16]}.dcm", "1.2.3.dcm"]


def test_what_has_no_digest_that_anybody_knows_is_not_sent_and_holds_up_nothing_else(tmp_path: Path) -> None:
    unknown = drawn(tmp_path / "one", "1.2.3")
    unknown = replace(unknown, instance=replace(unknown.instance, digest="md5:0"))
    folder = FolderDestination(name="f", settings=FolderDestination.Settings(path=tmp_path / "out"))
    refused, sent = send(folder, [unknown, drawn(tmp_path / "other", "1.2.4")])
    assert isinstance(refused, UnknownDigest)
    assert isinstance(sent, Delivered)


def hashed_by(algorithm: Algorithm, delivery: Delivery) -> Delivery:
    hasher = Hasher(algorithm)
    hasher.update(delivery.path.read_bytes()[-delivery.instance.byte_count :])
    return replace(delivery, instance=replace(delivery.instance, digest=hasher.text()))


def test_files_are_fresh_for_a_time(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"bytes")
    now_s = 100.0
    files = FreshFiles(for_s=600, monotonic=lambda: now_s)
    files.note("key", (tmp_path / "key").stat())
    assert files.mark("key") == mark_of((tmp_path / "key").stat())
    assert files.mark("of another process") is None
    now_s = 699.0
    assert files.mark("key") is not None
    now_s = 700.0
    assert files.mark("key") is None


def test_no_file_is_fresh_where_every_file_is_to_be_verified(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"bytes")
    files = FreshFiles(for_s=0)
    files.note("key", (tmp_path / "key").stat())
    assert files.mark("key") is None


def test_of_too_many_the_oldest_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "COUNT_MAX", 2)
    files = FreshFiles(for_s=600)
    for key in "abc":
        (tmp_path / key).touch()
        files.note(key, (tmp_path / key).stat())
    assert [files.mark(key) is not None for key in "abc"] == [False, True, True]


@pytest.mark.parametrize(("verify_after_s", "known"), [(600, True), (0, False)])
def test_what_a_node_accepts_its_lanes_know_as_fresh(tmp_path: Path, verify_after_s: float, known: bool) -> None:
    node = build_node(
        parse(
            {
                "node": {"host": "127.0.0.1", "port": free_port()},
                "web": {"port": free_port()},
                "spool": {"path": str(tmp_path / "spool"), "verify_after_s": verify_after_s},
                "audit": {"folder": str(tmp_path / "audit")},
                "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"},
                "destinations": {"pacs": {"type": "dicom", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}},
            }
        )
    )
    try:
        key = node.spool.put(b"bytes")
        (step,) = (worker.lane.step for worker in node.workers[:1])
        mark = step._received_as(key)  # type: ignore[attr-defined]
        assert (mark == mark_of(node.spool.path(key).stat())) is known
    finally:
        node.stop()
