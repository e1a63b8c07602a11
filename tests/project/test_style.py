"""Style, types and import contracts are part of the tests: `make test` finds what `make check` would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import ROOT


def run(*command: str) -> str:
    """Runs a tool of this environment in the project; its output when it complains, else nothing."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    assert run(sys.executable, "-m", "ruff", "check", "--no-cache", ".") == ""


def test_code_is_laid_out_by_ruff() -> None:
    assert run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".") == ""


def test_types_hold() -> None:
    assert run(sys.executable, "-m", "mypy") == ""


def test_imports_point_down() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    assert run(str(lint), "--no-cache") == ""


@pytest.mark.peer("shellcheck")
def test_shell_scripts_are_clean(tool: object) -> None:
    scripts = [".ci/run", *(str(p.relative_to(ROOT)) for p in (ROOT / "scripts").glob("*.sh"))]
    assert run("shellcheck", *scripts) == ""


@pytest.mark.parametrize("module", ["router.cli", "router.settings", "router.registry", "router.core.ports"])
def test_what_every_command_loads_brings_neither_network_nor_torch_in(module: str) -> None:
    """Importing torch costs seconds and most of a gigabyte, and in the lean installation it is not there."""
    heavy = ("torch", "torchxrayvision", "highdicom", "pynetdicom", "matplotlib", "skimage", "pandas")
    code = f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_whole_node_is_imported_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchxrayvision'] = None\n"
        "import router.node, router.cli\n"
        "from router import registry\n"
        "[registry.load(group, name) for group in registry.GROUPS for name in registry.available(group)]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
