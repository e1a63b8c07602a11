"""Before a SQLite ledger is upgraded it is copied beside itself, so that there is a way back."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.ledger import keepsake
from router.ledger.keepsake import keepsake_path
from router.ledger.store import SqlLedger
from tests.ledger import version_1


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_the_copy_is_the_ledger_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    version_1.make(f"sqlite:///{path}")
    before = dump(path)
    SqlLedger(f"sqlite:///{path}").close()
    copy = keepsake_path(path, 1)
    assert dump(copy) == before
    assert dump(path) != before
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600, "patient data"


def test_what_is_still_in_the_write_ahead_log_is_in_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    version_1.make(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as open_elsewhere:
        open_elsewhere.execute("PRAGMA journal_mode=WAL")
        open_elsewhere.execute("UPDATE task SET error = 'written last'")
        open_elsewhere.commit()
        assert Path(f"{path}-wal").stat().st_size
        SqlLedger(f"sqlite:///{path}").close()
    assert any("written last" in line for line in dump(keepsake_path(path, 1)))


def test_without_an_upgrade_nothing_is_copied(tmp_path: Path) -> None:
    for _ in range(2):
        SqlLedger(f"sqlite:///{tmp_path}/ledger.db").close()
    assert not list(tmp_path.glob("*.version-*"))


def test_a_copy_of_an_earlier_attempt_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    version_1.make(f"sqlite:///{path}")
    before = dump(path)
    keepsake_path(path, 1).write_text("old")
    keepsake_path(path, 1).with_name("ledger.db.version-1.part").write_text("half")
    SqlLedger(f"sqlite:///{path}").close()
    assert dump(keepsake_path(path, 1)) == before
    assert not list(tmp_path.glob("*.part"))


def test_a_ledger_that_cannot_be_copied_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.db"
    version_1.make(f"sqlite:///{path}")
    before = dump(path)

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keepsake, "_sync", full)
    with pytest.raises(ConfigError, match=r"cannot be copied.*No space left"):
        SqlLedger(f"sqlite:///{path}")
    assert dump(path) == before
    assert not list(tmp_path.glob("*.version-*")), "nothing half-made"
