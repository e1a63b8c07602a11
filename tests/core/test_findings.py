"""Predictions survive the way through the ledger and the child's pipe unchanged."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.findings import (
    ClassifierIdentity,
    Finding,
    NotAnalysed,
    Outcome,
    Prediction,
    outcome_from_json,
    outcome_to_json,
)

_words = st.text(max_size=12)
_unit = st.floats(0, 1)
_findings = st.builds(Finding, label=_words, score=_unit, raw=_unit, threshold=_unit)
_identities = st.builds(
    ClassifierIdentity,
    name=_words,
    algorithm=_words,
    version=_words,
    manufacturer=_words,
    weights_sha256=_words,
    parameters=st.dictionaries(_words, _words, max_size=3),
    demonstration=st.booleans(),
)
_predictions = st.builds(
    Prediction,
    classifier=_identities,
    findings=st.lists(_findings, max_size=5).map(tuple),
    not_trained=st.lists(_words, max_size=2).map(tuple),
    notes=st.lists(_words, max_size=2).map(tuple),
)
_outcomes = st.one_of(_predictions, st.builds(NotAnalysed, code=_words, reason=_words))

IDENTITY = ClassifierIdentity(
    name="cxr", algorithm="a", version="1", manufacturer="m", weights_sha256="00", parameters={"norm": "op"}
)


def finding(label: str, score: float) -> Finding:
    return Finding(label=label, score=score, raw=score)


@given(_outcomes)
def test_an_outcome_comes_back_equal_from_json(outcome: Outcome) -> None:
    assert outcome_from_json(json.loads(json.dumps(outcome_to_json(outcome)))) == outcome


def test_parameters_may_be_any_mapping() -> None:
    frozen = MappingProxyType({"norm": "op"})
    prediction = Prediction(classifier=ClassifierIdentity(**{**_fields(), "parameters": frozen}), findings=())
    told = json.loads(json.dumps(outcome_to_json(prediction)))
    assert outcome_from_json(told) == Prediction(classifier=IDENTITY, findings=())


def _fields() -> dict[str, object]:
    return {name: getattr(IDENTITY, name) for name in ClassifierIdentity.__slots__}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"prediction": {}},
        {"not_analysed": {"code": "x"}},
        {"not_analysed": {"code": "x", "reason": "y", "more": 1}},
        {"prediction": {"classifier": {}, "findings": [], "not_trained": [], "notes": []}},
    ],
)
def test_json_that_is_no_outcome_is_refused(data: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        outcome_from_json(data)


@pytest.mark.parametrize(("score", "present"), [(0.5, True), (0.4999, False), (0.0, False), (1.0, True)])
def test_a_finding_is_present_from_its_threshold_on(score: float, present: bool) -> None:
    assert Finding(label="Effusion", score=score, raw=0.1).present is present


def test_the_threshold_of_a_finding_is_its_own() -> None:
    assert Finding(label="Effusion", score=0.3, raw=0.3, threshold=0.25).present


def test_the_top_findings_are_the_highest_and_ties_go_by_label() -> None:
    prediction = Prediction(
        classifier=IDENTITY, findings=(finding("b", 0.5), finding("a", 0.5), finding("c", 0.9), finding("d", 0.1))
    )
    assert [f.label for f in prediction.top(3)] == ["c", "a", "b"]
    assert prediction.top(0) == ()
    assert len(prediction.top(9)) == 4
