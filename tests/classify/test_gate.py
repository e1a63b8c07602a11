"""The gate: what may be classified, by the header alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from router.classify.gate import REASONS, GateSettings, gate, remarks
from router.classify.phantom import phantom_dicom
from router.core import provenance
from router.errors import NotForThisClassifier
from tests.peers import ROOT

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def _code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "x"
    return item


def _ours() -> Dataset:
    item = Dataset()
    item.Manufacturer, item.ManufacturerModelName = provenance.MANUFACTURER, provenance.MODEL_NAME
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = provenance.PURPOSE
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, on making malformed attributes
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"Modality": "DX"},
        {"BodyPartExamined": ""},
        {"BodyPartExamined": None},
        {"BodyPartExamined": "Thorax "},
        {"BodyPartExamined": "CHEST_PA"},
        {"BodyPartExamined": "", "AnatomicRegionSequence": [_code("816094009")]},
        {"ViewPosition": "AP"},
        {"ViewPosition": "", "PatientOrientation": ["L", "F"]},
        {"ViewPosition": "", "ViewCodeSequence": [_code("272479007")]},
        {"ViewPosition": "", "SeriesDescription": "CHEST PA AND LATERAL"},
        {"ViewPosition": "", "SeriesDescription": "BILATERAL RIBS"},
        {"SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "WSD"},
        {"BurnedInAnnotation": "YES"},
        {"NumberOfFrames": 1},
        {"PatientSpeciesCodeSequence": [_code("337915000")], "PatientSpeciesDescription": "Homo sapiens"},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ],
    ids=str,
)
def test_frontal_chest_radiographs_pass(made, attributes: dict[str, object]) -> None:
    gate(made(np.zeros((64, 64), np.uint16), **attributes))


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Modality": "CT"}, "modality"),
        ({"Modality": "RG"}, "modality"),
        ({"Modality": None}, "modality"),
        ({"PixelData": None}, "no_pixels"),
        ({"NumberOfFrames": 2}, "frames"),
        ({"NumberOfFrames": "many"}, "header"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"PhotometricInterpretation": "RGB"}, "photometric"),
        ({"BodyPartExamined": "HAND"}, "body_part"),
        ({"BodyPartExamined": "CHESTABDOMEN"}, "body_part"),
        ({"BodyPartExamined": "CHEST ABDOMEN"}, "body_part"),
        ({"BodyPartExamined": "", "AnatomicRegionSequence": [_code("85562004")]}, "body_part"),
        ({"ViewPosition": "LL"}, "lateral"),
        ({"ViewPosition": "LATERAL"}, "lateral"),
        ({"ViewPosition": "RAO"}, "view"),
        ({"ViewPosition": "", "ViewCodeSequence": [_code("399067008")]}, "lateral"),
        ({"ViewPosition": "", "ViewCodeSequence": [_code("399135007")]}, "view"),
        ({"ViewPosition": "", "PatientOrientation": ["A", "F"]}, "lateral"),
        ({"ViewPosition": "", "PatientOrientation": ["P", "F"]}, "lateral"),
        ({"ViewPosition": "", "SeriesDescription": "Chest LAT"}, "lateral"),
        ({"SOPClassUID": SECONDARY_CAPTURE, "BurnedInAnnotation": "YES"}, "screenshot"),
        ({"SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "SD"}, "screenshot"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screenshot"),
        ({"ContributingEquipmentSequence": [_ours()]}, "made_by_router"),
        ({"PatientSpeciesDescription": "Dog"}, "animal"),
        ({"PatientSpeciesCodeSequence": [_code("448771007")]}, "animal"),
        ({"SeriesDescription": "Feline thorax VD"}, "animal"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, on making malformed attributes
def test_everything_else_is_refused_with_its_reason(made, attributes: dict[str, object], code: str) -> None:
    with pytest.raises(NotForThisClassifier) as caught:
        ds = made(np.zeros((64, 64), np.uint16))
        for keyword, value in attributes.items():
            if value is None:
                del ds[keyword]
            elif value == "many":
                ds.add_new(keyword, "LO", value)
            else:
                setattr(ds, keyword, value)
        gate(ds)
    assert caught.value.code == code
    assert str(caught.value).startswith(REASONS[code])


@pytest.mark.parametrize("shape", [(63, 500), (500, 63), (1, 1)])
def test_small_pictures_are_refused(made, shape: tuple[int, int]) -> None:
    with pytest.raises(NotForThisClassifier) as caught:
        gate(made(np.zeros(shape, np.uint16)))
    assert caught.value.code == "too_small"


def test_a_setting_adds_modalities(made) -> None:
    gate(made(np.zeros((64, 64), np.uint16), Modality="RG"), GateSettings(modalities=("CR", "RG")))


def test_refusals_quote_no_free_text(made) -> None:
    ds = made(np.zeros((64, 64), np.uint16), ViewPosition="", SeriesDescription="LAT DOE JOHN", BodyPartExamined="")
    with pytest.raises(NotForThisClassifier) as caught:
        gate(ds)
    assert "DOE" not in str(caught.value)


def test_remarks_say_what_the_network_does_not_see(made) -> None:
    square = made(np.zeros((64, 64), np.uint16))
    assert remarks(square) == ()
    odd = made(np.zeros((64, 70), np.uint16), BurnedInAnnotation="YES", ViewPosition=None)
    assert len(remarks(odd)) == 3


def test_every_reason_is_on_the_page() -> None:
    page = (ROOT / "docs/gate.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", page, flags=re.MULTILINE) == list(REASONS.items())


@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_phantoms_pass(modality: str) -> None:
    gate(phantom_dicom(1, rows=64, columns=80, modality=modality))


def test_of_real_objects_only_chest_radiographs_pass(shared_data: Path) -> None:
    passed, refused = set(), {}
    for path in sorted(shared_data.glob("dicom/*/*.dcm")):
        ds = dcmread(path, force=True, stop_before_pixels=False)
        try:
            gate(ds)
            passed.add(path.name)
        except NotForThisClassifier as error:
            refused[path.name] = error.code
    nonchest = {path.name for path in shared_data.glob("dicom/nonchest/*.dcm")}
    assert not passed & nonchest
    # Three headers without pixels, and a dog; every other file under chest* is a frontal radiograph of a chest.
    assert {name for name in refused if name not in nonchest} == {
        "chrJapMulti.dcm",
        "chrJapMultiExplicitIR6.dcm",
        "chrKoreanMulti.dcm",
        "highdicom_dx_DOG_thorax.dcm",
    }
    assert refused["highdicom_dx_DOG_thorax.dcm"] == "animal"
