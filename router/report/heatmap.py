"""The radiograph with the map over it as a Secondary Capture, for images with a finding: every viewer shows it.

`docs/heatmap.md` shows pictures and says what they mean. Sources: PS3.3 A.8.1 (Secondary Capture Image IOD), C.7.6.1
(General Image), C.7.6.3 (Image Pixel), C.8.6.1 (SC Equipment); PS3.5 8.2.1, A.4.1 (JPEG in a DICOM file).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from router.core.findings import Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.ports import ResultObject
from router.core.sight import Sight
from router.report.attachment import SOURCE_IMAGE, Sort, attachment, finished, present, referenced
from router.report.codes import ascii_text
from router.report.document import NOT_FOR_DIAGNOSIS
from router.report.elements import element, sequence, text
from router.settings import Table

SORT = Sort(
    kind=InstanceKind.HEATMAP,
    sop_class_uid=str(SecondaryCaptureImageStorage),
    modality="OT",
    series_number=9902,
    title="AI heatmap",
    deed="Classified the image and said where its findings come from",
)
_PIXEL_DATA_OB = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"


class HeatmapBuilder:
    """Result builder «heatmap» (entry point router.results): one Secondary Capture for an image with a finding."""

    class Settings(Table):
        """Nothing to set."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or self.Settings()

    def illustrate(
        self, source: Any, instance: SopInstance, prediction: Prediction, sight: Callable[[], Sight]
    ) -> ResultObject | None:
        """The picture as a DICOM file, JPEG baseline; None when no finding is present. Raises NotReportable."""
        begun = attachment(SORT, source, instance, prediction)
        if not present(prediction):
            return None
        from router.report.picture import jpeg, picture

        pixels = picture(sight(), prediction)
        frame = jpeg(pixels)
        rows, columns, samples = pixels.shape
        classifier = prediction.classifier
        said = "demonstration without clinical meaning, " if classifier.demonstration else ""
        texts = {
            "ImageType": ("DERIVED", "SECONDARY", "OTHER"),
            "ConversionType": ("SYN",),
            # Of the body as a whole, so that Laterality is not asked for (PS3.3 C.7.3.1).
            "BodyPartExamined": ("CHEST",),
            "PatientOrientation": (),
            "BurnedInAnnotation": ("YES",),
            "RecognizableVisualFeatures": ("NO",),
            "LossyImageCompression": ("01",),
            "LossyImageCompressionRatio": (f"{rows * columns * samples / len(frame):.2f}",),
            "LossyImageCompressionMethod": ("ISO_10918_1",),
            "DerivationDescription": (
                ascii_text(f"Class activation map of {classifier.algorithm}, {said}{NOT_FOR_DIAGNOSIS}", 1024),
            ),
            "ImageComments": (f"AI RESULT - {NOT_FOR_DIAGNOSIS}",),
            "PhotometricInterpretation": ("YBR_FULL_422",),
        }
        numbers = {
            "SamplesPerPixel": samples,
            "PlanarConfiguration": 0,
            "Rows": rows,
            "Columns": columns,
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
        }
        elements = {keyword: text(keyword, *values) for keyword, values in texts.items()}
        elements |= {keyword: element(keyword, struct.pack("<H", value)) for keyword, value in numbers.items()}
        elements["SourceImageSequence"] = sequence("SourceImageSequence", referenced(begun.image, purpose=SOURCE_IMAGE))
        return finished(begun, elements, transfer_syntax_uid=str(JPEGBaseline8Bit), last=_encapsulated(frame))


def _encapsulated(frame: bytes) -> bytes:
    """Pixel Data with an empty offset table and one fragment, which has an even length."""
    frame += b"\0" * (len(frame) % 2)
    fragments = _ITEM + struct.pack("<I", 0) + _ITEM + struct.pack("<I", len(frame)) + frame
    return _PIXEL_DATA_OB + fragments + _SEQUENCE_END
