"""A radiograph with the map over it and words below it, for viewers that show pictures and nothing else.

The map never hides the radiograph: it is see-through, and nowhere drawn where it does not speak for a finding. Words stand
beside the image, not on it, so large that they can be read on a phone. No name, number or date of a patient is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from router.core.findings import Prediction
from router.core.sight import Heat, Sight
from router.report.attachment import named, present, scored
from router.report.codes import ascii_text
from router.report.outline import outlines

if TYPE_CHECKING:
    from numpy.typing import NDArray

WARNING = "AI RESULT - NOT FOR DIAGNOSTIC USE"
DEMONSTRATION = "DEMONSTRATION: trained on drawings, no clinical meaning"

Colour = tuple[int, int, int]
_BACKGROUND: Colour = (12, 12, 14)
_PAPER_WHITE: Colour = (238, 238, 238)
_QUIET: Colour = (170, 170, 175)
_YELLOW: Colour = (255, 214, 10)
_RED: Colour = (255, 105, 97)
#: One for each finding that is outlined: told apart also by those who do not see red and green.
FINDING_COLOURS: tuple[Colour, ...] = ((255, 159, 10), (100, 210, 255), (232, 130, 255))
#: Of the map: from where it begins to speak for the finding, to its strongest place.
_COOL, _HOT = np.array((255, 190, 0), np.float32), np.array((235, 30, 0), np.float32)
_OPACITY_MAX = 0.45
#: Below this share of the strongest place nothing is coloured: a breath of colour everywhere hides what matters.
_SHARE_MIN = 0.2
_UNSEEN_BRIGHTNESS = 0.45
_HATCH_PERIOD, _HATCH_WIDTH, _HATCH_GREY = 16, 2, 120
#: As parts of the picture's width: on a phone, 360 wide, text is 12 and 10 points high.
_TEXT, _SMALL = 0.034, 0.028
_WIDTH_MIN = 768
_LISTED_MAX = 6
JPEG_QUALITY = 85


def picture(sight: Sight, prediction: Prediction) -> NDArray[np.uint8]:
    """(height, width, 3), RGB: the whole object that a viewer shows."""
    image = Image.fromarray(radiograph(sight))
    width = max(image.width, _WIDTH_MIN)
    above = _laid_out(_headline(prediction), width)
    below = _laid_out(_legend(sight, prediction), width)
    whole = Image.new("RGB", (width, above.height + image.height + below.height), _BACKGROUND)
    whole.paste(above, (0, 0))
    whole.paste(image, ((width - image.width) // 2, above.height))
    whole.paste(below, (0, above.height + image.height))
    return np.asarray(whole)


def radiograph(sight: Sight) -> NDArray[np.uint8]:
    """(height, width, 3), RGB: the image, the map of its strongest finding, outlines, and what was not seen hatched."""
    image = Image.fromarray(sight.grey).convert("RGB")
    if sight.heats:
        image = _warmed(image, sight.heats[0])
    _hatch(image, sight)
    draw = ImageDraw.Draw(image)
    _frame(draw, sight, image)
    line = max(2, round(max(image.size) * 0.003))
    places: list[tuple[float, float]] = []
    for polygon in outlines(sight.heats[0].values) if sight.heats else ():
        draw.line([*polygon, polygon[0], polygon[1]], fill=FINDING_COLOURS[0], width=line, joint="curve")
    for number, (heat, colour) in enumerate(zip(sight.heats, FINDING_COLOURS, strict=False), 1):
        if heat.values.max() > 0:
            _tag(draw, str(number), colour, heat, size=round(max(image.size) * _TEXT), taken=places)
    return np.asarray(image)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """JPEG baseline, colour at half the horizontal resolution, as YBR_FULL_422 says (PS3.3 C.7.6.3.1.2)."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:2", optimize=False)
    return stream.getvalue()


def coloured(values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The colours of a map, (height, width, 3), and how much of its strongest place each is: 0 where it says nothing."""
    highest = float(values.max())
    share = np.zeros(values.shape, np.uint8)
    if highest > 0:
        above = (values - _SHARE_MIN * highest) * (255 / (1 - _SHARE_MIN) / highest)
        share = np.clip(above, 0, 255).astype(np.uint8)
    return np.linspace(_COOL, _HOT, 256).round().astype(np.uint8)[share], share


def hatched(y: Any, x: Any) -> NDArray[np.bool_]:
    """Where the lines of a hatching run."""
    return np.asarray((x + y) % _HATCH_PERIOD < _HATCH_WIDTH)


def _warmed(image: Image.Image, heat: Heat) -> Image.Image:
    colours, share = coloured(heat.values)
    opacity = Image.fromarray((share * np.float32(_OPACITY_MAX)).astype(np.uint8))
    return Image.composite(Image.fromarray(colours), image, opacity)


def _hatch(image: Image.Image, sight: Sight) -> None:
    left, top, right, bottom = _edge(sight, image)
    for box in (
        (0, 0, image.width, top),
        (0, bottom, image.width, image.height),
        (0, 0, left, image.height),
        (right, 0, image.width, image.height),
    ):
        if box[0] < box[2] and box[1] < box[3]:
            part = np.asarray(image.crop(box)).copy()
            part = (part * np.float32(_UNSEEN_BRIGHTNESS)).astype(np.uint8)
            y, x = np.indices(part.shape[:2], dtype=np.int32)
            part[hatched(y + box[1], x + box[0])] = _HATCH_GREY
            image.paste(Image.fromarray(part), box)


def _edge(sight: Sight, image: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what was seen, in pixels of the picture."""
    across, down = image.width / sight.columns, image.height / sight.rows
    seen = sight.seen
    return (
        round(seen.left * across),
        round(seen.top * down),
        round((seen.left + seen.side) * across),
        round((seen.top + seen.side) * down),
    )


def _frame(draw: ImageDraw.ImageDraw, sight: Sight, image: Image.Image) -> None:
    """The edge of what was seen, where it is not the image's own."""
    if sight.rows != sight.columns:
        left, top, right, bottom = _edge(sight, image)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=_PAPER_WHITE, width=2)


