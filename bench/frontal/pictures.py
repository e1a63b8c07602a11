"""Every picture at hand for the picture check, each with the source it comes from: all that derives from one is one source.

Real ones: the shared folder beside the checkout, the files of pydicom, pydicom-data and scikit-image; where folders are
given, a chest CT (its projections from the front are chests, from the side they are lateral views) and more DICOM files.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy.ndimage import affine_transform, binary_fill_holes, binary_opening, label, rotate, zoom

from bench.frontal.drawn import KINDS, drawing
from router.classify.drawing import draw
from router.classify.pixels import to_input
from router.classify.resize import resized
from router.errors import RouterError
from tests.samples import SHARED, shared_dicom
from tests.samples import _pydicom_paths as pydicom_paths

SIDE = 224


@dataclass(frozen=True)
class Picture:
    """As a network gets it."""

    source: str
    """Patient, or family of files: never in training and test at once."""
    kind: str
    name: str
    chest: bool | None
    """None: neither; only looked at."""
    pixels: np.ndarray
    """(224, 224), -1024 to 1024."""


def chests() -> list[Picture]:
    """Every frontal chest radiograph of the shared folder."""
    found = []
    for path in shared_dicom():
        if path.parent.name.startswith("chest") and "DOG" not in path.name and not path.name.startswith("chr"):
            found.append((path.name, to_input(dcmread(path, force=True), SIDE)[0]))
    found += [(path.name, _of_file(path)) for path in sorted(SHARED.glob("png/*/*.png"))]
    published = np.load(SHARED / "published_preproc_reference.npz")
    found += [(f"{name} (input as published)", published[name][0]) for name in published]
    return [Picture(_patient(name), "chest", name, True, pixels) for name, pixels in found]


def _patient(name: str) -> str:
    for patient, starts in {
        "FUJI": ("FUJI", "fuji10"),
        "RG1": ("RG1_", "rg1_", "fam_"),
        "NIH 2": ("NIH_google", "nih8", "00000002"),
        "ap_00870a9c": ("hannover_AP",),
    }.items():
        if name.startswith(starts):
            return patient
    nih = re.match(r"(?:nih_)?(\d{8})_", name)
    return f"NIH {int(nih[1])}" if nih else name.split(".", maxsplit=1)[0]


def others(folders: Iterable[Path] = ()) -> list[Picture]:
    """Every picture of DICOM files and of scikit-image that is no frontal chest radiograph of a person."""
    paths = [*shared_dicom(), *pydicom_paths(), *(path for folder in folders for path in sorted(folder.rglob("*.dcm")))]
    known, found = set(), []
    for path in paths:
        if (
            path.name in known
            or path.name.startswith("RG1")
            or (path.parent.name.startswith("chest") and "DOG" not in path.name)
        ):
            continue
        known.add(path.name)
        pixels = _of_dicom(path)
        if pixels is not None and pixels.min() < pixels.max():
            found.append(Picture(_family(path.name), "no chest", path.name, False, pixels))
    folder = Path(skimage.__file__).parent / "data"
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")]):
        found.append(Picture(_family(path.name), "no chest", path.name, False, _of_file(path)))
    return found


def _family(name: str) -> str:
    for family, starts in {
        "US1": ("US1", "examples_jpeg2k", "examples_rgb"),
        "OBXXXX1A": ("OBXXXX1A", "examples_palette"),
        "MR-SIEMENS": ("MR-SIEMENS", "examples_overlay"),
        "heart US": ("color3d", "examples_ybr"),
        "test pattern": ("mlut", "vlut"),
        "SC": ("SC_", "explicit"),
        "NM1": ("NM1", "JPEG-LL", "JPEG2000"),
        "12-bit": ("JPGExt", "JPEG-lossy"),
        "NearLossless": ("JPEGLSNear",),
        "XA1": ("XA1",),
        "CT1": ("CT1",),
    }.items():
        if name.startswith(starts):
            return family
    starts = ("RG2", "RG3", "MR_small", "emri_small", "693", "MR2", "rtdose", "liver", "color-p", "gdcm-US", "image", "ctbrain",
              "motorcycle", "chessboard")  # fmt: skip
    return next((start for start in starts if name.startswith(start)), name.split(".", maxsplit=1)[0])


def projected(folder: Path) -> Iterator[Picture]:
    """A chest CT's projections at angles from the front (0) to the side (90), and its slices."""
    slices = sorted((dcmread(path) for path in folder.glob("*.dcm")), key=lambda ds: -float(ds.ImagePositionPatient[2]))
    volume = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices])
    step = abs(float(slices[1].ImagePositionPatient[2]) - float(slices[0].ImagePositionPatient[2]))
    pixel = float(slices[0].PixelSpacing[0])
    volume = zoom(np.clip(volume, -1000, 2000), (step / 1.5, pixel / 1.5, pixel / 1.5), order=1)
    parts, _ = label(binary_opening(volume > -400, iterations=2))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    body = np.stack([binary_fill_holes(one) for one in parts == sizes.argmax()])  # without the table
    density = np.clip(volume / 1000 + 1, 0, 2.6) * body
    for angle in (0, 10, 180, 20, 30, 45, 60, 75, 90, -90):
        through = rotate(density, angle, axes=(1, 2), reshape=False, order=1).sum(1)
        through /= np.percentile(through, 99.5)
        chest = True if angle in (0, 10, 180) else None if angle in (20, 30) else False
        kind = "CT from the front" if chest else "CT at an angle" if chest is None else "CT from the side"
        for way, image in (
            ("narrow", _collimated(through)),
            ("whole", _squared(through)),
            ("exponential", _collimated(1 - np.exp(-2 * through))),
        ):
            yield Picture("CT", kind, f"{angle} degrees, {way}", chest, _of_array(np.clip(image, 0, 1)))
    for at in range(15, len(volume), 17):
        for window, low, width in (("soft", -160, 400), ("lung", -1350, 1500)):
            image = np.clip((volume[at] - low) / width, 0, 1)
            yield Picture("CT", "CT slice", f"slice {at}, {window} window", False, _of_array(image))
    for at in (60, 90, 120, 150, 180):
        for name, plane in (("coronal", volume[:, at]), ("sagittal", volume[:, :, at])):
            chest = False if name == "sagittal" else None
            kind = "CT slice" if chest is False else "CT coronal slice"
            yield Picture("CT", kind, f"{name} {at}", chest, _of_array(np.clip((plane + 1000) / 1600, 0, 1)))


