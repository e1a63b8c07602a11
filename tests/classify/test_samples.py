"""Every DICOM file of the shared folder is classified, or not for the reason that docs/samples.md gives."""

from __future__ import annotations

from pathlib import Path

from tests import sample_table
from tests.samples import shared_dicom

GATE = list(sample_table.COLUMNS).index("gate")


def test_every_sample_is_classified_or_refused_as_the_page_says(shared_data: Path) -> None:
    said = sample_table.read(sample_table.PAGE.read_text(encoding="utf-8"))
    found = sample_table.read(sample_table.written(sample_table.table(shared_dicom())))
    values = [row.pop(GATE) for row in said], [row.pop(GATE) for row in found]
    assert found == said, "run  python -m tests.sample_table  and look at what has changed"
    for one, other in zip(*values, strict=True):
        assert bool(one) == bool(other)
        assert abs(float(one or 0) - float(other or 0)) <= 0.02, "rounding only"


def test_no_chest_radiograph_is_refused_and_nothing_else_is_classified() -> None:
    # Three headers without pixels, and a file without the File Meta Information that this command wants.
    unfinished = ("chest/chr", "chest/FUJI")
    for row in sample_table.read(sample_table.PAGE.read_text(encoding="utf-8")):
        name, classified = row[0].strip("`"), row[1]
        chest = name.startswith("chest") and "DOG" not in name and not name.startswith(unfinished)
        assert (classified == "yes") == chest, name
