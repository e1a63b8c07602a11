"""Images that are looked at together get what each would get alone, also when one of them is refused."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from router.classify.phantom import phantom_dicom
from router.classify.xrv import XrvClassifier
from router.core.childproto import Request
from router.core.findings import NotAnalysed, Prediction
from router.core.instance import SopInstance
from router.core.ports import Analysis
from router.core.sight import Look
from router.errors import NotForThisClassifier, UnreadablePixels
from router.node import child_argument
from router.settings import parse
from router.work.analyst import ChildAnalyst
from tests.classify import own

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own.write(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def classifier(weights: Path) -> XrvClassifier:
    made = XrvClassifier(name="cxr", settings=XrvClassifier.Settings(weights=str(weights), device="cpu"))
    made.load()
    return made


def _images() -> list[Dataset]:
    """A chest, a lateral view, pixels that are not there, a larger chest."""
    images = [phantom_dicom(seed, rows=128 + 60 * seed, columns=128) for seed in range(4)]
    images[1].ViewPosition = "LL"
    images[2].PixelData = b"\0\0"
    return images


def test_each_gets_what_it_would_get_alone(classifier: XrvClassifier) -> None:
    first, lateral, unreadable, last = classifier.looks(_images())
    assert isinstance(lateral, NotForThisClassifier)
    assert isinstance(unreadable, UnreadablePixels)
    for look, ds in ((first, _images()[0]), (last, _images()[3])):
        assert isinstance(look, Look)
        alone = classifier.predict_dataset(ds)
        assert look.prediction.notes == alone.notes
        scores = {f.label: f.score for f in look.prediction.findings}
        assert scores == pytest.approx({f.label: f.score for f in alone.findings}, abs=1e-5)
    assert isinstance(first, Look)
    assert isinstance(last, Look)
    assert first.prediction.findings != last.prediction.findings, "all alike: nothing was compared"


def test_where_all_are_refused_nothing_is_computed(classifier: XrvClassifier) -> None:
    found = classifier.looks(_images()[1:3])
    assert [type(one) for one in found] == [NotForThisClassifier, UnreadablePixels]


def test_a_child_answers_several_in_order_with_the_reports_of_each(weights: Path, tmp_path: Path) -> None:
    settings = parse({"classifiers": {"cxr": {"type": "xrv", "weights": str(weights), "device": "cpu"}}})
    requests = []
    for number, ds in enumerate(_images()):
        path = tmp_path / f"{number}.dcm"
        ds.save_as(path, enforce_file_format=True)
        instance = SopInstance(
            sop_instance_uid=ds.SOPInstanceUID,
            sop_class_uid=ds.SOPClassUID,
            study_instance_uid=ds.StudyInstanceUID,
            series_instance_uid=ds.SeriesInstanceUID,
            transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
            digest="0" * 64,
            byte_count=path.stat().st_size,
            spool_key="k",
            received_at=datetime(2024, 5, 6, tzinfo=UTC),
        )
        requests.append(Request(classifier="cxr", instance=instance, path=path, results=("sr",)))
    analyst = ChildAnalyst(
        command=[sys.executable, "-m", "router.child"],
        arguments=[child_argument(settings.classifiers["cxr"])],
        time_limit_s=60,
    )
    with contextlib.closing(analyst):
        answers = analyst.analyse_all(requests)
        alone = analyst.analyse_all(requests[:1])
    outcomes = [answer.outcome for answer in answers if isinstance(answer, Analysis)]
    assert [type(outcome) for outcome in outcomes] == [Prediction, NotAnalysed, NotAnalysed, Prediction]
    assert [getattr(outcome, "code", "") for outcome in outcomes] == ["", "lateral", "unreadable_pixels", ""]
    assert [len(answer.results) for answer in answers if isinstance(answer, Analysis)] == [1, 0, 0, 1]
    together = answers[0]
    assert isinstance(together, Analysis)
    assert isinstance(alone[0], Analysis)
    assert together.results[0].sop_instance_uid == alone[0].results[0].sop_instance_uid
