"""Another classifier under the same name: its document of an image names the one it takes the place of.

A real ledger and spool, the child's own code, and classifiers that say what they are told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from router import child
from router.classify.step import ClassifyStep
from router.core.childproto import Request, decode_request, encode_request
from router.core.findings import ClassifierIdentity, NotAnalysed, Prediction
from router.core.instance import Reference, SopInstance
from router.core.lifecycle import TaskKind
from router.core.ports import Analysis, Receipt
from router.core.retry import RetryPolicy
from router.core.rules import ClassifyOrder, Plan
from router.errors import NotForThisClassifier
from router.ledger.store import SqlLedger
from router.spool.files import FileSpool
from tests.ledger.made import FakeClock
from tests.report.made import HEADER, encoded, instance_of, meta, prediction, read, validated

A, B = "a0" * 32, "b0" * 32


@dataclass
class Weights:
    """A classifier with these weights; without any it declines every image."""

    sha256: str | None

    @property
    def identity(self) -> ClassifierIdentity:
        return prediction(weights=self.sha256 or "00" * 32).classifier

    def predict_dataset(self, _: Dataset) -> Prediction:
        if self.sha256 is None:
            raise NotForThisClassifier("a lateral view", code="lateral")
        return prediction(weights=self.sha256, labels=2)


class InProcess:
    """`core.ports.Analyst` by the child's code in this process; requests go through their encoding."""

    def __init__(self) -> None:
        self.weights = Weights(A)
        self.builders = child._builders()

    def analyse(
        self,
        classifier: str,
        instance: SopInstance,
        path: Path,
        results: Sequence[str],
        *,
        made_before: Sequence[Reference] = (),
        given: NotAnalysed | None = None,
    ) -> Analysis:
        request = Request(
            classifier=classifier,
            instance=instance,
            path=path,
            results=tuple(results),
            made_before=tuple(made_before),
            given=given,
        )
        return child._analyse(self.weights, self.builders, decode_request(encode_request(request)))


class Site:
    """A node without network."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.spool = FileSpool(folder / "spool")
        self.ledger = SqlLedger(f"sqlite:///{folder}/ledger.db", clock=self.clock)
        self.analyst = InProcess()
        self.results: tuple[str, ...] = ("sr", "not-analysed")

    def receive(self) -> Receipt:
        """The image arrives, as it does again when all of it is done and freed."""
        data = meta() + encoded(HEADER)
        digest = hashlib.sha256(encoded(HEADER)).hexdigest()
        instance = replace(instance_of(read(HEADER)), digest=digest, spool_key=self.spool.put(data))
        order = ClassifyOrder(classifier="cxr", results=self.results, results_to=("pacs",))
        return self.ledger.accept(instance, Plan(rules=("all",), classify=(order,)))

    def made_of(self, weights: str | None) -> Dataset | None:
        """Received, classified with these weights, delivered and freed; what was delivered."""
        self.analyst.weights = Weights(weights)
        assert self.receive() is Receipt.NEW
        step = ClassifyStep(
            ledger=self.ledger, spool=self.spool, analyst=self.analyst, clock=self.clock, retry=RetryPolicy()
        )
        step.run(self.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1))
        delivered = None
        for task in self.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9):
            assert delivered is None
            delivered = dcmread(self.spool.path(task.instance.spool_key))
            self.ledger.complete(task)
        self.clock.forward(10)
        for key in self.ledger.free(retention_s=1):
            self.spool.delete(key)
        return delivered


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.ledger.close()
    site.spool.close()


def named(document: Dataset | None) -> str | None:
    """The SOP Instance UID of the predecessor."""
    assert document is not None
    if "PredecessorDocumentsSequence" not in document:
        return None
    (study,) = document.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == document.StudyInstanceUID
    assert series.SeriesInstanceUID != document.SeriesInstanceUID
    assert instance.ReferencedSOPClassUID == document.SOPClassUID
    return str(instance.ReferencedSOPInstanceUID)


def test_other_weights_give_another_document_that_names_the_one_before(site: Site, tmp_path: Path) -> None:
    first, second = site.made_of(A), site.made_of(B)
    assert first is not None
    assert second is not None
    assert named(first) is None
    assert named(second) == first.SOPInstanceUID
    assert second.SOPInstanceUID != first.SOPInstanceUID
    path = tmp_path / "second.dcm"
    second.save_as(path)
    validated(path.read_bytes(), tmp_path)


def test_the_same_weights_again_give_the_same_document(site: Site) -> None:
    first, again = site.made_of(A), site.made_of(A)
    assert first == again
    assert named(again) is None
    second, once_more = site.made_of(B), site.made_of(B)
    assert second == once_more
    assert named(once_more) is not None


def test_going_back_to_the_old_weights_supersedes_the_new_document_by_one_of_its_own(site: Site) -> None:
    first, second, third = site.made_of(A), site.made_of(B), site.made_of(A)
    assert first is not None
    assert second is not None
    assert third is not None
    assert named(third) == second.SOPInstanceUID
    assert third.SOPInstanceUID != first.SOPInstanceUID
    assert third.SeriesInstanceUID == first.SeriesInstanceUID
    assert third.ContentSequence == first.ContentSequence


def test_a_later_analysis_supersedes_a_document_that_said_not_analysed(site: Site) -> None:
    declined, analysed = site.made_of(None), site.made_of(A)
    assert declined is not None
    assert declined.CompletionFlag == "PARTIAL"
    assert named(declined) is None
    assert named(analysed) == declined.SOPInstanceUID


def test_an_image_that_is_not_analysed_has_no_document_unless_the_rule_asks_for_one(site: Site) -> None:
    site.results = ("sr",)
    assert site.made_of(None) is None
    site.results = ("sr", "not-analysed")
    assert site.made_of(None) is not None
