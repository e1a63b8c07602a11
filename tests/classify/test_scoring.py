"""Normalisation is upstream's where there is an operating point; where there is none, there is no score."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.classify.published import PUBLISHED
from router.classify.scoring import OperatingPoints, findings_of, logit_of, op_norm, sigmoid

POINTS = OperatingPoints(labels=("A", "", "B", "C"), thresholds=(0.1, None, None, 0.7))


@given(st.floats(0, 1), st.floats(0.001, 0.999))
def test_the_operating_point_becomes_a_half_and_order_is_kept(raw: float, threshold: float) -> None:
    score = op_norm(raw, threshold)
    assert 0 <= score <= 1
    assert (score >= 0.5) == (raw >= threshold) or math.isclose(raw, threshold, rel_tol=1e-12)
    assert op_norm(threshold, threshold) == 0.5


def test_normalisation_is_upstreams() -> None:
    xrv, torch = pytest.importorskip("torchxrayvision"), pytest.importorskip("torch")
    raw = np.linspace(0, 1, 101)
    for threshold in (0.002, 0.1, 0.5, 0.9):
        theirs = xrv.models.op_norm(torch.tensor(raw[:, None]).float(), torch.tensor([threshold]))
        ours = [op_norm(float(r), threshold) for r in raw]
        np.testing.assert_allclose(ours, theirs[:, 0].numpy(), atol=1e-6)


def test_a_label_without_operating_point_is_not_trained_and_never_a_half() -> None:
    findings, not_trained = findings_of([0.0, 0.0, 0.0, 0.0], POINTS)
    assert [finding.label for finding in findings] == ["A", "C"]
    assert not_trained == ("B",)


def test_raw_and_score_are_both_kept() -> None:
    (a, c), _ = findings_of([logit_of(0.1), 0.0, 0.0, logit_of(0.35)], POINTS)
    assert a.raw == pytest.approx(0.1)
    assert a.score == pytest.approx(0.5)
    assert c.raw == pytest.approx(0.35)
    assert (c.score, c.present) == (pytest.approx(0.25), False)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_network_that_gives_no_number_is_an_error(broken: float) -> None:
    with pytest.raises(ArithmeticError):
        findings_of([broken, 0, 0, 0], POINTS)


def test_a_network_with_other_outputs_than_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        findings_of([0.0], POINTS)


@pytest.mark.parametrize("logit", [-800.0, -1.0, 0.0, 1.0, 800.0])
def test_sigmoid_does_not_overflow(logit: float) -> None:
    assert 0 <= sigmoid(logit) <= 1


@pytest.mark.parametrize("thresholds", [(0.5,), (0.0, 0.5), (1.0, 0.5), (math.nan, 0.5)])
def test_impossible_operating_points_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="threshold"):
        OperatingPoints(labels=("A", "B"), thresholds=thresholds)


def test_other_operating_points_are_another_identity() -> None:
    other = OperatingPoints(labels=POINTS.labels, thresholds=(0.2, None, None, 0.7))
    assert POINTS.parameters() != other.parameters()


# ---- the table of published weights


@pytest.mark.parametrize("name", PUBLISHED)
def test_labels_thresholds_and_addresses_are_upstreams(name: str) -> None:
    models = pytest.importorskip("torchxrayvision").models
    theirs, ours = models.model_urls[name], PUBLISHED[name]
    assert ours.url == theirs["weights_url"]
    assert list(ours.labels) == theirs["labels"]
    assert ours.side == theirs["input_resolution"]
    assert [math.nan if t is None else t for t in ours.op_threshs] == pytest.approx(theirs["op_threshs"], nan_ok=True)


def test_every_core_network_of_upstream_is_in_the_table() -> None:
    models = pytest.importorskip("torchxrayvision").models
    assert {name for name in models.model_urls if name.startswith(("densenet", "resnet50"))} == set(PUBLISHED)


def test_the_double_sigmoid_is_undone_once() -> None:
    resnet = PUBLISHED["resnet50-res512-all"]
    assert all(0 < t < 0.2 for t in resnet.points.thresholds if t is not None)
    assert [sigmoid(t) for t in resnet.points.thresholds if t] == pytest.approx([t for t in resnet.op_threshs if t])
    _, not_trained = findings_of([0.0] * 18, resnet.points)
    assert not_trained == ("Lung Lesion", "Enlarged Cardiomediastinum")
