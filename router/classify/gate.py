"""What may be classified: a classifier answers every picture, so somebody else must say no.

First by the header alone (`gate`), which costs no decoding; then by a look at the picture (`gate_picture`).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field
from pydicom.dataset import Dataset

from router.classify import header
from router.classify.decode import shape_of
from router.classify.frontal import FloatArray, frontal_chest
from router.classify.reasons import REASONS, refusal
from router.core.provenance import is_ours
from router.settings import Names, Table

__all__ = ["REASONS", "GateSettings", "gate", "gate_picture", "remarks"]

SIDE_MIN = 64

_CHEST = frozenset({"CHEST", "THORAX"})
#: PS3.16 CID 4009: chest; thoracic structure, lung structure and both lungs, as CID 4031 named them before; SRT ancestors.
_CHEST_CODES = frozenset({"816094009", "51185008", "39607008", "74101002", "T-D3000", "T-28000"})
_FRONTAL = frozenset({"PA", "AP"})
#: CID 4010: postero-anterior, antero-posterior, frontal; SRT ancestors.
_FRONTAL_CODES = frozenset({"272479007", "399348003", "399033003", "R-10206", "R-10214"})
#: CID 4010: lateral, left lateral, right lateral, medio-lateral, latero-medial, sagittal; SRT ancestors.
_LATERAL_CODES = frozenset(
    {"399067008", "399173006", "399198007", "399260004", "399352003", "30730003", "R-10236", "R-10232"}
)
_LATERAL_WORDS = frozenset({"LATERAL", "LAT", "LL", "RL", "LLD", "RLD", "LLO", "RLO", "PROFIL", "SEITLICH"})
_FRONTAL_WORDS = frozenset({"PA", "AP", "FRONTAL"})
_SERIES_TEXTS = ("SeriesDescription", "AcquisitionDeviceProcessingDescription")
#: PS3.16 CID 7454: Homo sapiens; its SRT ancestor.
_HUMAN_CODES = frozenset({"337915000", "L-85B00"})
_HUMAN_WORDS = frozenset({"HUMAN", "HOMO", "SAPIENS"})
_ANIMAL_WORDS = frozenset({"CANINE", "FELINE", "EQUINE", "BOVINE", "AVIAN", "VETERINARY"})
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


class GateSettings(Table):
    """What every image classifier's table may say about the gate."""

    modalities: Annotated[Names, Field(min_length=1)] = ("CR", "DX")
    """Values of Modality (0008,0060) that are classified."""
    picture_min: Annotated[float, Field(ge=0, le=1)] = 0.2
    """A picture that looks less like a frontal chest radiograph than this (0 to 1) is refused; 0 refuses none."""


def gate(ds: Dataset, settings: GateSettings | None = None) -> None:
    """Returns when the header says: one frontal radiograph of a chest. Touches no pixels.

    Raises NotForThisClassifier; its `code` is a key of REASONS.
    Sources: PS3.3 C.7.3.1 (Modality, Body Part Examined), C.8.7.2, C.8.11.5 (View Position), C.7.6.1 (Patient Orientation),
    C.8.6.1 (Conversion Type), C.12.1 (Contributing Equipment); C.7.1.1 (Patient Species); PS3.16 CID 4010.
    """
    settings = settings or GateSettings()
    modality = header.word(ds, "Modality")
    if modality not in settings.modalities:
        raise refusal("modality", modality or "none stated")
    _not_ours(ds)
    shape = shape_of(ds)
    if min(shape.rows, shape.columns) < SIDE_MIN:
        raise refusal("too_small", f"{shape.rows} x {shape.columns}")
    _a_person(ds)
    _a_chest(ds)
    _frontal(ds)
    _no_screenshot(ds)


def gate_picture(picture: FloatArray, settings: GateSettings | None = None) -> str:
    """Returns when the picture looks like a frontal chest radiograph: how much so, in plain English, for the notes.

    `picture` is the network's input, see `look.frontal_chest`. Raises NotForThisClassifier (code `picture`).
    """
    least = (settings or GateSettings()).picture_min
    value = frontal_chest(picture)
    if value < least:
        raise refusal("picture", f"{value:.2f} of 1; at least {least:g} is wanted")
    return f"Looks like a frontal chest radiograph: {value:.2f} of 1."


