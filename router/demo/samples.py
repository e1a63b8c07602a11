"""What the demo sends: drawn chest phantoms, and real images from the packages pydicom and pydicom-data when they are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: Files of pydicom's own distribution or of the package pydicom-data. RG1: a real chest radiograph (PA, CR, MONOCHROME1)
#: of NEMA's compressed samples, in different transfer syntaxes; the others show that what is no chest radiograph passes.
_REAL: tuple[tuple[str, str], ...] = (
    ("RG1_UNCR.dcm", "real chest radiograph, uncompressed"),
    ("RG1_J2KR.dcm", "real chest radiograph, JPEG 2000 lossless"),
    ("RG3_UNCR.dcm", "real radiograph of an ankle"),
    ("CT_small.dcm", "real CT slice"),
    ("MR_small.dcm", "real MR slice"),
)

#: Seed, rows, columns, photometric interpretation, findings drawn into it (of the phantom's LABELS).
_DRAWN: tuple[tuple[int, int, int, Literal["MONOCHROME1", "MONOCHROME2"], frozenset[str]], ...] = (
    (101, 1024, 1024, "MONOCHROME2", frozenset()),
    (102, 1024, 900, "MONOCHROME1", frozenset({"Effusion"})),
    (103, 1200, 1024, "MONOCHROME2", frozenset({"Pneumothorax"})),
    (104, 1024, 1024, "MONOCHROME2", frozenset({"Cardiomegaly"})),
    (105, 900, 1024, "MONOCHROME1", frozenset({"Nodule"})),
    (106, 1024, 1024, "MONOCHROME2", frozenset({"Effusion", "Cardiomegaly"})),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One file to send and what it is."""

    path: Path
    title: str


def draw(folder: Path) -> list[Sample]:
    """Draws the phantoms into `folder` and adds the real images that are installed, phantoms first."""
    from router.classify.phantom import LABELS, phantom_dicom

    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for seed, rows, columns, photometric, shown in _DRAWN:
        path = folder / f"phantom-{seed}.dcm"
        findings = [label in shown for label in LABELS]
        dataset = phantom_dicom(seed, rows=rows, columns=columns, photometric=photometric, findings=findings)
        dataset.save_as(path, enforce_file_format=True)
        samples.append(Sample(path=path, title=f"drawing: {', '.join(sorted(shown)).lower() or 'nothing abnormal'}"))
    return samples + [Sample(path=path, title=title) for path, title in _real()]


def _real() -> list[tuple[Path, str]]:
    from pydicom.data import get_testdata_file

    found = []
    for name, title in _REAL:
        path = get_testdata_file(name, download=False)
        if path is not None and Path(path).exists():
            found.append((Path(path), title))
    return found
