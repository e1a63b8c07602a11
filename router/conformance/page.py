"""Markdown: headings, tables, names of UIDs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.uid import UID


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def section(level: int, title: str, *parts: str) -> str:
    """A heading and what stands under it, paragraphs apart."""
    return "\n\n".join((f"{'#' * level} {title}", *(part for part in parts if part)))


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def named(uid: str) -> str:
    """A UID's name in PS3.6, or that it has none there."""
    name = str(UID(uid).name)
    return name if name not in ("", uid) else "(retired; PS3.6 names it no more)"


def hexadecimal(status: int) -> str:
    """E.g. 0xA700."""
    return f"0x{status:04X}"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
