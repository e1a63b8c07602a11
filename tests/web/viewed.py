"""A radiograph to look at, and a classifier's child that says where its findings come from without any network."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from router.classify.phantom import phantom_dicom
from router.core.findings import NotAnalysed, Outcome
from router.core.instance import SopInstance
from router.core.ports import Analysis
from router.report.layer import layers_of
from tests.report.seen import sight
from tests.samples import SHARED

#: With 15 bits, one that says its window.
REAL = SHARED / "dicom" / "chest" / "RG1_UNCR.dcm"


def a_radiograph() -> bytes:
    """A real one where the shared data are, or else a drawing."""
    if REAL.is_file():
        return REAL.read_bytes()
    stream = BytesIO()
    phantom_dicom(3, rows=1500, columns=1200, bits_stored=12).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


class Mapped:
    """`web.maps.Mapper`: the first three findings that are present, side by side."""

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
        return Analysis(outcome=self._outcome, layers=layers_of(sight(self._outcome)))
