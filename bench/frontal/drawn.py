"""Pictures that are no chest, drawn: of what a hospital has and this project has no radiograph of. Same seed, same picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw

SIDE = 224
_y, _x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / (SIDE - 1)
Rng = np.random.Generator
Draw = Callable[[Rng], np.ndarray]


def hand(rng: Rng) -> np.ndarray:
    """Five fingers with bones."""
    turn, cx, cy = rng.normal() * 0.15, 0.5 + rng.normal() * 0.05, 0.72
    image = 0.45 * _ellipse(cx, cy, 0.17, 0.2)
    for finger, angle in enumerate(np.linspace(-0.55, 0.5, 5) + turn):
        length = rng.uniform(0.42, 0.5) * (0.7 if finger == 0 else 1)
        root, tip = (cx + np.sin(angle) * 0.14, cy - np.cos(angle) * 0.14), 0.14 + length
        end = (cx + np.sin(angle) * tip, cy - np.cos(angle) * tip)
        image = np.maximum(image, 0.4 * _rod(*root, *end, 0.045, 0.012)) + 0.35 * _rod(cx, cy, *end, 0.015)
    return image + 0.4 * _rod(cx, cy + 0.1, cx, 1.2, 0.08)


def hands(rng: Rng) -> np.ndarray:
    """Two of them."""
    one = np.asarray(Image.fromarray(hand(rng)).resize((SIDE // 2, SIDE)))
    return np.hstack([one, one[:, ::-1]])


def leg(rng: Rng) -> np.ndarray:
    """One knee or two, from the front."""
    image, count = np.zeros((SIDE, SIDE), np.float32), rng.integers(1, 3)
    for number in range(count):
        centre = (0.5 if count == 1 else 0.27 + 0.46 * number) + rng.normal() * 0.03
        width, lean, knee = rng.uniform(0.12, 0.18), rng.normal() * 0.03, rng.uniform(0.3, 0.7)
        top, bottom = (centre - lean, -0.2), (centre + lean, 1.2)
        image += 0.4 * _rod(*top, *bottom, width, 0.02) + 0.35 * _rod(*top, *bottom, width * 0.35)
        image += 0.25 * _ellipse(centre, knee - 0.05, width * 0.6, 0.06)
        image += 0.25 * _ellipse(centre, knee + 0.06, width * 0.6, 0.05)
        image -= 0.15 * _rod(*top, *bottom, width * 0.12) + 0.2 * _ellipse(centre, knee, width * 0.6, 0.01)
    return image


def pelvis(rng: Rng) -> np.ndarray:
    """Hip bones, hip joints and sacrum: as symmetrical as a chest."""
    image, wing = 0.35 * _ellipse(0.5, 0.5, 0.6, 0.9), rng.uniform(0.2, 0.24)
    for side in (-1, 1):
        image += 0.35 * _ellipse(0.5 + side * wing, 0.32, 0.15, 0.2, side * 0.5)
        image += 0.2 * _ellipse(0.5 + side * 0.2, 0.68, 0.1, 0.1) - 0.15 * _ellipse(0.5 + side * 0.1, 0.78, 0.05, 0.06)
        image += 0.35 * _rod(0.5 + side * 0.24, 0.62, 0.5 + side * 0.34, 0.75, 0.05)
        image += 0.3 * _rod(0.5 + side * 0.34, 0.75, 0.5 + side * 0.32, 1.3, 0.06)
    image += 0.3 * _rod(0.5, -0.1, 0.5, 0.35, 0.06) + 0.25 * _ellipse(0.5, 0.38, 0.09, 0.12)
    return image - 0.1 * _ellipse(0.5, 0.55, 0.1, 0.09) + _clouds(rng, 12, 0.03)


def abdomen(rng: Rng) -> np.ndarray:
    """Gas in bowels round a spine."""
    image = 0.55 * _ellipse(0.5, 0.5, rng.uniform(0.42, 0.55), 0.9) + 0.25 * _rod(0.5, -0.1, 0.5, 1.1, 0.05)
    for _ in range(rng.integers(6, 14)):
        place = (rng.uniform(0.15, 0.85), rng.uniform(0.2, 0.9), rng.uniform(0.03, 0.12), rng.uniform(0.03, 0.09))
        image -= rng.uniform(0.05, 0.2) * _ellipse(*place, rng.uniform(0, 3))
    if rng.random() < 0.5:  # the lungs' lower ends
        image -= 0.2 * _ellipse(0.25, 0.02, 0.15, 0.1) + 0.2 * _ellipse(0.75, 0.03, 0.15, 0.1)
    for side in (-1, 1):
        image += 0.2 * _ellipse(0.5 + side * 0.3, 0.95, 0.15, 0.15)
    return image + _clouds(rng, 10, 0.02)


def skull(rng: Rng) -> np.ndarray:
    """From the front."""
    head = _ellipse(0.5, 0.42, 0.33, 0.4)
    image = 0.75 * head - 0.2 * _ellipse(0.5, 0.42, 0.3, 0.37) + 0.35 * _ellipse(0.5, 0.8, 0.2, 0.25)
    for side in (-1, 1):
        image -= 0.2 * _ellipse(0.5 + side * 0.13, 0.5, 0.08, 0.07)
    return (
        image
        - 0.25 * _ellipse(0.5, 0.64, 0.05, 0.08)
        + 0.3 * _rod(0.38, 0.85, 0.62, 0.85, 0.02)
        + _clouds(rng, 20, 0.02)
    )


def lateral(rng: Rng) -> np.ndarray:
    """A chest from the side, facing either way."""
    facing_right = rng.random() < 0.5
    image = 0.6 * _ellipse(0.5, 0.55, rng.uniform(0.36, 0.42), 0.75)
    lung = _ellipse(0.5, 0.45, 0.27, 0.36, rng.normal() * 0.1) * _soft(0.75 - 0.1 * _x - _y, 0.02)
    image += 0.28 * _ellipse(0.4, 0.6, 0.16, 0.15, -0.5) - 0.35 * lung
    image += 0.22 * _rod(0.74, -0.05, 0.68, 0.5, 0.05) + 0.18 * _rod(0.68, 0.5, 0.72, 1.2, 0.05)
    for rib in np.linspace(0.1, 0.75, 9):
        image += 0.07 * _rod(0.25, rib + 0.12, 0.78, rib - 0.03, 0.01)
    image += 0.1 * _rod(0.2, 0.2, 0.22, 0.6, 0.012) + 0.3 * _ellipse(0.5, 0.02, 0.25, 0.12) + _clouds(rng, 24, 0.02)
    return image[:, ::-1] if facing_right else image


def ct_slice(rng: Rng) -> np.ndarray:
    """Across chest or belly."""
    half_width, half_height = rng.uniform(0.36, 0.46), rng.uniform(0.26, 0.36)
    image = 0.55 * _ellipse(0.5, 0.5, half_width, half_height)
    if rng.random() < 0.7:
        for side in (-1, 1):
            image -= 0.5 * _ellipse(0.5 + side * half_width * 0.5, 0.5, half_width * 0.35, half_height * 0.65)
        image += 0.3 * _ellipse(0.47, 0.45, half_width * 0.25, half_height * 0.35)
    else:
        for _ in range(8):
            image += rng.uniform(-0.1, 0.12) * _ellipse(rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.65), 0.05, 0.05)
    image += 0.3 * _ellipse(0.5, 0.5 + half_height * 0.6, 0.05, 0.05)
    return np.clip(image * 2.2 - 0.6, 0, 1) if rng.random() < 0.5 else image


def breast(rng: Rng) -> np.ndarray:
    """A mammogram."""
    image = 0.5 * _ellipse(0, 0.5, rng.uniform(0.4, 0.6), rng.uniform(0.35, 0.45)) + 0.2 * _ellipse(0.1, 0.5, 0.3, 0.2)
    image = image * (1 + _clouds(rng, 14, 0.2))
    return image[:, ::-1] if rng.random() < 0.5 else image


def screenshot(rng: Rng) -> np.ndarray:
    """Boxes and words."""
    ground = int(rng.choice([0, 20, 40, 200, 240, 255]))
    image, ink = Image.new("L", (SIDE, SIDE), ground), 255 if ground < 128 else 0
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 6)):
        left, top = (int(at) for at in rng.integers(0, SIDE - 40, 2))
        corner = (left + int(rng.integers(20, 160)), top + int(rng.integers(10, 120)))
        pen.rectangle([left, top, *corner], fill=int(rng.integers(0, 256)), outline=ink)
    for _ in range(rng.integers(4, 26)):
        at = tuple(int(place) for place in rng.integers(0, SIDE - 30, 2))
        pen.text(at, "".join(chr(letter) for letter in rng.integers(97, 122, rng.integers(4, 30))), fill=ink)
    return np.asarray(image, np.float32) / 255


def plain(rng: Rng) -> np.ndarray:
    """Noise, slopes, clouds, spots, chequers and a disc."""
    kind = rng.integers(0, 6)
    if kind == 0:
        return rng.random((SIDE, SIDE)).astype(np.float32)
    if kind == 1:
        angle = rng.uniform(0, 6)
        return np.cos(angle) * _x + np.sin(angle) * _y
    if kind == 2:
        return _clouds(rng, int(rng.choice([3, 5, 9, 20, 50])), 0.3)
    if kind == 3:
        place, sign = (*rng.uniform(0.2, 0.8, 2), *rng.uniform(0.1, 0.5, 2)), rng.choice([-1, 1])
        return 0.5 + 0.3 * sign * _ellipse(*place, rng.uniform(0, 3), 0.03)
    if kind == 4:
        return (np.floor(_x * rng.integers(2, 20)) + np.floor(_y * rng.integers(1, 20))) % 2
    return np.where(_ellipse(0.5, 0.5, 0.45, 0.45) > 0.5, 0.4 + _clouds(rng, 16, 0.1), 0)


def bars(rng: Rng) -> np.ndarray:
    """Stripes up or across."""
    image, along = np.zeros((SIDE, SIDE), np.float32), _x if rng.random() < 0.5 else _y
    for _ in range(rng.integers(1, 5)):
        centre, width = rng.random(), rng.uniform(0.03, 0.25)
        image += rng.uniform(-1, 1) * _soft(width - np.abs(along - centre), 0.02)
    return image


KINDS: Mapping[str, Draw] = {
    draw.__name__.replace("_", " "): draw
    for draw in (hand, hands, leg, pelvis, abdomen, skull, lateral, ct_slice, breast, screenshot, plain, bars)
}


def drawing(kind: str, seed: int) -> np.ndarray:
    """(224, 224) as a network gets it: -1024 to 1024."""
    rng = np.random.default_rng([seed, *kind.encode()])
    image = KINDS[kind](rng).astype(np.float32)
    image = ((image - image.min()) / max(float(np.ptp(image)), 1e-6)) ** rng.uniform(0.6, 1.6)
    image += rng.standard_normal(image.shape).astype(np.float32) * rng.uniform(0, 0.02)
    return np.clip(image, 0, 1) * 2048 - 1024


def _soft(distance: np.ndarray, softness: float) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip(-distance / softness, -30, 30)))


def _ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0, softness: float = 0.01) -> np.ndarray:
    cos, sin = np.cos(turn), np.sin(turn)
    u, v = (_x - cx) * cos + (_y - cy) * sin, -(_x - cx) * sin + (_y - cy) * cos
    return _soft((1 - np.sqrt((u / rx) ** 2 + (v / ry) ** 2)) * min(rx, ry), softness)


def _rod(x0: float, y0: float, x1: float, y1: float, width: float, softness: float = 0.006) -> np.ndarray:
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((_x - x0) * dx + (_y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    return _soft(width - np.hypot(_x - x0 - along * dx, _y - y0 - along * dy), softness)


def _clouds(rng: Rng, cells: int, amplitude: float) -> np.ndarray:
    knots = rng.standard_normal((cells, cells)).astype(np.float32)
    return amplitude * np.asarray(Image.fromarray(knots).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
