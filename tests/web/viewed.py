"""A radiograph to look at, and a classifier's child that says where its findings come from without any network."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from router.classify.phantom import phantom_dicom
from router.core.findings import NotAnalysed, Outcome, Prediction
from router.core.instance import SopInstance
from router.core.ports import Analysis
from router.core.sight import Heat, Sight, Square
from router.report.layer import layers_of
from tests.samples import SHARED

#: With 15 bits, one that says its window.
REAL = SHARED / "dicom" / "chest" / "RG1_UNCR.dcm"
ROWS, COLUMNS = 640, 512


def a_radiograph() -> bytes:
    """A real one where the shared data are, or else a drawing."""
    if REAL.is_file():
        return REAL.read_bytes()
    stream = BytesIO()
    phantom_dicom(3, rows=1500, columns=1200, bits_stored=12).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


class Mapped:
    """`web.maps.Mapper`: the first three findings that are present, each in a corner of its own."""

    def __init__(self, outcome: Outcome, *, not_reported: str = "", error: Exception | None = None) -> None:
        self.ready = True
        self.asked = 0
        self._outcome = outcome
        self._not_reported = not_reported
        self._error = error

    def layers(self, classifier: str, instance: SopInstance, path: Path) -> Analysis:
        """See the class."""
        self.asked += 1
        if self._error is not None:
            raise self._error
        if isinstance(self._outcome, NotAnalysed) or self._not_reported:
            return Analysis(outcome=self._outcome, not_reported=self._not_reported)
        return Analysis(outcome=self._outcome, layers=layers_of(a_sight(self._outcome)))


def a_sight(prediction: Prediction) -> Sight:
    """As the child's: the outermost rows were not seen."""
    found = sorted((f for f in prediction.findings if f.present), key=lambda f: (-f.score, f.label))[:3]
    y, x = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
    heats = []
    for number, finding in enumerate(found):
        at = (150.0 + 200 * (number % 2), 200.0 + 200 * (number // 2))
        values = 3 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 9000) - 0.5
        heats.append(Heat(finding=finding, cells=(7, 7), hottest=at, values=values.astype(np.float32)))
    return Sight(
        rows=ROWS,
        columns=COLUMNS,
        grey=np.zeros((ROWS, COLUMNS), np.uint8),
        window=None,
        seen=Square(top=(ROWS - COLUMNS) // 2, left=0, side=COLUMNS),
        heats=tuple(heats),
    )
