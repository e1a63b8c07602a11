"""Audit messages are durable before anybody goes on, in files that are begun anew and forgotten in time."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.audit import events
from router.audit.folder import AuditFolder
from router.audit.message import Source
from router.audit.trail import AuditTrail, open_trail
from router.errors import ConfigError
from router.settings import AuditSettings

NODE = events.Node(ae_title="ROUTER", pid=1)


class Moment:
    now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
def folder(tmp_path: Path, moment: Moment) -> AuditFolder:
    made = AuditFolder(tmp_path / "audit", byte_count_max=1000, age_max_s=100, retention_s=1000, now_s=moment)
    made.prepare()
    return made


@pytest.fixture
def trail(folder: AuditFolder) -> Iterator[AuditTrail]:
    made = AuditTrail(folder, source=Source(source_id="ROUTER@test"))
    yield made
    made.close()


def lines(folder: AuditFolder) -> list[str]:
    return [line for path in folder.files() for line in path.read_text().splitlines()]


def message(name: str) -> events.AuditMessage:
    return events.signed_out(NODE, events.Person(name=name))


def test_record_returns_only_after_the_file_is_synced(
    trail: AuditTrail, folder: AuditFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[list[str]] = []
    real = os.fsync

    def sync(fd: int) -> None:
        real(fd)
        if stat.S_ISREG(os.fstat(fd).st_mode):  # the file and not its folder
            synced.append(lines(folder))

    monkeypatch.setattr("router.audit.folder.os.fsync", sync)
    trail.record(message("anna"))
    assert synced
    assert 'UserID="anna"' in synced[0][0]


def test_many_at_once_are_all_there_each_a_line_of_its_own(trail: AuditTrail, folder: AuditFolder) -> None:
    threads = [threading.Thread(target=trail.record, args=(message(f"u{n}"),)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = lines(folder)
    assert sorted(line.split('UserID="')[1].split('"')[0] for line in found) == sorted(f"u{n}" for n in range(40))
    assert all(line.startswith("<AuditMessage>") and line.endswith("</AuditMessage>") for line in found)


def test_what_cannot_be_written_is_told_to_whoever_asked_and_shown_until_it_can(
    trail: AuditTrail, folder: AuditFolder
) -> None:
    path = folder.path
    folder.path = path / "nowhere"
    with pytest.raises(OSError, match="No such file"):
        trail.record(message("anna"))
    assert trail.trouble == "No such file or directory"
    folder.path = path
    trail.record(message("otto"))
    assert trail.trouble == ""
    assert len(lines(folder)) == 1


def test_a_disk_that_fills_up_within_a_line_spoils_no_other_line(
    folder: AuditFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.append([b"<first/>"])
    real = os.write
    left = [4]

    def full(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        count, left[0] = left[0], 0
        return real(fd, data[:count])

    monkeypatch.setattr("router.audit.folder.os.write", full)
    with pytest.raises(OSError, match="No space"):
        folder.append([b"<second/>"])
    monkeypatch.setattr("router.audit.folder.os.write", real)
    folder.append([b"<third/>"])
    assert lines(folder) == ["<first/>", "<sec", "<third/>"]


def test_a_new_file_is_begun_when_one_is_large_or_old_and_old_ones_are_forgotten(
    folder: AuditFolder, moment: Moment
) -> None:
    folder.append([b"x" * 1100])
    moment.now += 1
    folder.append([b"y"])
    assert len(folder.files()) == 2, "large"
    moment.now += 99
    folder.append([b"z"])
    assert len(folder.files()) == 2
    moment.now += 2
    folder.append([b"a"])
    assert len(folder.files()) == 3, "old"
    for path in folder.files():
        os.utime(path, (moment.now, moment.now))
    moment.now += 1001
    folder.append([b"b"])
    assert lines(folder) == ["b"], "retention"


def test_a_clock_that_is_set_back_makes_no_file_for_each_message(folder: AuditFolder, moment: Moment) -> None:
    folder.append([b"a"])
    moment.now -= 86400
    folder.append([b"b"])
    assert lines(folder) == ["a", "b"]
    assert len(folder.files()) == 1


def test_two_processes_share_a_file(folder: AuditFolder, moment: Moment) -> None:
    other = AuditFolder(folder.path, byte_count_max=1000, age_max_s=100, retention_s=1000, now_s=moment)
    folder.append([b"a"])
    other.append([b"b"])
    folder.append([b"c"])
    assert lines(folder) == ["a", "b", "c"]
    assert len(folder.files()) == 1


def test_files_and_folder_are_for_their_owner_only(folder: AuditFolder) -> None:
    folder.append([b"a"])
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.files()[0].stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"audit\.folder"):
        open_trail(AuditSettings(folder=tmp_path / "file"), ae_title="ROUTER")


def test_certificates_that_are_none_are_a_problem_of_the_configuration(tmp_path: Path) -> None:
    settings = {"folder": str(tmp_path / "a"), "syslog": {"host": "localhost", "ca_file": str(tmp_path / "none.pem")}}
    with pytest.raises(ConfigError, match=r"audit\.syslog"):
        open_trail(AuditSettings.model_validate(settings), ae_title="ROUTER")
