"""What the check asks of objects that are looked at and not read as a document: Secondary Capture, presentation state, key object, PDF."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    JPEGBaseline8Bit,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from router.core.instance import InstanceKind
from router.core.ports import ResultObject
from router.report.context import raw_value
from router.report.document import NOT_FOR_DIAGNOSIS
from router.report.readback import Item, Level, code_in, items_in, pixel_fragments, text_in, value_in

_Problems = Callable[[bytes, Level, str], Iterator[str]]
_OF_INTEREST = ("113000", "DCM")
#: Start of a frame of JPEG baseline: its header holds precision, rows, columns and components (ITU-T T.81 B.2.2).
_BASELINE = 0xC0
_ALONE = frozenset((0x01, *range(0xD0, 0xDA)))


def seen_problems(result: ResultObject, document: Level, source: Any) -> Iterator[str]:
    """What is wrong with one, in plain English without values."""
    sop_class_uid, modality, transfer_syntax_uid, particular = _KINDS[result.kind]
    if (result.sop_class_uid, text_in(document, "Modality")) != (sop_class_uid, modality):
        yield "SOP class or modality are not those of its kind"
    if result.transfer_syntax_uid != transfer_syntax_uid:
        yield "the transfer syntax is not that of its kind"
    for keyword in ("SeriesNumber", "InstanceNumber", "Manufacturer"):
        if not text_in(document, keyword):
            yield f"{keyword} is empty"
    if not text_in(document, "SeriesDescription").endswith(NOT_FOR_DIAGNOSIS):
        yield "the series does not say that it is not for diagnosis"
    source_uid = raw_value(source, "SOPInstanceUID").decode("latin-1").rstrip("\0 ")
    yield from particular(result.data, document, source_uid)


def _picture(data: bytes, document: Level, source_uid: str) -> Iterator[str]:
    if _uids(items_in(document, "SourceImageSequence")) != [source_uid]:
        yield "the source image is not exactly the image"
    wanted = {"BurnedInAnnotation": "YES", "LossyImageCompression": "01", "PhotometricInterpretation": "YBR_FULL_422"}
    for keyword, value in wanted.items():
        if text_in(document, keyword) != value:
            yield f"{keyword} is not {value}"
    if not text_in(document, "BodyPartExamined"):
        yield "BodyPartExamined is empty"
    frames = pixel_fragments(data)
    if len(frames) != 1 or not frames[0].startswith(b"\xff\xd8") or not frames[0].rstrip(b"\0").endswith(b"\xff\xd9"):
        yield "the pixels are not one whole JPEG"
        return
    numbers = [value_in(document, keyword) for keyword in ("BitsAllocated", "Rows", "Columns", "SamplesPerPixel")]
    if _baseline_header(frames[0]) != tuple(int.from_bytes(number, "little") for number in numbers):
        yield "the JPEG is not what the header says of it"


def _baseline_header(frame: bytes) -> tuple[int, ...]:
    """Precision, rows, columns and components; () when it is another JPEG than baseline."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == _BASELINE:
            return struct.unpack_from(">BHHB", frame, at + 4)
        at += 2 if marker in _ALONE else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return ()


def _presentation(_data: bytes, document: Level, source_uid: str) -> Iterator[str]:
    images = [
        uid
        for series in items_in(document, "ReferencedSeriesSequence")
        for uid in _uids(items_in(series, "ReferencedImageSequence"))
    ]
    if images != [source_uid]:
        yield "the presented image is not exactly the image"
    if text_in(document, "PresentationLUTShape") not in ("IDENTITY", "INVERSE"):
        yield "PresentationLUTShape is empty"
    areas = items_in(document, "DisplayedAreaSelectionSequence")
    corners = [value_in(area, "DisplayedAreaBottomRightHandCorner") for area in areas]
    if len(corners) != 1 or len(corners[0]) != 8:
        yield "the displayed area is not one"
        return
    columns, rows = struct.unpack("<2l", corners[0])
    annotations = items_in(document, "GraphicAnnotationSequence")
    texts = [text for one in annotations for text in items_in(one, "TextObjectSequence")]
    if not any("NOT FOR DIAGNOSTIC USE" in text_in(text, "UnformattedTextValue") for text in texts):
        yield "no text says that it is not for diagnosis"
    for one in annotations:
        for graphic in items_in(one, "GraphicObjectSequence"):
            points = value_in(graphic, "GraphicData")
            stated = int.from_bytes(value_in(graphic, "NumberOfGraphicPoints"), "little")
            if not points or len(points) != 8 * stated:
                yield "a graphic has not as many points as it says"
            elif not all(0 <= x <= columns and 0 <= y <= rows for x, y in struct.iter_unpack("<2f", points)):
                yield "a graphic lies outside the image"


def _key_object(_data: bytes, document: Level, source_uid: str) -> Iterator[str]:
    if code_in(document, "ConceptNameCodeSequence") != _OF_INTEREST:
        yield "the title is not «of interest»"
    evidence = [
        uid
        for study in items_in(document, "CurrentRequestedProcedureEvidenceSequence")
        for series in items_in(study, "ReferencedSeriesSequence")
        for uid in _uids(items_in(series, "ReferencedSOPSequence"))
    ]
    pointed = [
        uid
        for item in items_in(document, "ContentSequence")
        if text_in(item, "ValueType") in ("IMAGE", "COMPOSITE")
        for uid in _uids(items_in(item, "ReferencedSOPSequence"))
    ]
    if not evidence == pointed == [source_uid]:
        yield "it does not point at exactly the image"


def _paper(_data: bytes, document: Level, source_uid: str) -> Iterator[str]:
    if _uids(items_in(document, "SourceInstanceSequence")) != [source_uid]:
        yield "the source instance is not exactly the image"
    if text_in(document, "MIMETypeOfEncapsulatedDocument") != "application/pdf":
        yield "it does not say that it is a PDF"
    paper = value_in(document, "EncapsulatedDocument")
    length = int.from_bytes(value_in(document, "EncapsulatedDocumentLength"), "little")
    if not 0 <= len(paper) - length <= 1:
        yield "the document is not as long as it says"
    if not (paper.startswith(b"%PDF-") and paper[:length].rstrip().endswith(b"%%EOF")):
        yield "the document is no whole PDF"


def _uids(items: list[Item]) -> list[str]:
    return [text_in(item, "ReferencedSOPInstanceUID") for item in items]


_EXPLICIT = str(ExplicitVRLittleEndian)
#: Kind -> SOP class, Modality, transfer syntax, and what is particular to it.
_KINDS: Mapping[InstanceKind, tuple[UID, str, str, _Problems]] = {
    InstanceKind.HEATMAP: (SecondaryCaptureImageStorage, "OT", str(JPEGBaseline8Bit), _picture),
    InstanceKind.GSPS: (GrayscaleSoftcopyPresentationStateStorage, "PR", _EXPLICIT, _presentation),
    InstanceKind.KEY_OBJECT: (KeyObjectSelectionDocumentStorage, "KO", _EXPLICIT, _key_object),
    InstanceKind.PDF: (EncapsulatedPDFStorage, "DOC", _EXPLICIT, _paper),
}
