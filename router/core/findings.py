"""What a classifier says about one image, and how it is written down (plain JSON in the ledger and on the child's pipe)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One label's score on one image. A score is not a probability of disease."""

    label: str
    """As the classifier's authors write it, e.g. «Effusion»."""
    score: float
    """[0, 1], normalised so that `threshold` is the operating point (torchxrayvision.models.op_norm: 0.5)."""
    raw: float
    """[0, 1], the network's sigmoid before normalisation."""
    threshold: float = 0.5
    """On the scale of `score`."""

    @property
    def present(self) -> bool:
        """At or above the operating point."""
        return self.score >= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierIdentity:
    """Which classifier, exactly: two predictions with equal identities come from the same computation."""

    name: str
    """As configured: the key under [classifiers]."""
    algorithm: str
    """E.g. «densenet121-res224-all»; for people and for TID 4019 Algorithm Name."""
    version: str
    """E.g. «torchxrayvision 1.5.7»; TID 4019 Algorithm Version."""
    manufacturer: str
    weights_sha256: str
    parameters: Mapping[str, str]
    """What else changes scores: preprocessing version, normalisation, operating points. Sorted by key when digested."""
    demonstration: bool = False
    """True: trained on drawings, no clinical meaning; said in every SR, table and log line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a classify process computes with."""

    identity: ClassifierIdentity
    trust: str
    """How the digest of its weights is known, in words; empty when the classifier does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """All findings of one classifier on one image."""

    classifier: ClassifierIdentity
    findings: tuple[Finding, ...]
    not_trained: tuple[str, ...] = ()
    """Labels the network has but was never given an operating point for: never reported as a score."""
    notes: tuple[str, ...] = ()
    """Plain English remarks on this image, e.g. «pixels outside the central square were not seen»."""

    def top(self, count: int) -> tuple[Finding, ...]:
        """The `count` highest scores, highest first; equal scores in label order."""
        return tuple(sorted(self.findings, key=lambda f: (-f.score, f.label))[:count])


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAnalysed:
    """Why there is no prediction: `code` for machines, `reason` for people."""

    code: str
    reason: str


Outcome = Prediction | NotAnalysed


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """A JSON object that `outcome_from_json` turns back into an equal value."""
    if isinstance(outcome, NotAnalysed):
        return {"not_analysed": asdict(outcome)}
    # Not asdict, which copies every value of every finding, and cannot copy every kind of Mapping.
    classifier = _fields(outcome.classifier) | {"parameters": dict(outcome.classifier.parameters)}
    findings = tuple(_fields(finding) for finding in outcome.findings)
    return {"prediction": _fields(outcome) | {"classifier": classifier, "findings": findings}}


def _fields(value: Prediction | ClassifierIdentity | Finding) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def outcome_from_json(data: Mapping[str, Any]) -> Outcome:
    """The value behind `outcome_to_json`. Raises KeyError or TypeError when it is not one."""
    if "not_analysed" in data:
        return NotAnalysed(**data["not_analysed"])
    p = data["prediction"]
    return Prediction(
        classifier=ClassifierIdentity(**p["classifier"]),
        findings=tuple(Finding(**f) for f in p["findings"]),
        not_trained=tuple(p["not_trained"]),
        notes=tuple(p["notes"]),
    )
