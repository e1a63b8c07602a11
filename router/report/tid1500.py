"""The content of an Imaging Measurement Report: PS3.16 TID 1500, one TID 1501 group per finding.

highdicom lays out the same tree; the tests compare every byte (`tests/report/oracle.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from router.core.findings import ClassifierIdentity, Finding, Prediction
from router.core.uids import device_uid, tracking_uid
from router.report import codes
from router.report.codes import Code, ascii_text, finding_code
from router.report.content import Relationship, coded, container, counted, identified, measured, referring, worded
from router.report.context import Context

TEMPLATE = "1500"
GROUP_TEMPLATE = "1501"
#: VR LO, which other systems hold names in.
_LINE_LENGTH_MAX = 64
#: Decimals of scores and thresholds, the same for both: rounding then never puts a score on the other side of its threshold.
_PERCENT_DIGITS = 2
#: Algorithm parameters that differ between findings; a classifier's own of these names would contradict them.
_THRESHOLD, _RAW = _OF_THE_FINDING = ("threshold", "raw-sigmoid")


def measurement_report(context: Context, prediction: Prediction, comments: tuple[str, ...]) -> tuple[bytes, ...]:
    """What stands under the root, in order. The comments come first because people read from the top."""
    image = referring(codes.SOURCE_OF_MEASUREMENT, context.sop_class_uid, context.sop_instance_uid)
    algorithm = algorithm_of(prediction.classifier)
    groups = [
        finding_group(
            tracking_uid(source_sop_instance_uid=context.sop_instance_uid, label=finding.label),
            algorithm,
            finding,
            image,
        )
        for finding in prediction.findings
    ]
    return (
        *opening(prediction.classifier),
        *commented(comments),
        image_library(context),
        container(codes.IMAGING_MEASUREMENTS, *groups),
    )


def opening(classifier: ClassifierIdentity) -> tuple[bytes, ...]:
    """TID 1204 (language), TID 1001 with 1002 and 1004 (a device observed), and the procedure reported."""
    algorithm = ascii_text(classifier.algorithm, _LINE_LENGTH_MAX)
    manufacturer = ascii_text(classifier.manufacturer, _LINE_LENGTH_MAX)
    observed = Relationship.OBSERVATION
    return (
        coded(Relationship.PROPERTY, codes.LANGUAGE, codes.ENGLISH),
        coded(observed, codes.OBSERVER_TYPE, codes.DEVICE),
        identified(observed, codes.DEVICE_OBSERVER_UID, device_uid(weights_sha256=classifier.weights_sha256)),
        worded(observed, codes.DEVICE_OBSERVER_NAME, algorithm),
        worded(observed, codes.DEVICE_OBSERVER_MANUFACTURER, manufacturer),
        worded(observed, codes.DEVICE_OBSERVER_MODEL_NAME, algorithm),
        coded(Relationship.PROPERTY, codes.PROCEDURE_REPORTED, codes.IMAGING_PROCEDURE),
    )


def commented(comments: tuple[str, ...]) -> tuple[bytes, ...]:
    """TID 1500 is extensible: what a reader must know."""
    return tuple(worded(Relationship.CONTAINS, codes.COMMENT, ascii_text(text, 1024)) for text in comments)


def image_library(context: Context) -> bytes:
    """TID 1600 with the image, and TID 1602 as far as every radiograph has it; nothing for another modality.

    TID 1602 asks for a modality of CID 29, which has no «other», and for more of some others than we read.
    """
    described = [
        counted(Relationship.ACQUISITION, name, count, codes.PIXELS)
        for name, count in ((codes.PIXEL_DATA_ROWS, context.rows), (codes.PIXEL_DATA_COLUMNS, context.columns))
        if count
    ]
    return library_of(library_entry(context.sop_class_uid, context.sop_instance_uid, context.modality, *described))


def library_of(*entries: bytes) -> bytes:
    """TID 1600 with one group; nothing without an entry."""
    if not any(entries):
        return b""
    return container(codes.IMAGE_LIBRARY, container(codes.IMAGE_LIBRARY_GROUP, *entries))


def library_entry(sop_class_uid: str, sop_instance_uid: str, modality: str, *described: bytes) -> bytes:
    """TID 1601; `described` are further items of TID 1602. Nothing for what is no radiograph."""
    if modality not in codes.MODALITIES:
        return b""
    what = coded(Relationship.ACQUISITION, codes.MODALITY, Code(modality, "DCM", codes.MODALITIES[modality]))
    return referring(codes.SOURCE, sop_class_uid, sop_instance_uid, what, *described)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """TID 4019 Algorithm Identification as encoded items: the same in every group but for what is the finding's own."""

    name_and_version: bytes
    parameters: bytes
    """After those of the finding."""


