"""The project's own files, as tests about the project see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.peers import ROOT

_TOP = ("router", "tests", "bench", "docs", "scripts", "config", "requirements", ".ci")
_TEXT = {".py", ".md", ".toml", ".txt", ".sh", ".json", ".yml", ".html", ".css", ".js", ""}


def files(*suffixes: str, under: str = "") -> Iterator[Path]:
    """Text files of the project, `suffixes` only when any are given; not what builds, caches and demos leave behind."""
    tops = [ROOT / under] if under else [*(ROOT / top for top in _TOP), *ROOT.iterdir()]
    for top in tops:
        candidates = [top] if top.is_file() else sorted(top.rglob("*")) if top.name in _TOP or under else []
        for path in candidates:
            if path.is_file() and "__pycache__" not in path.parts and path.suffix in (suffixes or _TEXT):
                yield path


def name(path: Path) -> str:
    """As seen from the top of the project."""
    return str(path.relative_to(ROOT))


def read(relative: str) -> str:
    """Text of one file."""
    return (ROOT / relative).read_text(encoding="utf-8")
