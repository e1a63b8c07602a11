"""A picture shows an image as a viewer would: window, polarity and padding as the header asks, within bounds."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from pydicom import Dataset

from router.classify.decode import stored_values
from router.classify.display import displayed
from router.classify.phantom import phantom_dicom
from router.core.sight import Window


def image(values: np.ndarray, **elements: object) -> Dataset:
    """A radiograph with these stored values and nothing that says how to show them."""
    ds = phantom_dicom(1, rows=values.shape[0], columns=values.shape[1], bits_stored=12)
    for keyword in ("WindowCenter", "WindowWidth"):
        del ds[keyword]
    ds.PixelData = values.astype(np.uint16).tobytes()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def grey(ds: Dataset) -> np.ndarray:
    return displayed(ds, stored_values(ds))[0]


def window(ds: Dataset) -> Window | None:
    return displayed(ds, stored_values(ds))[1]


@pytest.fixture
def ramp() -> np.ndarray:
    """0 to 4095 from left to right."""
    return np.linspace(0, 4095, 512).round()[None].repeat(512, 0)


def test_the_first_of_several_windows_is_used(ramp: np.ndarray) -> None:
    ds = image(ramp, WindowCenter=["1000", "3000"], WindowWidth=["200", "2000"])
    shown = grey(ds)
    assert shown.shape == (1024, 1024)
    assert shown[500, 100] == 0  # 400
    assert shown[500, 300] == 255  # 1200
    assert abs(int(shown[500, 250]) - 128) < 12
    said = window(ds)
    assert said is not None
    assert (said.centre, said.width, said.function, said.inverted) == (1000, 200, "LINEAR", False)


@pytest.mark.parametrize(
    ("function", "at_900"), [("LINEAR_EXACT", 0.0), ("SIGMOID", 255 / (1 + np.exp(2))), ("LINEAR", 0.0)]
)
def test_windows_follow_their_function(ramp: np.ndarray, function: str, at_900: float) -> None:
    ds = image(ramp, WindowCenter="1000", WindowWidth="200", VOILUTFunction=function)
    shown = grey(ds)
    assert abs(float(shown[500, round(900 / 4095 * 1024)]) - at_900) < 6
    assert abs(float(shown[500, 250]) - 128) < 12


def test_a_rescale_comes_before_the_window(ramp: np.ndarray) -> None:
    plain = image(ramp, WindowCenter="1000", WindowWidth="200")
    rescaled = image(ramp, WindowCenter="1500", WindowWidth="400", RescaleSlope="2", RescaleIntercept="-500")
    assert np.abs(grey(plain).astype(int) - grey(rescaled)).max() <= 2
    said = window(rescaled)
    assert said is not None
    assert (said.slope, said.intercept) == (2, -500)


@pytest.mark.parametrize("windowed", [True, False])
def test_both_polarities_show_the_same_picture(windowed: bool) -> None:
    two = phantom_dicom(9, rows=300, columns=200)
    one = phantom_dicom(9, rows=300, columns=200, photometric="MONOCHROME1")
    if not windowed:
        for ds in (one, two):
            del ds.WindowCenter, ds.WindowWidth
    assert np.abs(grey(one).astype(int) - grey(two)).max() <= 2
    said = window(one)
    assert said is not None
    assert said.inverted


@pytest.mark.parametrize(
    "useless",
    [
        {},
        {"WindowCenter": "100000", "WindowWidth": "10"},
        {"WindowCenter": "2000", "WindowWidth": "0"},
        {"WindowCenter": "", "WindowWidth": ""},
    ],
    ids=["none", "far off", "without width", "empty"],
)
def test_without_a_usable_window_the_values_themselves_say_black_and_white(
    ramp: np.ndarray, useless: dict[str, str]
) -> None:
    shown = grey(image(1000 + ramp / 8, **useless))
    assert shown[500, 5] < 5
    assert shown[500, 1018] > 250


def test_padding_is_black_whatever_the_polarity(ramp: np.ndarray) -> None:
    ramp[:200] = 0
    ds = image(ramp, PhotometricInterpretation="MONOCHROME1")
    ds.add_new("PixelPaddingValue", "US", 0)
    shown = grey(ds)
    assert not shown[:390].any()
    assert shown[800, 20] > 250


def test_a_voi_lut_goes_before_a_window(ramp: np.ndarray) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 8])
    table.add_new("LUTData", "US", [255 if n >= 2048 else 0 for n in range(4096)])
    ds = image(ramp, WindowCenter="100", WindowWidth="100")
    ds.VOILUTSequence = [table]
    shown = grey(ds)
    assert shown[500, 480] == 0
    assert shown[500, 540] == 255


def test_a_picture_of_a_modality_lut_has_no_window_that_could_be_told(ramp: np.ndarray) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.add_new("LUTData", "US", [16 * n for n in range(4096)])
    ds = image(ramp)
    ds.ModalityLUTSequence = [table]
    shown, said = displayed(ds, stored_values(ds))
    assert said is None
    assert shown[500, 5] < 5 < 250 < shown[500, 1018]


def test_values_of_more_than_16_bits_are_shown_too() -> None:
    values = np.linspace(0, 2**31 - 1, 300 * 200).reshape(300, 200).astype(np.uint32)
    ds = image(np.zeros((300, 200)))
    shown, _ = displayed(ds, values)
    assert shown.shape == (1024, 683)
    assert shown[5].max() < 10
    assert shown[-5].min() > 245


def test_a_large_image_costs_some_bytes_a_pixel_and_no_more() -> None:
    values = np.random.default_rng(1).integers(0, 60000, (3000, 3000), np.uint16)
    ds = image(np.zeros((8, 8)))
    tracemalloc.start()
    try:
        displayed(ds, values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * values.size


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (3, 900), (1024, 1), (2000, 700)])
def test_every_shape_keeps_its_aspect_ratio(rows: int, columns: int) -> None:
    shown, _ = displayed(image(np.zeros((8, 8))), np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns))
    assert max(shown.shape) == 1024
    assert shown.shape[0] / shown.shape[1] == pytest.approx(rows / columns, rel=0.01) or min(shown.shape) < 60
