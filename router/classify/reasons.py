"""Why an image gets no prediction: one code for machines, one sentence for people."""

from __future__ import annotations

from types import MappingProxyType

from router.errors import NotForThisClassifier

#: Code -> plain English. The codes are stable: they stand in the ledger, in log lines and on the dashboard.
REASONS: MappingProxyType[str, str] = MappingProxyType(
    {
        "modality": "not a radiograph: the modality is not one this classifier takes",
        "no_pixels": "holds no pixel data",
        "frames": "holds several frames, not one image",
        "colour": "a colour image, or one with more than one sample per pixel",
        "photometric": "neither MONOCHROME1 nor MONOCHROME2",
        "body_part": "shows another part of the body than the chest",
        "view": "neither a frontal view (PA or AP) nor an image without a stated view",
        "lateral": "a lateral view; the classifier was trained on frontal views only",
        "animal": "an animal; the classifier was trained on people only",
        "screenshot": "a screenshot or a scanned document, not a radiograph as the modality made it",
        "made_by_router": "made by a router from another image",
        "header": "the header contradicts itself, or an attribute that describes the pixels is unreadable",
        "too_small": "smaller than 64 by 64 pixels",
        "too_large": "has more pixels than a radiograph can have",
        "value_range": "pixel values lie outside what Bits Stored allows, so black and white are unknown",
        "picture": "the picture does not look like a frontal radiograph of a human chest",
        "constant": "all pixels have the same value",
    }
)


def refusal(code: str, detail: str = "") -> NotForThisClassifier:
    """The exception for a code of REASONS; `detail` holds facts about the object, never about a patient."""
    return NotForThisClassifier(f"{REASONS[code]} ({detail})" if detail else REASONS[code], code=code)
