"""A backup taken as docs/operating/backup.md says, from a node at work, and another node started from it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from router.classify.phantom import phantom_dicom
from tests.docs.here import PORTS, forwarding, serves, translate
from tests.docs.reader import Line, Reader, clone, command_lines
from tests.peers import ROOT, StoreScp, dcmsend, success_count, wait_until
from tests.samples import dataset_bytes

PAGE = "docs/operating/backup.md"
SERVE = "router serve"
ADD = "router user add anna --role operator"
ACTIVATE = Line(page="docs/quickstart.md", text=". .venv/bin/activate")
PORT = PORTS["11112"]
pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.timeout(600)]


def images(folder: Path, count: int) -> list[tuple[str, Path]]:
    """SOP Instance UIDs and files."""
    found = []
    for seed in range(count):
        ds = phantom_dicom(seed, rows=256, columns=256)
        ds.save_as(folder / f"{seed}.dcm", enforce_file_format=True)
        found.append((str(ds.SOPInstanceUID), folder / f"{seed}.dcm"))
    return found


def lines(*, below: str) -> list[Line]:
    """The command lines of the page below a heading, up to the next one."""
    text = (ROOT / PAGE).read_text(encoding="utf-8").split(f"## {below}\n")[1].split("\n## ")[0]
    return [line for line in command_lines(PAGE) if f"$ {line.text}\n" in text]


def typed(reader: Reader, *commands: Line) -> None:
    """Types them; each must end well."""
    for line in commands:
        done = reader.type(line)
        assert done.code == 0, f"$ {line.text}\n{done.printed}"


def archive(folder: Path) -> StoreScp:
    """The destination of config/router.toml."""
    return StoreScp(folder=folder, ae_title="ORTHANC", port=PORTS["4242"])


def test_nothing_acknowledged_before_a_backup_is_lost_and_work_goes_on(tmp_path: Path) -> None:
    delivered, first, second, late, new = images(tmp_path, 5)
    clone(tmp_path / "old", copied={"config/router.toml": forwarding})
    answers = {ADD: "correct horse battery\n" * 2}
    with Reader(folder=tmp_path / "old", answers=answers, stays={SERVE: serves}) as reader:
        typed(reader, ACTIVATE, Line(page=PAGE, text=ADD), Line(page=PAGE, text=SERVE))
        with archive(tmp_path / "before") as before:
            assert success_count(dcmsend(PORT, delivered[1])) == 1
            reader.settle()
            assert list(before.received()) == [delivered[0]]
        assert success_count(dcmsend(PORT, first[1], second[1])) == 2
        typed(reader, *lines(below="Taking it, while the node runs"))
        assert success_count(dcmsend(PORT, late[1])) == 1, "the node goes on"
        reader.end(SERVE, signal.SIGKILL)
    lost = tmp_path / "lost"
    (tmp_path / "old").rename(lost)
    assert {path.stat().st_mode & 0o077 for path in (lost / "backup").rglob("*.db")} == {0}, "for this user only"

    clone(tmp_path / "new", copied={})
    where = {"/path/to/backup": str(lost / "backup"), "/path/to/old": str(lost / "var")}

    def here(text: str) -> str:
        for there, path in where.items():
            text = text.replace(there, path)
        return translate(text)

    *restore, by_hand = lines(below="Restoring it")
    with (
        archive(tmp_path / "after") as after,
        Reader(folder=tmp_path / "new", translate=here, stays={SERVE: serves}) as reader,
    ):
        typed(reader, ACTIVATE, *restore)
        assert "ok\n" in [reader.type(line).printed for line in restore], "the ledger's integrity check"
        reader.settle()
        received = after.received()
        for uid, path in (first, second):
            assert dataset_bytes(received[uid]) == dataset_bytes(path), "acknowledged before the backup"
        assert len(received) == 2, "what was delivered is not delivered again"
        assert "anna" in reader.type(Line(page=PAGE, text="router user list")).printed
        assert success_count(dcmsend(PORT, new[1])) == 1
        reader.settle()
        assert dataset_bytes(after.received()[new[0]]) == dataset_bytes(new[1]), "work goes on"
        assert late[0] not in after.received()
        typed(reader, by_hand)
        wait_until(lambda: late[0] in after.received(), 60, "the spool of the old disk, sent on by hand")
