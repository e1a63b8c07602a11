"""The same as graphics over the original: a Grayscale Softcopy Presentation State, which a viewer can switch on and off.

2 kB; the original's pixels stay where they are. A presentation state replaces how the image is shown, so it says the window
and polarity, too. Sources: PS3.3 A.33.1, C.11.9 to C.11.11, C.10.4 to C.10.7 (areas, graphics, layers), C.11.6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from router.core.findings import Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.ports import ResultObject
from router.core.sight import Sight, Window
from router.errors import NotReportable
from router.report.attachment import Sort, attachment, finished, named, present, referenced, scored
from router.report.codes import ascii_text
from router.report.document import NOT_FOR_DIAGNOSIS
from router.report.elements import element, item, sequence, text
from router.settings import Table

SORT = Sort(
    kind=InstanceKind.GSPS,
    sop_class_uid=str(GrayscaleSoftcopyPresentationStateStorage),
    modality="PR",
    series_number=9903,
    title="AI outlines",
    deed="Classified the image and said where its findings come from",
)
LAYER = "AI"
WARNING = "AI RESULT - NOT FOR DIAGNOSTIC USE"
DEMONSTRATION = "DEMONSTRATION, trained on drawings"
#: Lines of text on an image that somebody wants to look at.
_LISTED_MAX = 5
#: Height of a line, as a part of the displayed area.
_LINE = 0.035
_POINTS_MAX = 200


class GspsBuilder:
    """Result builder «gsps» (entry point router.results): one presentation state for an image with a finding."""

    class Settings(Table):
        """Nothing to set."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def illustrate(
        self, source: Any, instance: SopInstance, prediction: Prediction, sight: Callable[[], Sight]
    ) -> ResultObject | None:
        """The presentation state as a DICOM file, explicit VR little endian; None when no finding is present.

        Raises NotReportable when the image cannot be referred to, or when how it is shown cannot be said in a window.
        """
        begun = attachment(SORT, source, instance, prediction)
        if not present(prediction):
            return None
        seen = sight()
        if seen.window is None:
            raise NotReportable("the image has a Modality LUT of its own: a presentation state would show it wrongly")
        image = referenced(begun.image)
        series = item(
            sequence("ReferencedImageSequence", image), text("SeriesInstanceUID", begun.image.series_instance_uid)
        )
        created = {
            "PresentationCreationDate": begun.elements["ContentDate"][8:],
            "PresentationCreationTime": begun.elements["ContentTime"][8:],
        }
        elements = {keyword: element(keyword, value) for keyword, value in created.items()}
        texts = {
            "ContentLabel": "AI_RESULT",
            "ContentDescription": ascii_text(f"AI outlines, {NOT_FOR_DIAGNOSIS}", 64),
            "ContentCreatorName": "",
            "BodyPartExamined": "CHEST",
            "PresentationLUTShape": "INVERSE" if seen.window.inverted else "IDENTITY",
        }
        elements |= {keyword: text(keyword, value) for keyword, value in texts.items()}
        sequences = {
            "ReferencedSeriesSequence": series,
            "DisplayedAreaSelectionSequence": _whole_image(seen),
            "GraphicLayerSequence": item(text("GraphicLayer", LAYER), text("GraphicLayerOrder", "1")),
            "GraphicAnnotationSequence": _annotation(seen, prediction),
            "SoftcopyVOILUTSequence": _window(seen.window),
        }
        elements |= {keyword: sequence(keyword, value) for keyword, value in sequences.items()}
        if (seen.window.slope, seen.window.intercept) != (1, 0):
            elements["RescaleIntercept"] = text("RescaleIntercept", _decimal(seen.window.intercept))
            elements["RescaleSlope"] = text("RescaleSlope", _decimal(seen.window.slope))
            elements["RescaleType"] = text("RescaleType", "US")
        return finished(begun, elements, without=("ContentDate", "ContentTime", "ContentQualification"))


def _whole_image(sight: Sight) -> bytes:
    return item(
        element("DisplayedAreaTopLeftHandCorner", struct.pack("<2l", 1, 1)),
        element("DisplayedAreaBottomRightHandCorner", struct.pack("<2l", sight.columns, sight.rows)),
        text("PresentationSizeMode", "SCALE TO FIT"),
        text("PresentationPixelAspectRatio", "1", "1"),
    )


