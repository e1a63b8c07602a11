"""House rules that no linter knows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.project import tree

LINES_MAX = 500
#: Longer ones, each with its reason.
LONG: dict[str, str] = {
    "tests/contract/test_ledger.py": "the exam of every ledger reads as one page",
    "tests/edge/test_store.py": "the table of everything that can be wrong with a C-STORE",
}

#: Assembled here, so that this file is not the one that names them.
_REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("npmjs", "org"),
        ("anaconda", "org"),
        ("deb", "debian", "org"),
    )
]
_LEFTOVERS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
_MACHINE_PATHS = re.compile(r"(?<![\w.~/-])/(home|root|Users|work|mnt)/\w")


def lines(*suffixes: str) -> Iterator[tuple[str, str]]:
    """(where, line) of every text file of the project."""
    for path in tree.files(*suffixes):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            yield f"{tree.name(path)}:{number}", line


def test_the_rules_below_look_at_every_part_of_the_project() -> None:
    names = {tree.name(path) for path in tree.files()}
    assert {"Makefile", "Dockerfile", "orthanc.json", ".ci/run", "router/core/rules.py", "tests/peers.py"} <= names
    assert not any(name.startswith((".venv", "var/", "demo-output")) for name in names)


def test_files_stay_short_enough_to_read() -> None:
    counts = {tree.name(p): len(p.read_text(encoding="utf-8").splitlines()) for p in tree.files(".py")}
    assert {name: count for name, count in counts.items() if count > LINES_MAX and name not in LONG} == {}
    assert [name for name in LONG if counts.get(name, 0) <= LINES_MAX] == [], "take them off the list"


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "manager", "types", "models", "misc", "base"}
    assert [tree.name(p) for p in tree.files(".py") if p.stem in empty or p.parent.name in empty] == []


def test_nothing_is_left_for_later_in_the_code() -> None:
    assert [where for where, line in lines(".py", ".sh", ".toml", ".yml", "") if _LEFTOVERS.search(line)] == []


def test_no_line_depends_on_a_path_of_one_machine() -> None:
    assert [where for where, line in lines() if _MACHINE_PATHS.search(line)] == []


@pytest.mark.parametrize("host", _REGISTRY_HOSTS)
def test_no_package_registry_is_named(host: str) -> None:
    """Where packages come from is the installer's business; hospitals have mirrors."""
    assert [where for where, line in lines() if host in line.lower()] == []


def test_every_module_says_in_its_first_line_what_it_is_for() -> None:
    silent = [
        p for p in tree.files(".py") if p.read_text(encoding="utf-8") and not _starts_with_docstring(p.read_text())
    ]
    assert [tree.name(p) for p in silent] == []


def _starts_with_docstring(text: str) -> bool:
    return text.lstrip().startswith(('"""', 'r"""', "#!"))


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (_LEFTOVERS, "# TO" + "DO later"),
        (_LEFTOVERS, "x = 1  # FIX" + "ME"),
        (_MACHINE_PATHS, 'open("/ho' + 'me/me/x")'),
        (_MACHINE_PATHS, "cd /wo" + "rk/main"),
    ],
)
def test_the_patterns_above_find_what_they_are_for(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(line)


@pytest.mark.parametrize(
    "line", ["router/work/worker.py", "https://host/work/x", "../shared/data", "todo_list", "/var/lib/router"]
)
def test_and_nothing_else(line: str) -> None:
    assert not _LEFTOVERS.search(line)
    assert not _MACHINE_PATHS.search(line)


def test_what_begins_like_a_program_can_be_run() -> None:
    """make runs them by name; an editor that writes a file anew may take the permission away."""
    begins = [path for path in tree.files() if path.is_file() and path.read_bytes()[:2] == b"#!"]
    assert len(begins) >= 3
    assert [tree.name(path) for path in begins if not path.stat().st_mode & 0o100] == []
