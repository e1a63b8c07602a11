"""A SQLite ledger on a network file system is refused; which one a folder lies on is read from the list of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.errors import ConfigError
from router.ledger import engine
from router.ledger.mounts import network_file_system
from router.ledger.store import SqlLedger

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/export /srv/nfs nfs4 rw,vers=4.2 0 0
//server/share /srv/with\\040space cifs rw 0 0
/dev/sdb1 /srv/nfs/local xfs rw 0 0
server:/old /data nfs rw 0 0
/dev/sdc1 /data ext4 rw 0 0
user@host:/x /srv/ssh fuse.sshfs rw 0 0
/dev/fuse /srv/ntfs fuseblk rw 0 0
half a line
"""


@pytest.mark.parametrize(
    ("path", "system"),
    [
        ("/var/ledger.db", None),
        ("/srv/nfs/ledger.db", "nfs4"),
        ("/srv/nfs/deep/er/ledger.db", "nfs4"),
        ("/srv/nfs/../nfs/ledger.db", "nfs4"),
        ("/srv/nfsx/ledger.db", None),
        ("/srv/with space/ledger.db", "cifs"),
        ("/srv/nfs/local/ledger.db", None),
        ("/data/ledger.db", None),
        ("/srv/ssh/ledger.db", "fuse.sshfs"),
        ("/srv/ntfs/ledger.db", None),
    ],
)
def test_the_mount_that_is_nearest_decides(path: str, system: str | None) -> None:
    assert network_file_system(Path(path), mounts=MOUNTS) == system


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    mounts = f"{MOUNTS}server:/x {tmp_path}/there nfs rw 0 0\n"
    assert network_file_system(tmp_path / "here" / "ledger.db", mounts=mounts) == "nfs"


def test_the_mounts_of_this_machine_can_be_read(tmp_path: Path) -> None:
    assert network_file_system(tmp_path / "ledger.db") is None


def test_such_a_ledger_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "network_file_system", lambda path: "nfs4")
    with pytest.raises(ConfigError, match=r"network file system \(nfs4\).*postgresql"):
        SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    assert list(tmp_path.iterdir()) == []