def _collimated(image: np.ndarray) -> np.ndarray:
    columns = np.flatnonzero(image.max(0) > 0.05)
    return image[:, columns[0] : columns[-1] + 1]


def _squared(image: np.ndarray) -> np.ndarray:
    side = max(image.shape)
    square = np.zeros((side, side))
    top, left = (side - image.shape[0]) // 2, (side - image.shape[1]) // 2
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    return square


def drawings(count: int, first_seed: int) -> list[Picture]:
    """Of every kind that is no chest."""
    return [
        Picture(f"drawn {kind}", f"drawn {kind}", f"{kind} {seed}", False, drawing(kind, seed))
        for kind in KINDS
        for seed in range(first_seed, first_seed + count)
    ]


def phantoms(count: int, first_seed: int) -> list[Picture]:
    """The drawn chests of the demonstration."""
    return [
        Picture("phantom", "phantom", f"phantom {seed}", True, draw(seed, SIDE).pixels * 2048 - 1024)
        for seed in range(first_seed, first_seed + count)
    ]


def spoilt(pixels: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """What must not pass for a chest though it is made of one: turned, the polarity wrong, a small part."""
    for quarter in (1, 2, 3):
        yield f"turned by {90 * quarter} degrees", varied(np.rot90(pixels, quarter), rng)
    yield "black and white exchanged", varied(-pixels, rng)
    side = int(rng.uniform(0.3, 0.5) * SIDE)
    top, left = (int(at) for at in rng.integers(0, SIDE - side, 2))
    part = pixels[top : top + side, left : left + side]
    yield "a small part", _toned(_of_array((part + 1024) / 2048), rng)


def whitened(pixels: np.ndarray, rng: np.random.Generator | None = None) -> Iterator[np.ndarray]:
    """A lung made white, the right one and the left one: those who are most ill must not be refused for it.

    All of the lung without `rng`; with it, to be learnt from, more or less of it.
    """
    row, column = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    for middle in (0.3, 0.7):
        at, width, height, share = (0.47, 0.19, 0.36, 0.9)
        if rng is not None:
            at, width, height = rng.uniform(0.35, 0.65), rng.uniform(0.12, 0.22), rng.uniform(0.15, 0.4)
            share, middle = rng.uniform(0.5, 0.95), middle + rng.uniform(-0.05, 0.05)  # noqa: PLW2901
        inside = 1 - np.sqrt(((column - middle) / width) ** 2 + ((row - at) / height) ** 2)
        amount = share / (1 + np.exp(-np.clip(inside / 0.06, -30, 30)))
        yield pixels + amount * (np.maximum(np.percentile(pixels, 80), pixels) - pixels)


def varied(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As another room would have taken it: moved, turned a little, mirrored, another tone curve, a border, a label."""
    return _labelled(_toned(_moved(pixels, rng), rng), rng)


def _moved(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turn, scale, wide = np.deg2rad(rng.uniform(-8, 8)), 1 / rng.uniform(0.85, 1.2), rng.uniform(0.92, 1.08)
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    matrix, centre = np.array([[cos, -sin], [sin, cos * wide]]), np.full(2, (SIDE - 1) / 2)
    offset = centre - matrix @ (centre + rng.uniform(-0.06, 0.06, 2) * SIDE)
    outside = -1024 if rng.random() < 0.7 else float(pixels.max())
    mode = "constant" if rng.random() < 0.4 else "nearest"
    moved = affine_transform(pixels, matrix, offset, order=1, mode=mode, cval=outside)
    return moved[:, ::-1] if rng.random() < 0.5 else moved


def _toned(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    curve = np.clip((pixels + 1024) / 2048, 0, 1) ** rng.uniform(0.5, 1.8)
    return curve * 2048 - 1024 + rng.standard_normal(pixels.shape) * rng.uniform(0, 40)


def _labelled(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pixels = pixels.copy()
    if rng.random() < 0.25:
        width, value = int(rng.uniform(0, 0.09) * SIDE), -1024 if rng.random() < 0.7 else 1024
        edges = (pixels[:width], pixels[SIDE - width :], pixels[:, :width], pixels[:, SIDE - width :])
        edges[rng.integers(0, 4)][...] = value
    if rng.random() < 0.3:
        top, left = rng.integers(0, SIDE - 20, 2)
        pixels[top : top + rng.integers(4, 18), left : left + rng.integers(6, 30)] = 1024
    return pixels


def _of_dicom(path: Path) -> np.ndarray | None:
    """One frame in grey, stretched where it is no radiograph; None when there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = dcmread(path, force=True)
            return to_input(ds, SIDE)[0]
        except RouterError:
            pass
        except Exception:  # noqa: BLE001 - samples of broken files
            return None
        try:
            return _of_array(_stretched(ds))
        except Exception:  # noqa: BLE001
            return None


def _stretched(ds: Dataset) -> np.ndarray:
    values = ds.pixel_array
    frames = int(ds.get("NumberOfFrames", 1) or 1)
    values = values[frames // 2] if frames > 1 else values
    values = (values[..., :3].mean(-1) if values.ndim == 3 else values).astype(np.float64)
    if ds.get("PhotometricInterpretation") == "MONOCHROME1":
        values = -values
    return (values - values.min()) / max(float(np.ptp(values)), 1e-9)


def _of_file(path: Path) -> np.ndarray:
    values = np.asarray(Image.open(path))
    grey = (values[..., :3].mean(-1) if values.ndim == 3 else values).astype(np.float64)
    return _of_array(grey / (1 if grey.max() <= 1 else 255 if grey.max() <= 255 else 65535))


def _of_array(values: np.ndarray) -> np.ndarray:
    """The central square of values 0..1, as `to_input` gives it."""
    side = min(values.shape)
    top, left = values.shape[0] // 2 - side // 2, values.shape[1] // 2 - side // 2
    square = np.round(values[top : top + side, left : left + side] * 65535).astype(np.uint16)
    return resized(square, SIDE, scale=2048 / 65535, offset=-1024)
