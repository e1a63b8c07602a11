"""Every folder here is a configuration that must be refused, with exactly the lines of its expected.txt."""

from __future__ import annotations

from pathlib import Path

import pytest

from router import settings
from router.errors import ConfigError
from tests.peers import ROOT

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/expected.txt"))


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_a_broken_configuration_is_refused_with_every_problem_in_it(folder: Path) -> None:
    path = folder / "router.toml"
    with pytest.raises(ConfigError) as refused:
        settings.load(path)
    expected = (folder / "expected.txt").read_text().replace("{path}", str(path)).splitlines()
    assert list(refused.value.problems) == expected
    assert str(refused.value).splitlines() == expected


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 14


@pytest.mark.parametrize("name", ["router.toml", "compose.toml"])
def test_a_configuration_that_we_ship_loads(name: str) -> None:
    settings.load(ROOT / "config" / name)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "router.toml"
    path.write_bytes(b"\xff\xfe[node]")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        settings.load(path)


def test_a_password_in_the_ledger_url_is_not_repeated_in_the_problem() -> None:
    with pytest.raises(ConfigError) as refused:
        settings.parse({"ledger": {"url": "postgresql://router:hush@db/router"}})
    assert "hush" not in str(refused.value)
