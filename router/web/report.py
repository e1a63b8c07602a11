"""A Structured Report of ours as lines of text: its content tree, indented. No pixels; bounded in size and depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BYTE_COUNT_MAX = 4 * 2**20


class UnreadableReport(Exception):
    """It cannot be shown; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One content item (PS3.3 C.17.3)."""

    depth: int
    name: str
    """Its concept."""
    value: str


@contextmanager
def open_report(path: Path) -> Iterator[Any]:
    """The data set, for as long as it is read. Raises UnreadableReport, also for what its elements raise meanwhile."""
    import pydicom

    try:
        if path.stat().st_size > _BYTE_COUNT_MAX:
            raise UnreadableReport("It is too large to be shown here.")
        yield pydicom.dcmread(path)
    except UnreadableReport:
        raise
    except Exception as error:  # pydicom raises whatever its parts raise
        raise UnreadableReport(f"It cannot be read ({type(error).__name__}).") from error


#: Value type -> the attribute that holds the value.
PLAIN = {
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "PNAME": "PersonName",
    "DATETIME": "DateTime",
    "DATE": "Date",
    "TIME": "Time",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingLine:
    """One measurement group (TID 1411) in a line."""

    label: str
    """As the classifier's authors call it."""
    finding: str
    """The coded concept."""
    site: str
    certainty: str
    verdict: str
    """Present or absent, in the words of the document."""
    threshold: str


def findings_of(lines: Sequence[Line]) -> Sequence[FindingLine]:
    """The measurement groups of a document."""
    found: list[FindingLine] = []
    groups: list[list[Line]] = []
    for line in lines:
        if line.name == "Measurement Group":
            groups.append([line])
        elif groups and line.depth > groups[-1][0].depth:
            groups[-1].append(line)
    for group in groups:
        values = {line.name: line.value for line in group}
        finding = values.get("Finding", "")
        if finding:
            parameters = [line.value for line in group if line.name == "Algorithm Parameters"]
            found.append(
                FindingLine(
                    label=values.get("Tracking Identifier", finding),
                    finding=finding,
                    site=values.get("Finding Site", ""),
                    certainty=values.get("Certainty of Finding", ""),
                    verdict=values.get(finding, ""),
                    threshold=next((p.partition("=")[2] for p in parameters if p.startswith("threshold=")), ""),
                )
            )
    return found