def algorithm_of(classifier: ClassifierIdentity) -> Algorithm:
    """How a classifier stands in its groups. DICOM has no code for weights, which are a parameter «name=value»."""
    concerning = Relationship.PROPERTY
    facts = {"weights-sha256": classifier.weights_sha256}
    if classifier.demonstration:
        facts["demonstration"] = "yes: trained on drawings, no clinical meaning"
    more = [name for name in sorted(classifier.parameters) if name not in facts and name not in _OF_THE_FINDING]
    facts |= {name: classifier.parameters[name] for name in more}
    return Algorithm(
        worded(concerning, codes.ALGORITHM_NAME, ascii_text(classifier.algorithm, _LINE_LENGTH_MAX))
        + worded(concerning, codes.ALGORITHM_VERSION, ascii_text(classifier.version, _LINE_LENGTH_MAX)),
        b"".join(_parameter(name, value) for name, value in facts.items()),
    )


def finding_group(uid: str, algorithm: Algorithm, finding: Finding, image: bytes, *derived: bytes) -> bytes:
    """TID 1501 Measurement and Qualitative Evaluation Group; `derived` says how the score came from several."""
    kind = _kind(finding.label)
    contains = Relationship.CONTAINS
    percent = round(100 * float(finding.score), _PERCENT_DIGITS)
    # The OHIF viewer cannot load a NUM without a child item.
    method = coded(Relationship.PROPERTY, codes.MEASUREMENT_METHOD, codes.ARTIFICIAL_INTELLIGENCE)
    return container(
        codes.MEASUREMENT_GROUP,
        kind.tracked,
        identified(Relationship.OBSERVATION, codes.TRACKING_UNIQUE_IDENTIFIER, uid),
        kind.named,
        algorithm.name_and_version,
        # DICOM has no code for a decision threshold either.
        _parameter(_THRESHOLD, f"{round(100 * finding.threshold, _PERCENT_DIGITS):g}%"),
        _parameter(_RAW, f"{finding.raw:.6f}"),
        algorithm.parameters,
        measured(contains, codes.CERTAINTY, percent, codes.PERCENT, method, *derived),
        kind.present if finding.present else kind.absent,
        image,
        worded(contains, codes.COMMENT, in_words(finding)),
        template=GROUP_TEMPLATE,
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    """What stands in the group of every finding of one label, as encoded items."""

    tracked: bytes
    named: bytes
    """What it is, and where in the body."""
    present: bytes
    absent: bytes


@lru_cache(maxsize=512)
def _kind(label: str) -> _Kind:
    row = finding_code(label)
    contains = Relationship.CONTAINS
    return _Kind(
        worded(Relationship.OBSERVATION, codes.TRACKING_IDENTIFIER, ascii_text(label, _LINE_LENGTH_MAX)),
        coded(contains, codes.FINDING_CATEGORY, codes.CLINICAL_FINDING)
        + coded(contains, codes.FINDING, row.code)
        + (coded(Relationship.PROPERTY, codes.FINDING_SITE, row.site) if row.site else b""),
        coded(contains, row.code, codes.PRESENT),
        coded(contains, row.code, codes.ABSENT),
    )


def _parameter(name: str, value: str) -> bytes:
    """TID 4019 Algorithm Parameters."""
    return worded(Relationship.PROPERTY, codes.ALGORITHM_PARAMETERS, ascii_text(f"{name}={value}", 1024))


def in_words(finding: Finding) -> str:
    """The score beside its threshold, for viewers that show the texts of a group and leave out numbers (OHIF 3.13)."""
    score, threshold = (round(100 * float(value), _PERCENT_DIGITS) for value in (finding.score, finding.threshold))
    return f"{score:g} %, threshold {threshold:g} %: {'present' if finding.present else 'absent'}"
