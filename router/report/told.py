"""What a Structured Report says, read from its file: for whoever passes it on in another form (`router trace --fhir`).

It reads any TID 1500 report as far as ours go, by pydicom; nothing of it is ever logged. Source: PS3.16 TID 1500, 1501, 4019.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.multival import MultiValue

from router.core.instance import Reference
from router.report import codes
from router.report.codes import Code

#: Algorithm Parameters that belong to one finding; all others to the algorithm.
_OF_ONE_FINDING = ("threshold", "raw-sigmoid")
_WEIGHTS = "weights-sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldFinding:
    """One measurement group."""

    label: str
    """Tracking Identifier: the classifier's own word."""
    tracking_uid: str
    code: Code
    site: Code | None
    score_percent: float
    threshold_percent: float | None
    presence: Code | None
    """Present, Absent or Undetermined; None when the report does not say."""
    image_uid: str
    """SOP Instance UID of Source of Measurement; empty when the report does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldAlgorithm:
    """Who made the findings."""

    device_uid: str
    manufacturer: str
    name: str
    version: str
    weights_sha256: str
    parameters: tuple[tuple[str, str], ...]
    """Name and value of those that are the same for every finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One document. Texts are as decoded, without padding; what it lacks is empty."""

    itself: Reference
    images: tuple[tuple[Reference, str], ...]
    """Evidence, each with its Modality as far as the image library tells it."""
    patient_id: str
    issuer_of_patient_id: str
    accession_number: str
    study_date: str
    """YYYYMMDD."""
    final: bool
    """Verified and not preliminary."""
    partial: str
    """Completion Flag Description of a document that is not complete: why nothing was analysed."""
    comments: tuple[str, ...]
    algorithm: ToldAlgorithm
    findings: tuple[ToldFinding, ...]


def told(path: Path) -> Told:
    """What the SR in a DICOM file says. Raises ValueError when it is no report of this kind, OSError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        try:
            return _told(pydicom.dcmread(path))
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"not a report of measurements ({type(error).__name__})") from error


def _told(document: Any) -> Told:
    itself = Reference(
        sop_class_uid=str(document.SOPClassUID),
        sop_instance_uid=str(document.SOPInstanceUID),
        series_instance_uid=str(document.SeriesInstanceUID),
        study_instance_uid=str(document.StudyInstanceUID),
    )
    groups = list(_groups(document))
    return Told(
        itself=itself,
        images=tuple(_images(document)),
        patient_id=_text(document, "PatientID"),
        issuer_of_patient_id=_text(document, "IssuerOfPatientID"),
        accession_number=_text(document, "AccessionNumber"),
        study_date=_text(document, "StudyDate"),
        final=_text(document, "PreliminaryFlag") == "FINAL" and _text(document, "VerificationFlag") == "VERIFIED",
        partial=_text(document, "CompletionFlagDescription") if document.CompletionFlag != "COMPLETE" else "",
        comments=tuple(_text(i, "TextValue") for i in _below(document) if _name(i) == codes.COMMENT[:2]),
        algorithm=_algorithm(document, groups),
        findings=tuple(_finding(group) for group in groups),
    )


def _images(document: Any) -> Iterator[tuple[Reference, str]]:
    modalities = {}
    for item in _walk(document):
        if item.ValueType in ("IMAGE", "COMPOSITE") and _name(item) == codes.SOURCE[:2]:
            (uid,) = (reference.ReferencedSOPInstanceUID for reference in item.ReferencedSOPSequence)
            modalities[uid] = next((_value(c).value for c in _below(item) if _name(c) == codes.MODALITY[:2]), "")
    for study in document.CurrentRequestedProcedureEvidenceSequence:
        for series in study.ReferencedSeriesSequence:
            for image in series.ReferencedSOPSequence:
                reference = Reference(
                    sop_class_uid=str(image.ReferencedSOPClassUID),
                    sop_instance_uid=str(image.ReferencedSOPInstanceUID),
                    series_instance_uid=str(series.SeriesInstanceUID),
                    study_instance_uid=str(study.StudyInstanceUID),
                )
                yield reference, modalities.get(image.ReferencedSOPInstanceUID, "")


def _finding(group: Any) -> ToldFinding:
    items = list(_below(group))
    (finding,) = (_value(item) for item in items if _name(item) == codes.FINDING[:2])
    (score,) = (item.MeasuredValueSequence[0] for item in items if _name(item) == codes.CERTAINTY[:2])
    if _code(score.MeasurementUnitsCodeSequence[0])[:2] != codes.PERCENT[:2]:
        raise ValueError("a certainty is not in percent")
    threshold = dict(_parameters(group)).get("threshold")
    return ToldFinding(
        label=_first(items, codes.TRACKING_IDENTIFIER, "TextValue"),
        tracking_uid=_first(items, codes.TRACKING_UNIQUE_IDENTIFIER, "UID"),
        code=finding,
        site=next((_value(item) for item in items if _name(item) == codes.FINDING_SITE[:2]), None),
        score_percent=float(score.NumericValue),
        threshold_percent=float(threshold.rstrip("%")) if threshold else None,
        presence=next((_value(i) for i in items if i.ValueType == "CODE" and _name(i) == finding[:2]), None),
        image_uid=next(
            (
                str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
                for item in items
                if _name(item) == codes.SOURCE_OF_MEASUREMENT[:2]
            ),
            "",
        ),
    )


def _algorithm(document: Any, groups: Sequence[Any]) -> ToldAlgorithm:
    """Contributing Equipment names it in every document of ours, also in one without findings."""
    equipment = document.ContributingEquipmentSequence[0]
    facts = dict(_parameters(groups[0])) if groups else {}
    described = re.search(r"weights sha256 ([0-9a-f]{64})", _text(equipment, "ContributionDescription"))
    return ToldAlgorithm(
        device_uid=_text(equipment, "DeviceUID"),
        manufacturer=_text(equipment, "Manufacturer"),
        name=_text(equipment, "ManufacturerModelName"),
        version=_text(equipment, "SoftwareVersions"),
        weights_sha256=facts.get(_WEIGHTS) or (described[1] if described else ""),
        parameters=tuple((k, v) for k, v in facts.items() if k not in (*_OF_ONE_FINDING, _WEIGHTS)),
    )


def _parameters(group: Any) -> Iterator[tuple[str, str]]:
    for item in _below(group):
        if _name(item) == codes.ALGORITHM_PARAMETERS[:2]:
            name, _, value = _text(item, "TextValue").partition("=")
            yield name, value


def _groups(item: Any) -> Iterator[Any]:
    return (one for one in _walk(item) if one.ValueType == "CONTAINER" and _name(one) == codes.MEASUREMENT_GROUP[:2])


def _walk(item: Any) -> Iterator[Any]:
    for child in _below(item):
        yield child
        yield from _walk(child)


def _below(item: Any) -> Sequence[Any]:
    return item.get("ContentSequence") or ()


def _first(items: Sequence[Any], name: Code, keyword: str) -> str:
    return next((_text(item, keyword) for item in items if _name(item) == name[:2]), "")


def _name(item: Any) -> tuple[str, str]:
    """Value and scheme of an item's concept name."""
    names = item.get("ConceptNameCodeSequence")
    return _code(names[0])[:2] if names else ("", "")


def _value(item: Any) -> Code:
    return _code(item.ConceptCodeSequence[0])


def _code(item: Any) -> Code:
    return Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning))


def _text(item: Any, keyword: str) -> str:
    value = item.get(keyword)
    if value is None:
        return ""
    return ("\\".join(str(one) for one in value) if isinstance(value, MultiValue) else str(value)).strip("\0 ")
