"""What a page's viewer gets of one frame: numbers whose window may be moved, and greys as the file asks for."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.pixels import compress

from router.classify import display
from router.classify.decode import stored_values
from router.classify.display import displayed, grey_levels
from router.classify.film import Film, film
from router.core.sight import Window
from router.errors import NotForThisClassifier, UnreadablePixels
from tests.classify.test_display import image
from tests.samples import pydicom_file


@pytest.fixture
def ramp() -> np.ndarray:
    return np.linspace(0, 4095, 256).round()[None].repeat(256, 0)


def pixels(made: Film, **how: Any) -> np.ndarray:
    return np.asarray(made.drawn(**how)).astype(int)


def meanings(made: Film) -> np.ndarray:
    return made.numbers * made.facts["slope"] + made.facts["intercept"]


LUT = Dataset()
LUT.LUTDescriptor = [4096, 0, 12]
LUT.add_new("LUTData", "US", [int(n) for n in np.linspace(0, 4095, 4096) ** 2 / 4095])
LUT.ModalityLUTType = "US"
CASES: dict[str, dict[str, Any]] = {
    "window": {"WindowCenter": "1000", "WindowWidth": "600"},
    "sigmoid": {"WindowCenter": "1000", "WindowWidth": "600", "VOILUTFunction": "SIGMOID"},
    "none": {},
    "monochrome1": {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": "1000", "WindowWidth": "3000"},
    "rescaled": {"RescaleSlope": "-2.5", "RescaleIntercept": "1000", "WindowCenter": "-3000", "WindowWidth": "4000"},
    "voi lut": {"VOILUTSequence": [LUT]},
    "modality lut": {"ModalityLUTSequence": [LUT], "WindowCenter": "1000", "WindowWidth": "600"},
    "padding": {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 400, "PhotometricInterpretation": "MONOCHROME1"},
    "modality lut and padding": {"ModalityLUTSequence": [LUT], "PixelPaddingValue": 0, "PixelPaddingRangeLimit": 400},
}


@pytest.mark.parametrize("case", CASES)
def test_as_the_file_asks_is_what_the_pictures_of_results_show(
    ramp: np.ndarray, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "SIDE", 256)  # neither enlarges nor reduces
    ds = image(ramp, **CASES[case])
    wanted = displayed(ds, stored_values(ds))[0].astype(int)
    assert np.abs(pixels(film(ds, 0, 256)) - wanted).max() <= (8 if case == "modality lut and padding" else 0)


@pytest.mark.parametrize("case", CASES)
def test_another_window_is_over_the_outputs_of_the_modality_lut(ramp: np.ndarray, case: str) -> None:
    ds = image(ramp, **CASES[case])
    made = film(ds, 0, 256)
    said = made.facts["window"]
    window = Window(
        slope=1, intercept=0, centre=1500, width=900, function=said["function"], inverted=made.facts["inverted"]
    )
    greys = grey_levels(meanings(made), window)
    wanted = np.where(made.numbers == 0, 0, np.round((1 - greys if window.inverted else greys) * 255))
    assert np.array_equal(pixels(made, centre=1500, width=900), wanted)
    flipped = pixels(made, centre=1500, width=900, inverted=True)
    assert np.abs(flipped + wanted - np.where(made.numbers == 0, 0, 255)).max() <= 1, "padding stays black"


def test_facts_are_those_of_the_values_and_not_of_their_numbers(ramp: np.ndarray) -> None:
    windows = {
        "WindowCenter": ["1", "2", "3"],
        "WindowWidth": ["10", "20", "0"],
        "WindowCenterWidthExplanation": ["LUNG", "", "NONE"],
    }
    facts = film(image(ramp, RescaleSlope="-2", RescaleIntercept="100", **windows), 0, 64).facts
    assert (facts["least"], facts["most"]) == (100 - 2 * 4095, 100)
    named = [(one["name"], one["centre"], one["width"]) for one in facts["windows"]]
    assert named == [("Lung", 1, 10), ("Window 2", 2, 20)]
    sizes = {"rows": 256, "columns": 256, "height": 64, "width": 64, "frames": 1, "frame": 1}
    assert {name: facts[name] for name in sizes} == sizes
    assert facts["source"] == "flat", "a window that shows nothing, and the range instead"


def test_reducing_takes_means_of_values_and_leaves_padding_out() -> None:
    values = np.zeros((128, 128))
    values[:, 65:] = 1000  # an odd edge: means of 0 and 1000 would be seen beside it
    made = film(image(values, PixelPaddingValue=0), 0, 64)
    assert set(np.unique(made.numbers)) <= {0, 1001}
    assert (made.numbers[:, 33:] == 1001).all()
    checked = np.indices((128, 128)).sum(0) % 2 * 2000.0
    means = meanings(film(image(checked), 0, 32))
    assert np.abs(means[2:-2, 2:-2] - 1000).max() <= 1


def test_the_whole_range_of_sixteen_bits_fits_beside_padding() -> None:
    values = np.linspace(0, 65535, 65536).reshape(256, 256)
    made = film(image(values, BitsStored=16, HighBit=15), 0, 256)
    assert made.numbers.min() == 1
    assert np.abs(meanings(made) - values).max() <= 1
    assert len(made.levels) <= 65535


@pytest.mark.parametrize("name", ["emri_small.dcm", "emri_small_jpeg_2k_lossless.dcm", "emri_small_RLE.dcm"])
def test_each_frame_has_its_own_pixels_rescale_and_window(name: str) -> None:
    ds = dcmread(pydicom_file(name))
    whole = ds.pixel_array.astype(float)
    ds.SharedFunctionalGroupsSequence = [group("FrameVOILUTSequence", WindowCenter="40", WindowWidth="400")]
    ds.PerFrameFunctionalGroupsSequence = [
        group("PixelValueTransformationSequence", RescaleSlope=str(n + 1), RescaleIntercept="-5") for n in range(10)
    ]
    for index in (0, 9):
        made = film(copy.deepcopy(ds), index, 64)
        assert (made.facts["frames"], made.facts["frame"]) == (10, index + 1)
        assert np.allclose(meanings(made), whole[index] * (index + 1) - 5)
        assert (made.facts["window"]["centre"], made.facts["window"]["width"]) == (40, 400)
    with pytest.raises(UnreadablePixels, match="10 frames"):
        film(ds, 10, 64)


def group(name: str, **elements: str) -> Dataset:
    """A functional group that says one thing."""
    inner, outer = Dataset(), Dataset()
    for keyword, value in elements.items():
        setattr(inner, keyword, value)
    setattr(outer, name, [inner])
    return outer


@pytest.mark.parametrize(
    ("name", "index"), [("SC_rgb_rle.dcm", 0), ("examples_palette.dcm", 0), ("examples_ybr_color.dcm", 29)]
)
def test_colours_come_as_they_are_without_a_window(name: str, index: int) -> None:
    made = film(dcmread(pydicom_file(name)), index, 100)
    assert made.numbers.dtype == np.uint8
    assert made.numbers.shape == (made.facts["height"], made.facts["width"], 3)
    assert (made.levels.size, "window" in made.facts) == (0, False)
    assert np.ptp(made.numbers.reshape(-1, 3), axis=1).max() > 30, "not grey"


def test_what_is_encoded_reads_as_the_script_reads_it(ramp: np.ndarray) -> None:
    made = film(image(ramp), 0, 128)
    data = made.encoded()
    size = struct.unpack_from("<I", data)[0]
    facts = json.loads(data[4 : 4 + size])
    assert facts == made.facts
    levels = np.frombuffer(data, np.uint8, facts["levels"], 4 + size)
    numbers = np.frombuffer(data, "<u2", -1, 4 + size + facts["levels"])
    assert np.array_equal(levels, made.levels)
    assert np.array_equal(numbers.reshape(facts["height"], facts["width"]), made.numbers)


def _no_pixels(ds: Dataset) -> None:
    del ds.PixelData


def _cut(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:-7000]


def _huge(ds: Dataset) -> None:
    ds.Rows = ds.Columns = 65535


def _broken_jpeg(ds: Dataset) -> None:
    compress(ds, "1.2.840.10008.1.2.5")
    ds.PixelData = ds.PixelData[:200] + b"\xff" * (len(ds.PixelData) - 200)


def _no_slope(ds: Dataset) -> None:
    ds.RescaleSlope = "0"


@pytest.mark.parametrize("broken", [_no_pixels, _cut, _huge, _broken_jpeg, _no_slope])
def test_what_cannot_be_shown_says_why(ramp: np.ndarray, broken: Callable[[Dataset], None]) -> None:
    ds = image(ramp)
    broken(ds)
    with pytest.raises((UnreadablePixels, NotForThisClassifier)) as caught:
        film(ds, 0, 256)
    assert len(str(caught.value)) > 10