def _window(window: Window) -> bytes:
    return item(
        text("WindowCenter", _decimal(window.centre)),
        text("WindowWidth", _decimal(window.width)),
        text("VOILUTFunction", window.function),
    )


def _annotation(sight: Sight, prediction: Prediction) -> bytes:
    return item(
        text("GraphicLayer", LAYER),
        sequence("TextObjectSequence", _box(_lines(prediction)), *_labels(sight)),
        sequence("GraphicObjectSequence", *graphics) if (graphics := [*_outlines(sight), *_edge(sight)]) else b"",
    )


def _lines(prediction: Prediction) -> list[str]:
    found = present(prediction)
    lines = [WARNING, *([DEMONSTRATION] if prediction.classifier.demonstration else [])]
    lines += [
        f"{number} {named(finding.label)} {scored(finding)} (threshold {finding.threshold:.2f})"
        for number, finding in enumerate(found[:_LISTED_MAX], 1)
    ]
    if len(found) > _LISTED_MAX:
        lines.append(f"and {len(found) - _LISTED_MAX} more: see the report")
    return [*lines, ascii_text(f"{prediction.classifier.algorithm}, {prediction.classifier.version}", 64)]


def _box(lines: Sequence[str]) -> bytes:
    """Text in a corner of the display, wherever the viewer has scrolled the image."""
    return item(
        text("BoundingBoxAnnotationUnits", "DISPLAY"),
        element("UnformattedTextValue", "\r\n".join(lines).encode("ascii")),
        element("BoundingBoxTopLeftHandCorner", struct.pack("<2f", 0.01, 0.01)),
        element("BoundingBoxBottomRightHandCorner", struct.pack("<2f", 0.7, 0.01 + _LINE * len(lines))),
        text("BoundingBoxTextHorizontalJustification", "LEFT"),
    )


def _labels(sight: Sight) -> Iterator[bytes]:
    """The number of each finding at its hottest place."""
    for number, heat in enumerate(sight.heats, 1):
        if heat.values.max() > 0:
            yield item(
                text("AnchorPointAnnotationUnits", "PIXEL"),
                element("UnformattedTextValue", str(number).encode()),
                element("AnchorPoint", _points([_in_image(sight, heat.hottest)])),
                text("AnchorPointVisibility", "N"),
            )


def _outlines(sight: Sight) -> Iterator[bytes]:
    from router.report.outline import outlines

    for heat in sight.heats:
        for polygon in outlines(heat.values):
            every = -(-len(polygon) // _POINTS_MAX)
            yield _polyline([_in_image(sight, point) for point in polygon[::every]])


def _edge(sight: Sight) -> Iterator[bytes]:
    """The square that the classifier saw, where that is not all of the image."""
    if sight.rows != sight.columns:
        left, top = float(sight.seen.left), float(sight.seen.top)
        right, bottom = left + sight.seen.side, top + sight.seen.side
        yield _polyline([(left, top), (right, top), (right, bottom), (left, bottom)])


def _polyline(points: Sequence[tuple[float, float]]) -> bytes:
    closed = [*points, points[0]]
    return item(
        text("GraphicAnnotationUnits", "PIXEL"),
        element("GraphicDimensions", struct.pack("<H", 2)),
        element("NumberOfGraphicPoints", struct.pack("<H", len(closed))),
        element("GraphicData", _points(closed)),
        text("GraphicType", "POLYLINE"),
        text("GraphicFilled", "N"),
    )


def _points(points: Sequence[tuple[float, float]]) -> bytes:
    """Columns and rows from the outer corner of the first pixel (PS3.3 C.10.5.1.2)."""
    return b"".join(struct.pack("<2f", *point) for point in points)


def _in_image(sight: Sight, point: tuple[float, float]) -> tuple[float, float]:
    height, width = sight.grey.shape
    return (
        min(max(point[0] * sight.columns / width, 0.0), float(sight.columns)),
        min(max(point[1] * sight.rows / height, 0.0), float(sight.rows)),
    )


def _decimal(value: float) -> str:
    """VR DS, at most 16 characters."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.9g}"