def remarks(ds: Dataset) -> tuple[str, ...]:
    """Plain English about an image that is classified all the same; goes into the prediction's notes."""
    notes = []
    if header.value(ds, "Rows") != header.value(ds, "Columns"):
        notes.append("Pixels outside the central square were not seen.")
    if header.word(ds, "BurnedInAnnotation") == "YES":
        notes.append("Text is burned into the pixels.")
    if not header.word(ds, "ViewPosition") and not _codes(ds, "ViewCodeSequence") & _FRONTAL_CODES:
        notes.append("The image does not state its view; a frontal one was assumed.")
    return tuple(notes)


def _not_ours(ds: Dataset) -> None:
    for item in header.items(ds, "ContributingEquipmentSequence"):
        for purpose in header.items(item, "PurposeOfReferenceCodeSequence"):
            if is_ours(
                manufacturer=header.plain(item, "Manufacturer"),
                model_name=header.plain(item, "ManufacturerModelName"),
                purpose_code=header.plain(purpose, "CodeValue"),
                purpose_scheme=header.plain(purpose, "CodingSchemeDesignator"),
            ):
                raise refusal("made_by_router")


def _a_person(ds: Dataset) -> None:
    species = _codes(ds, "PatientSpeciesCodeSequence")
    said = header.word(ds, "PatientSpeciesDescription")
    if (species and not species & _HUMAN_CODES) or (said and not set(said.split()) & _HUMAN_WORDS):
        raise refusal("animal")
    for keyword in _SERIES_TEXTS:
        if set(re.findall(r"[A-Z]+", header.word(ds, keyword))) & _ANIMAL_WORDS:
            raise refusal("animal")


def _a_chest(ds: Dataset) -> None:
    parts = re.findall(r"[A-Z]+", header.word(ds, "BodyPartExamined"))
    if parts:
        if parts[0] not in _CHEST or "ABDOMEN" in parts:
            raise refusal("body_part")
        return
    codes = _codes(ds, "AnatomicRegionSequence")
    if codes and not codes & _CHEST_CODES:
        raise refusal("body_part")


def _frontal(ds: Dataset) -> None:
    view = set(re.findall(r"[A-Z]+", header.word(ds, "ViewPosition")))
    if view:
        if view & _LATERAL_WORDS:
            raise refusal("lateral")
        if not view & _FRONTAL:
            raise refusal("view")
        return
    codes = _codes(ds, "ViewCodeSequence")
    if codes & _FRONTAL_CODES:
        return
    if codes & _LATERAL_CODES:
        raise refusal("lateral")
    if codes:
        raise refusal("view")
    rows = (header.words(ds, "PatientOrientation") or ("",))[0]
    if rows[:1] in ("A", "P"):  # rows that run from back to front are a view from the side
        raise refusal("lateral")
    for keyword in _SERIES_TEXTS:
        # Of the series, not of the study: «chest PA and lateral» is what a study is called that holds both.
        said = set(re.findall(r"[A-Z]+", header.word(ds, keyword)))
        if said & _LATERAL_WORDS and not said & _FRONTAL_WORDS:
            raise refusal("lateral")


def _no_screenshot(ds: Dataset) -> None:
    captured = header.word(ds, "SOPClassUID") == _SECONDARY_CAPTURE
    drawn = header.word(ds, "ConversionType") in ("SYN", "DRW", "SD")
    if "SCREEN SAVE" in header.words(ds, "ImageType"):
        raise refusal("screenshot")
    if captured and (drawn or header.word(ds, "BurnedInAnnotation") == "YES"):
        raise refusal("screenshot")


def _codes(ds: Dataset, keyword: str) -> set[str]:
    return {header.word(item, "CodeValue") for item in header.items(ds, keyword)} - {""}
