"""Chest phantoms: frontal radiographs drawn from a seed, with findings that are known because they were drawn.

They look like chest radiographs the way a street sign looks like a street. They exist so that the project can show and test
the whole way of an image without a patient's picture and without anyone's weights. Same seed and size, same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.floating[Any]]

LABELS: tuple[str, ...] = ("Effusion", "Pneumothorax", "Cardiomegaly", "Nodule")

#: How often each finding is drawn when the caller does not say.
PREVALENCE = 0.4
#: Softness of drawn edges, as a part of the image's side.
_EDGE = 0.006


@dataclass(frozen=True, slots=True)
class Phantom:
    """One drawn radiograph: `pixels` float32 (side, side) in [0, 1], 0 is black; `findings` in the order of LABELS."""

    pixels: FloatImage
    findings: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Lung:
    mask: FloatImage
    centre: float
    width: float

    @property
    def side(self) -> float:
        return float(np.sign(self.centre))


def draw(seed: int, side: int, findings: Sequence[bool] | None = None) -> Phantom:
    """The phantom of a seed at `side` x `side` pixels; `findings` overrides what the seed would draw."""
    rng = np.random.default_rng(seed)
    drawn = rng.random(len(LABELS)) < PREVALENCE
    shown = tuple(bool(x) for x in (drawn if findings is None else findings))
    effusion, pneumothorax, cardiomegaly, nodule = shown
    u, v, to_pixel = _pose(rng, side)

    body = _step(1 - np.sqrt((u / rng.uniform(0.44, 0.5)) ** 2 + ((v - 0.25) / 0.85) ** 2), 0.02)
    image = 0.62 * body + 0.10 * body * (v + 0.5)
    half_thorax, dome, apex = rng.uniform(0.33, 0.37), rng.uniform(0.20, 0.26), -rng.uniform(0.34, 0.38)
    lungs = [_lung(rng, u, v, side=s, half_thorax=half_thorax, dome=dome, apex=apex) for s in (-1, 1)]
    air = np.maximum(lungs[0].mask, lungs[1].mask)
    depth = 0.38 + 0.025 * rng.normal()
    image -= depth * air

    vessels = _vessels(rng, u, v, side) * air
    bones = _bones(rng, u, v, half_thorax)
    ratio = rng.uniform(0.54, 0.66) if cardiomegaly else rng.uniform(0.36, 0.46)
    heart = _heart(rng, u, v, ratio=ratio, half_thorax=half_thorax)

    if pneumothorax:
        free, line = _pneumothorax(rng, u, v, lungs[rng.integers(2)], apex)
        vessels *= 1 - free
        image += 0.14 * line - 0.14 * free
    image += vessels * (1 - 0.7 * heart) + bones
    image += (0.30 + 0.04 * rng.normal()) * heart * np.clip(air + 0.15, 0, 1)
    if effusion:
        image += _effusion(rng, u, v, lungs[rng.integers(2)], dome) * depth * 0.85 * (1 - 0.9 * heart)
    if nodule:
        image += _nodule(rng, u, v, lungs, heart, apex=apex, dome=dome, to_pixel=to_pixel)
    return Phantom(_exposed(rng, image, side), shown)


def _pose(rng: np.random.Generator, side: int) -> tuple[FloatImage, FloatImage, tuple[float, float, float]]:
    """Body coordinates of every pixel (0, 0 in the middle, v grows downwards), slightly moved, turned and scaled."""
    x, y = _grid(side)
    cx, cy = 0.5 + rng.normal() * 0.015, 0.5 + rng.normal() * 0.02
    zoom, turn = 1 + rng.normal() * 0.05, rng.normal() * 0.03
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u = ((x - cx) * cos + (y - cy) * sin) / zoom
    v = (-(x - cx) * sin + (y - cy) * cos) / zoom
    return u.astype(np.float32), v.astype(np.float32), (cx, cy, zoom)


@lru_cache(maxsize=8)
def _grid(side: int) -> tuple[FloatImage, FloatImage]:
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / np.float32(side - 1)
    return x, y


def _lung(
    rng: np.random.Generator, u: FloatImage, v: FloatImage, *, side: int, half_thorax: float, dome: float, apex: float
) -> _Lung:
    width = half_thorax * rng.uniform(0.43, 0.47)
    centre = side * (half_thorax - width + 0.005)
    top = (v + 0.03) / (-0.03 - apex)  # -1 at the apex
    half = np.where(v < -0.03, np.where(np.abs(top) < 1, np.sqrt(np.clip(1 - top**2, 0, 1)), -1.0), 1.0) * width
    arch = np.cos(np.clip((u - centre) / width, -1, 1) * np.pi / 2)
    diaphragm = dome + 0.04 * (side == 1) - 0.07 * arch + 0.05
    mask = _step(half - np.abs(u - centre), _EDGE) * _step(diaphragm - v, _EDGE)
    return _Lung(mask.astype(np.float32), float(centre), float(width))


def _vessels(rng: np.random.Generator, u: FloatImage, v: FloatImage, side: int) -> FloatImage:
    hila = np.exp(-((np.abs(u) - 0.09) ** 2) / 0.02 - (v + 0.02) ** 2 / 0.05)
    texture = _noise(rng, side, cells=28, amplitude=0.05) + _noise(rng, side, cells=56, amplitude=0.03)
    return np.asarray(np.abs(texture) * (0.5 + 1.6 * hila))


def _bones(rng: np.random.Generator, u: FloatImage, v: FloatImage, half_thorax: float) -> FloatImage:
    count, phase, strength = rng.uniform(13, 16), rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.07)
    ribs = np.clip(np.sin(count * 2 * np.pi * 0.55 * (v + u * u) + phase), 0, 1) ** 3
    ribs *= strength * _step(half_thorax + 0.04 - np.abs(u), 0.02) * _step(0.33 - v, 0.05)
    clavicles = np.exp(-(((v + 0.33 - 0.12 * np.abs(u)) / 0.012) ** 2)) * _step(0.34 - np.abs(u), 0.02)
    spine = np.exp(-((u / 0.035) ** 2))
    return np.asarray(ribs + 0.08 * clavicles + 0.12 * spine)


def _heart(rng: np.random.Generator, u: FloatImage, v: FloatImage, *, ratio: float, half_thorax: float) -> FloatImage:
    """Heart and mediastinum; `ratio` is the cardiothoracic ratio."""
    radius = ratio * half_thorax
    heart = _step(
        1 - np.sqrt(((u - 0.28 * radius - 0.01) / radius) ** 2 + ((v - 0.13) / (0.13 + 0.12 * ratio)) ** 2), 0.04
    )
    middle = _step(0.055 + 0.02 * rng.random() - np.abs(u), 0.012) * _step(0.3 - v, 0.05)
    return np.maximum(heart, 0.8 * middle)


def _pneumothorax(
    rng: np.random.Generator, u: FloatImage, v: FloatImage, lung: _Lung, apex: float
) -> tuple[FloatImage, FloatImage]:
    """Air round a collapsed lung, without vessels, and the line of the pleura, which is rounded at the top."""
    left = rng.uniform(0.60, 0.80)
    reach = _step(rng.uniform(0.05, 0.22) - v, 0.03) * lung.mask
    inner = lung.centre - lung.side * lung.width * (1 - left) * 0.9
    width, top = lung.width * left, apex + 0.05 + 0.10 * (1 - left)
    shoulder = top + width  # above it the border is a half circle, below it runs straight down
    inside = width - np.hypot(u - inner, np.minimum(v - shoulder, 0))
    return reach * (1 - _step(inside, _EDGE)), reach * np.exp(-((inside / 0.005) ** 2))


def _effusion(rng: np.random.Generator, u: FloatImage, v: FloatImage, lung: _Lung, dome: float) -> FloatImage:
    """Fluid over the diaphragm whose surface climbs towards the chest wall."""
    level = dome + 0.05 - rng.uniform(0.07, 0.24)
    outwards = np.clip((u - lung.centre) * lung.side / lung.width, -1, 1)
    surface = level - 0.06 * outwards**2 * (outwards > 0) - 0.02 * outwards
    return lung.mask * _step(v - surface, 0.012)


def _nodule(
    rng: np.random.Generator,
    u: FloatImage,
    v: FloatImage,
    lungs: Sequence[_Lung],
    heart: FloatImage,
    *,
    apex: float,
    dome: float,
    to_pixel: tuple[float, float, float],
) -> FloatImage:
    """A round density inside a lung, where heart and mediastinum do not hide it."""
    cx, cy, zoom = to_pixel
    last = heart.shape[0] - 1
    at_u = at_v = 0.0
    for _ in range(20):
        lung = lungs[int(rng.integers(2))]
        at_u, at_v = lung.centre + rng.uniform(-0.8, 0.8) * lung.width, rng.uniform(apex + 0.1, dome - 0.10)
        row = int(np.clip((at_v * zoom + cy) * last, 0, last))
        column = int(np.clip((at_u * zoom + cx) * last, 0, last))
        if lung.mask[row, column] > 0.9 and heart[row, column] < 0.3:
            break
    radius = rng.uniform(0.026, 0.048)
    return np.asarray(rng.uniform(0.22, 0.34) * _step(1 - np.sqrt((u - at_u) ** 2 + (v - at_v) ** 2) / radius, 0.12))


def _exposed(rng: np.random.Generator, image: FloatImage, side: int) -> FloatImage:
    """Uneven exposure, quantum noise, and a tone curve."""
    image = image + _noise(rng, side, cells=5, amplitude=0.02)
    curve, grain, gain, bias = (
        rng.uniform(0.8, 1.25),
        rng.uniform(0.004, 0.015),
        rng.uniform(0.9, 1.1),
        rng.normal() * 0.03,
    )
    # Last, because it takes as many random numbers as there are pixels: so a seed is the same chest at every size.
    image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(grain)
    return np.asarray(np.clip(image * gain + bias, 0, 1) ** curve, dtype=np.float32)


def _noise(rng: np.random.Generator, side: int, *, cells: int, amplitude: float) -> FloatImage:
    """Smooth noise: random values on a grid of `cells` x `cells`, interpolated."""
    knots = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    at = np.linspace(0, cells, side, dtype=np.float32)
    below = np.minimum(at.astype(np.int64), cells - 1)
    part = at - below
    rows = knots[below] * (1 - part)[:, None] + knots[below + 1] * part[:, None]
    return np.asarray(amplitude * (rows[:, below] * (1 - part) + rows[:, below + 1] * part))


def _step(distance: FloatImage, softness: float) -> FloatImage:
    """1 where `distance` is positive, 0 where it is negative, soft between."""
    return np.asarray(1 / (1 + np.exp(np.clip(-distance / np.float32(softness), -30, 30))), dtype=np.float32)