def _tag(
    draw: ImageDraw.ImageDraw, number: str, colour: Colour, heat: Heat, *, size: int, taken: list[tuple[float, float]]
) -> None:
    """The finding's number at its hottest place, beside those that stand there already."""
    (x, y), (height, width) = heat.hottest, heat.values.shape
    at = (min(max(x, size), width - size), min(max(y, size), height - size))
    while any(abs(at[0] - other[0]) < 1.4 * size and abs(at[1] - other[1]) < 1.4 * size for other in taken):
        at = (at[0] - 1.5 * size, at[1]) if at[0] > width / 2 else (at[0] + 1.5 * size, at[1])
    taken.append(at)
    radius = 0.7 * size
    draw.ellipse(
        (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=(0, 0, 0), outline=colour, width=3
    )
    draw.text(at, number, fill=colour, font=_font(size), anchor="mm")


class _Line:
    """Text of one colour and size, perhaps behind a numbered mark."""

    def __init__(self, text: str, colour: Colour, size: float, *, number: int = 0) -> None:
        self.text = text
        self.colour = colour
        self.size = size
        self.number = number


def _headline(prediction: Prediction) -> Iterator[_Line]:
    yield _Line(WARNING, _YELLOW, _TEXT)
    if prediction.classifier.demonstration:
        yield _Line(DEMONSTRATION, _RED, _TEXT)


def _legend(sight: Sight, prediction: Prediction) -> Iterator[_Line]:
    found = present(prediction)
    numbers = {heat.finding.label: number for number, heat in enumerate(sight.heats, 1)}
    for finding in found[:_LISTED_MAX]:
        number = numbers.get(finding.label, 0)
        colour = FINDING_COLOURS[number - 1] if number else _PAPER_WHITE
        scores = f"score {scored(finding)}, threshold {finding.threshold:.2f}"
        yield _Line(f"{named(finding.label)}: {scores}", colour, _TEXT, number=number)
    if len(found) > _LISTED_MAX:
        yield _Line(f"and {len(found) - _LISTED_MAX} more: see the report", _PAPER_WHITE, _TEXT)
    if sight.heats:
        rows, columns = sight.heats[0].cells
        yield _Line(
            f"Colour: where the score of 1 comes from, in {rows} x {columns} cells; line: half of its strongest place. "
            "Neither is the outline of a disease.",
            _QUIET,
            _SMALL,
        )
    if sight.rows != sight.columns:
        yield _Line("Hatched: outside the square that the classifier saw.", _QUIET, _SMALL)
    classifier = prediction.classifier
    yield _Line(ascii_text(f"Classifier: {classifier.algorithm}; version: {classifier.version}", 160), _QUIET, _SMALL)


def _laid_out(lines: Iterator[_Line], width: int) -> Image.Image:
    """The lines, broken at words where they are too long, on a background as wide as asked for."""
    margin = round(width * 0.02)
    rows: list[tuple[_Line, str, int, Any]] = []
    for line in lines:
        font = _font(round(width * line.size))
        indent = margin + (round(width * line.size * 1.7) if line.number else 0)
        for part in _broken(line.text, font, width - margin - indent):
            rows.append((line, part, indent, font))
            line = _Line(line.text, line.colour, line.size)  # noqa: PLW2901 - the mark stands before the first row only
    heights = [round(width * line.size * 1.35) for line, *_ in rows]
    strip = Image.new("RGB", (width, sum(heights) + margin), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    y = margin / 2
    for (line, part, indent, font), height in zip(rows, heights, strict=True):
        middle = y + height / 2
        if line.number:
            size = width * line.size
            centre = margin + 0.56 * size
            draw.ellipse(
                (centre - 0.56 * size, middle - 0.56 * size, centre + 0.56 * size, middle + 0.56 * size),
                outline=line.colour,
                width=3,
            )
            draw.text((centre, middle), str(line.number), fill=line.colour, font=font, anchor="mm")
        draw.text((indent, middle), part, fill=line.colour, font=font, anchor="lm")
        y += height
    return strip


def _broken(text: str, font: Any, width: float) -> Sequence[str]:
    parts = [""]
    for word in text.split():
        longer = f"{parts[-1]} {word}".strip()
        if parts[-1] and font.getlength(longer) > width:
            parts.append(word)
        else:
            parts[-1] = longer
    return parts


def _font(size: int) -> Any:
    """Pillow's own, which needs nothing installed."""
    return ImageFont.load_default(size)
