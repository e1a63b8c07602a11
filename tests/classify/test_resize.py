"""The two-matrix resize is scikit-image's, within float32 rounding of a 2048 range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.classify.resize import resized

skimage_transform = pytest.importorskip("skimage.transform")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    length=st.integers(3, 700),
    side=st.sampled_from([16, 112, 224]),
    bits=st.sampled_from([8, 10, 12, 16]),
    inverted=st.booleans(),
    part=st.sampled_from([(0.0, 1.0), (0.75, 1.0), (0.0, 0.2), (0.5, 0.5)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_resize_equals_scikit_image(length, side, bits, inverted, part, seed) -> None:
    white = 2**bits - 1
    low, high = int(part[0] * white), int(part[1] * white)
    image = np.random.default_rng(seed).integers(low, high, (length, length), endpoint=True, dtype=np.uint16)
    scale, offset = (-2048 / white, 1024.0) if inverted else (2048 / white, -1024.0)
    scaled = (image * scale + offset).astype(np.float32)
    theirs = skimage_transform.resize(scaled, (side, side), mode="constant", preserve_range=True)
    np.testing.assert_allclose(resized(image, side, scale=scale, offset=offset), theirs, rtol=0, atol=0.01)


@pytest.mark.parametrize("length", [1841, 2600, 3100])
def test_large_images_which_are_resized_in_parts_equal_scikit_image(length: int) -> None:
    image = np.random.default_rng(length).integers(0, 4095, (length, length), endpoint=True, dtype=np.uint16)
    scaled = (image * (2048 / 4095) - 1024).astype(np.float32)
    theirs = skimage_transform.resize(scaled, (224, 224), mode="constant", preserve_range=True)
    np.testing.assert_allclose(resized(image, 224, scale=2048 / 4095, offset=-1024), theirs, rtol=0, atol=0.01)


def test_values_are_clipped_to_the_extremes_that_are_told() -> None:
    image = np.full((300, 300), 7, np.uint16)
    image[100, 100] = 9
    told = resized(image, 64, scale=1, offset=0, extremes=(7, 9))
    np.testing.assert_array_equal(told, resized(image, 64, scale=1, offset=0))
    assert resized(image, 64, scale=1, offset=0, extremes=(8, 9)).min() == 8


def test_an_image_of_the_right_size_is_only_scaled() -> None:
    image = np.arange(224 * 224, dtype=np.uint16).reshape(224, 224)
    np.testing.assert_allclose(resized(image, 224, scale=0.5, offset=-7), image * 0.5 - 7, atol=2e-3)


def test_only_squares_are_resized() -> None:
    with pytest.raises(ValueError, match="square"):
        resized(np.zeros((3, 4), np.uint8), 2, scale=1, offset=0)
