"""Which code stands for which finding: the 18 labels of torchxrayvision, and a fallback for any other classifier's labels.

A reader keys on (finding code, site): that pair is unique in the table. `docs/sr.md` shows the table and says how each
code was confirmed. Source: PS3.16 (context groups named below), SNOMED CT, RadLex 3.9.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from router import __version__
from router.core.uids import digest

#: Raise it with every change that makes a document of the same prediction another document.
WRITER_VERSION = "4"

#: Coding Scheme Designator of labels that are not in the table (PS3.16 8.2: private designators begin with 99).
PRIVATE_SCHEME = "99DICOMAIROUTER"


class Code(NamedTuple):
    """A coded concept: value, scheme designator, meaning (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


class Confirmation(StrEnum):
    """How we know that a code means what its label says."""

    STANDARD = "standard"
    """Code and meaning stand in a DICOM context group (PS3.16)."""
    PUBLISHED = "published"
    """A SNOMED CT concept seen with this meaning in two independent public sources; its check digit is right."""
    COMPOSED = "composed"
    """A general finding from PS3.16 or RadLex; only together with its site does it say what the label says."""
    LOCAL = "local"
    """Our private scheme: the label is the meaning, and no other system knows the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingCode:
    """What stands in the document for one label."""

    label: str
    code: Code
    site: Code | None
    """Where in the body (PS3.16 CID 4); None when nothing is known but the label."""
    confirmation: Confirmation


LUNG = Code("39607008", "SCT", "Lung")
PLEURA = Code("3120008", "SCT", "Pleura")
HEART = Code("80891009", "SCT", "Heart")
MEDIASTINUM = Code("72410000", "SCT", "Mediastinum")
DIAPHRAGM = Code("5798000", "SCT", "Diaphragm")
CHEST = Code("816094009", "SCT", "Chest")


def _row(label: str, code: Code, site: Code, confirmation: Confirmation) -> FindingCode:
    return FindingCode(label=label, code=code, site=site, confirmation=confirmation)


#: In upstream's own order of labels (torchxrayvision.datasets.default_pathologies).
FINDINGS: tuple[FindingCode, ...] = (
    _row("Atelectasis", Code("46621007", "SCT", "Atelectasis"), LUNG, Confirmation.PUBLISHED),
    _row("Consolidation", Code("95436008", "SCT", "Lung consolidation"), LUNG, Confirmation.PUBLISHED),
    _row("Infiltration", Code("112121", "DCM", "Infiltrate"), LUNG, Confirmation.STANDARD),
    _row("Pneumothorax", Code("36118008", "SCT", "Pneumothorax"), PLEURA, Confirmation.STANDARD),
    _row("Edema", Code("19242006", "SCT", "Pulmonary edema"), LUNG, Confirmation.STANDARD),
    _row("Emphysema", Code("87433001", "SCT", "Pulmonary emphysema"), LUNG, Confirmation.PUBLISHED),
    _row("Fibrosis", Code("51615001", "SCT", "Fibrosis of lung"), LUNG, Confirmation.PUBLISHED),
    _row("Effusion", Code("60046008", "SCT", "Pleural effusion"), PLEURA, Confirmation.STANDARD),
    _row("Pneumonia", Code("233604007", "SCT", "Pneumonia"), LUNG, Confirmation.PUBLISHED),
    # No pre-coordinated code could be confirmed, and RadLex has no class of its own for it.
    _row("Pleural_Thickening", Code("RID28509", "RADLEX", "thickening"), PLEURA, Confirmation.COMPOSED),
    # Not 287272002 of CID 12248: PS3.16 gives that code a second, different meaning elsewhere.
    _row("Cardiomegaly", Code("8186001", "SCT", "Cardiomegaly"), HEART, Confirmation.PUBLISHED),
    _row("Nodule", Code("27925004", "SCT", "Nodule"), LUNG, Confirmation.COMPOSED),
    _row("Mass", Code("4147007", "SCT", "Mass"), LUNG, Confirmation.COMPOSED),
    # The data set's authors do not say which hernia; diaphragmatic is the one that covers hiatal hernia too.
    _row("Hernia", Code("39839004", "SCT", "Diaphragmatic hernia"), DIAPHRAGM, Confirmation.PUBLISHED),
    _row("Lung Lesion", Code("52988006", "SCT", "Lesion"), LUNG, Confirmation.COMPOSED),
    # Not the ribs: the label means any fracture that the radiograph shows.
    _row("Fracture", Code("125605004", "SCT", "Fracture of bone"), CHEST, Confirmation.PUBLISHED),
    _row("Lung Opacity", Code("112001", "DCM", "Opacity"), LUNG, Confirmation.COMPOSED),
    # CID 6107. Reads badly without its site; the only alternative would be a private code.
    _row("Enlarged Cardiomediastinum", Code("260376009", "SCT", "Enlarged"), MEDIASTINUM, Confirmation.COMPOSED),
)
_BY_LABEL = {row.label: row for row in FINDINGS}

IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
SOURCE = Code("260753009", "SCT", "Source")
SOURCE_OF_MEASUREMENT = Code("121112", "DCM", "Source of Measurement")
MODALITY = Code("121139", "DCM", "Modality")
PIXEL_DATA_ROWS = Code("110910", "DCM", "Pixel Data Rows")
PIXEL_DATA_COLUMNS = Code("110911", "DCM", "Pixel Data Columns")
PIXELS = Code("{pixels}", "UCUM", "Pixels")
COMMENT = Code("121106", "DCM", "Comment")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UNIQUE_IDENTIFIER = Code("112040", "DCM", "Tracking Unique Identifier")
FINDING_CATEGORY = Code("276214006", "SCT", "Finding category")
FINDING = Code("121071", "DCM", "Finding")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
DEVICE = Code("121007", "DCM", "Device")
DEVICE_OBSERVER_UID = Code("121012", "DCM", "Device Observer UID")
DEVICE_OBSERVER_NAME = Code("121013", "DCM", "Device Observer Name")
DEVICE_OBSERVER_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")
DEVICE_OBSERVER_MODEL_NAME = Code("121015", "DCM", "Device Observer Model Name")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
#: CP 2176 asks for a category of every finding.
CLINICAL_FINDING = Code("404684003", "SCT", "Clinical finding")
#: «The likelihood that the finding detected is in fact the type of finding identified» (PS3.16 Annex D). Not (111047, DCM):
#: that one is the probability of cancer.
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")
MEASUREMENT_METHOD = Code("370129005", "SCT", "Measurement Method")
#: TID 300 Measurement: how a value came from several others (CID 7464).
DERIVATION = Code("121401", "DCM", "Derivation")
MAXIMUM = Code("56851009", "SCT", "Maximum")
SOURCE_REPORT = Code("128225", "DCM", "Source report")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
SUMMARY_OF_ANALYSES = Code("111065", "DCM", "Summary of Analyses")
#: CID 6042.
FAILED = Code("111224", "DCM", "Failed")
NOT_ATTEMPTED = Code("111225", "DCM", "Not Attempted")
#: CID 100 of every edition since 2019: it says what was imaged, not which algorithm ran.
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
#: CID 29, those that a radiograph may carry.
MODALITIES = {
    "CR": "Computed Radiography",
    "DX": "Digital Radiography",
    "RG": "Radiographic imaging",
}


def finding_code(label: str) -> FindingCode:
    """The code of a label. One that is not in the table gets a code of our private scheme, the same on every node.

    A private code value is a digest, not the label itself: Code Value has 16 characters (VR SH), and two long labels
    that begin alike must not become one finding.
    """
    if label in _BY_LABEL:
        return _BY_LABEL[label]
    value = hashlib.sha256(label.encode()).hexdigest()[:16].upper()
    return FindingCode(
        label=label, code=Code(value, PRIVATE_SCHEME, ascii_text(label, 64)), site=None, confirmation=Confirmation.LOCAL
    )


def ascii_text(text: str, length_max: int) -> str:
    """`text` in printable ASCII without backslash, at most `length_max` characters.

    What we write ourselves stands beside a patient's name in the source's character set, which may hold no other letters
    than that name's and ASCII (PS3.5 6.1.2).
    """
    if not (text.isascii() and text.isprintable()):
        text = _ascii(text)
    return text.replace("\\", "/")[:length_max].strip() or "?"


def _ascii(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text)
    kept = "".join(c for c in plain if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in kept)


def writer_digest() -> str:
    """Names code table and writer, 16 hexadecimal digits; part of every result's SOP Instance UID.

    Whatever changes the document of an unchanged prediction must change this: an archive that has the UID already keeps
    the old document and says Success.
    """
    table = [[row.label, row.code, row.site, row.confirmation] for row in FINDINGS]
    facts = {"writer": WRITER_VERSION, "codes": table, "software": software_versions()}
    return digest(facts)[:16]


def software_versions() -> tuple[str, ...]:
    """What wrote the document (Software Versions, 0018,1020)."""
    return (f"dicom-ai-router {__version__}",)
