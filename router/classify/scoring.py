"""From a network's outputs to findings: upstream's normalisation, without its way of hiding what was never trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from router.core.findings import Finding
from router.core.uids import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoints:
    """A network's outputs in order: a label each, and the sigmoid at which a finding counts as present.

    An empty label, or a threshold of None, is an output that was never trained.
    """

    labels: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    source: str = field(default="published")
    """Where the thresholds come from, in a few words."""

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.thresholds):
            raise ValueError(f"{len(self.labels)} labels, but {len(self.thresholds)} thresholds")
        if any(t is not None and not 0 < t < 1 for t in self.thresholds):
            raise ValueError("a threshold is not between 0 and 1")

    def parameters(self) -> Mapping[str, str]:
        """What of this changes scores, for a classifier's identity."""
        return {
            "normalisation": "piecewise linear, 0.5 at the operating point",
            "operating_points": self.source,
            "operating_points_sha256": digest({"labels": self.labels, "thresholds": self.thresholds}),
        }


def op_norm(raw: float, threshold: float) -> float:
    """A sigmoid in [0, 1] moved so that `threshold` becomes 0.5, 0 stays 0 and 1 stays 1.

    Source: torchxrayvision.models.op_norm, which gives 0.5 where the threshold is NaN; here such a label has no score.
    """
    return raw / (2 * threshold) if raw < threshold else 1 - (1 - raw) / (2 * (1 - threshold))


def findings_of(logits: Sequence[float], points: OperatingPoints) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """The findings of one image, in the network's order, and the labels that were never trained.

    Raises ArithmeticError when the network gave something that is not a number: a broken network must not look healthy.
    """
    findings, not_trained = [], []
    for logit, label, threshold in zip(logits, points.labels, points.thresholds, strict=True):
        if not label:
            continue
        if threshold is None:
            not_trained.append(label)
            continue
        if not math.isfinite(logit):
            raise ArithmeticError(f"the network gave {logit} for {label}")
        raw = sigmoid(logit)
        findings.append(Finding(label=label, score=op_norm(raw, threshold), raw=raw))
    return tuple(findings), tuple(not_trained)


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    power = math.exp(logit)
    return power / (1 + power)


def logit_of(probability: float) -> float:
    """The inverse of `sigmoid`, for (0, 1)."""
    return math.log(probability / (1 - probability))
