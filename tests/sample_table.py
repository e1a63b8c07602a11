"""docs/samples.md: every DICOM file of the shared folder, and what the router makes of it.

    python -m tests.sample_table

writes the page again. A column is a heading and a function of a Sample; add one to COLUMNS and run it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread

from router.classify.demo import SIDE
from router.classify.frontal import frontal_chest
from router.classify.pixels import to_input
from router.errors import RouterError
from router.offline import classify_files
from tests.peers import ROOT
from tests.samples import SHARED, shared_dicom

PAGE = ROOT / "docs/samples.md"
HEAD = """# Every sample, and what becomes of it

Each DICOM file of the shared folder (real radiographs, re-encoded ones, and what is no chest), classified by `router classify` with the demonstration
classifier; all of them are delivered as they came. «Gate» is what the [picture check](gate.md) measures, 0 to 1; where the header has refused the image already, the
picture was measured all the same where its pixels make a picture. Written by `python -m tests.sample_table`; `tests/classify/test_samples.py` compares.
"""


@dataclass(frozen=True)
class Sample:
    """One file and what `router classify --json` says of it."""

    path: Path
    outcome: dict[str, Any]

    @property
    def not_analysed(self) -> dict[str, str] | None:
        """Code and reason."""
        found: dict[str, str] | None = self.outcome.get("not_analysed")
        return found


def file(sample: Sample) -> str:
    """Relative to the shared folder of DICOM files."""
    return f"`{sample.path.relative_to(SHARED / 'dicom').as_posix()}`"


def classified(sample: Sample) -> str:
    """Or the coded reason."""
    return f"no: `{sample.not_analysed['code']}`" if sample.not_analysed else "yes"


def reason(sample: Sample) -> str:
    """In words; what differs from picture to picture by rounding is left out."""
    words = sample.not_analysed["reason"] if sample.not_analysed else ""
    words = words.replace(f"{sample.path}: ", "").replace(f"{sample.path.name}: ", "")
    return re.sub(r"\(0\.\d\d of 1; ", "(", words).replace("|", "/")


def gate(sample: Sample) -> str:
    """The value of the picture check: as noted, else measured for this table."""
    notes = sample.outcome.get("prediction", {}).get("notes", ())
    for note in notes:
        if found := re.search(r"radiograph: (\d\.\d\d) of 1", note):
            return found[1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return f"{frontal_chest(to_input(dcmread(sample.path, force=True), SIDE)):.2f}"
    except RouterError:
        return ""


COLUMNS: dict[str, Callable[[Sample], str]] = {"file": file, "classified": classified, "gate": gate, "reason": reason}


def table(paths: Sequence[Path]) -> list[list[str]]:
    """A row for each file, a cell for each of COLUMNS."""
    outcomes = classify_files(None, paths, classifier=None)
    samples = [Sample(path, outcome) for path, outcome in zip(paths, outcomes, strict=True)]
    return [[column(sample) for column in COLUMNS.values()] for sample in samples]


def read(page: str) -> list[list[str]]:
    """The rows that a page has."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in page.splitlines() if line[:3] == "| `"
    ]
    return [row for row in rows if len(row) == len(COLUMNS)]


def written(rows: Sequence[Sequence[str]]) -> str:
    """The page."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
    return HEAD + "\n" + "".join(f"| {' | '.join(line)} |\n".replace("  |", " |") for line in lines)


if __name__ == "__main__":
    PAGE.write_text(written(table(shared_dicom())), encoding="utf-8")
