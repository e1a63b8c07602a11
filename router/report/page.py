"""One page of paper about one image: the picture, every finding with its score and threshold, and who says so.

Text is text, so that it can be searched and read aloud. No name, number or date of a patient is on it: the viewer knows them.
"""

from __future__ import annotations

import textwrap
from io import BytesIO
from typing import Any

from reportlab.lib.colors import Color, black, grey
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from router.core.findings import Finding, Prediction
from router.core.sight import Sight
from router.report.attachment import named, scored
from router.report.codes import ascii_text
from router.report.document import DEMONSTRATION
from router.report.picture import WARNING, jpeg, radiograph

_WIDTH, _HEIGHT = A4
_MARGIN = 16 * mm
_PICTURE_HEIGHT = 128 * mm
_TEXT_SIZE, _ROW = 8.5, 4.3 * mm
_ROWS_MAX = 20
_CHARACTERS = 150
_RED = Color(0.75, 0.05, 0.05)
_COLUMNS = (0, 78 * mm, 104 * mm, 130 * mm)
_EXPLAINED = (
    "Colour: where the score of the strongest finding comes from, in {} x {} cells; line: half of its strongest place. "
    "Neither is the outline of a disease. A score is no probability of disease: a score at its threshold is at the "
    "classifier's operating point."
)
_HATCHED = "Hatched: outside the square that the classifier saw."


def page(sight: Sight, prediction: Prediction) -> bytes:
    """A PDF file. The same arguments give the same bytes: no date, no random identifier."""
    stream = BytesIO()
    canvas = Canvas(stream, pagesize=A4, invariant=1, pageCompression=1)
    canvas.setTitle("AI result, not for diagnostic use")
    canvas.setAuthor("dicom-ai-router")
    canvas.setSubject(ascii_text(prediction.classifier.algorithm, 128))
    y = _headline(canvas, prediction)
    y = _picture(canvas, sight, y)
    y = _table(canvas, sight, prediction, y)
    _small_print(canvas, sight, prediction, y)
    canvas.showPage()
    canvas.save()
    return stream.getvalue()


def _headline(canvas: Any, prediction: Prediction) -> float:
    y = _HEIGHT - _MARGIN
    canvas.setFillColor(_RED)
    canvas.setFont("Helvetica-Bold", 15)
    canvas.drawString(_MARGIN, y, WARNING)
    if prediction.classifier.demonstration:
        y -= 6 * mm
        canvas.setFont("Helvetica-Bold", 9)
        canvas.drawString(_MARGIN, y, DEMONSTRATION)
    return float(y - 5 * mm)


def _picture(canvas: Any, sight: Sight, y: float) -> float:
    pixels = radiograph(sight)
    height, width, _ = pixels.shape
    scale = min((_WIDTH - 2 * _MARGIN) / width, _PICTURE_HEIGHT / height)
    left, bottom = (_WIDTH - width * scale) / 2, y - height * scale
    canvas.drawImage(ImageReader(BytesIO(jpeg(pixels))), left, bottom, width=width * scale, height=height * scale)
    return float(bottom - 7 * mm)


def _table(canvas: Any, sight: Sight, prediction: Prediction, y: float) -> float:
    findings = sorted(prediction.findings, key=lambda finding: (-finding.score, finding.label))
    numbers = {heat.finding.label: str(number) for number, heat in enumerate(sight.heats, 1)}
    y = _row(canvas, y, ("Finding", "Score", "Threshold", ""), bold=True)
    for finding in findings[:_ROWS_MAX]:
        y = _row(canvas, y, _cells(finding, numbers.get(finding.label, "")), bold=finding.present)
    if len(findings) > _ROWS_MAX:
        y = _row(
            canvas, y, (f"and {len(findings) - _ROWS_MAX} more below their thresholds or in the report", "", "", "")
        )
    return float(y - 2 * mm)


def _cells(finding: Finding, number: str) -> tuple[str, str, str, str]:
    name = f"{named(finding.label)} ({number} in the picture)" if number else named(finding.label)
    return name, scored(finding), f"{finding.threshold:.2f}", "at or above" if finding.present else "below"


def _row(canvas: Any, y: float, cells: tuple[str, ...], *, bold: bool = False) -> float:
    canvas.setFillColor(black)
    canvas.setFont("Helvetica-Bold" if bold else "Helvetica", _TEXT_SIZE)
    for at, cell in zip(_COLUMNS, cells, strict=True):
        canvas.drawString(_MARGIN + at, y, cell)
    return float(y - _ROW)


def _small_print(canvas: Any, sight: Sight, prediction: Prediction, y: float) -> None:
    classifier = prediction.classifier
    paragraphs = [_EXPLAINED.format(*sight.heats[0].cells)] if sight.heats else []
    if sight.rows != sight.columns:
        paragraphs.append(_HATCHED)
    if prediction.not_trained:
        paragraphs.append(f"Not trained, therefore not reported: {', '.join(map(named, prediction.not_trained))}.")
    paragraphs.append(
        f"Classifier: {classifier.algorithm}; version: {classifier.version}; by {classifier.manufacturer}; "
        f"weights SHA-256 {classifier.weights_sha256}"
    )
    canvas.setFillColor(grey)
    canvas.setFont("Helvetica", 7)
    for paragraph in paragraphs:
        for line in textwrap.wrap(ascii_text(paragraph, 1024), _CHARACTERS):
            canvas.drawString(_MARGIN, y, line)
            y -= 3.2 * mm
