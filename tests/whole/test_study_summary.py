"""A study's summary on its whole way: ledger, spool, the child's own code, the summarise step; also when killed in between."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from router.classify.step import ClassifyStep
from router.core.findings import ClassifierIdentity, Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import TaskKind
from router.core.ports import Task
from router.core.retry import RetryPolicy
from router.core.rules import ClassifyOrder, Plan
from router.errors import NotForThisClassifier
from router.faults import FAULT_POINTS
from router.ledger.store import SqlLedger
from router.report.summarise import SummariseStep
from router.spool.files import FileSpool
from tests.ledger.made import FakeClock
from tests.peers import ROOT
from tests.report.made import HEADER, encoded, instance_of, meta, prediction, read, validated
from tests.whole.test_supersession import InProcess

QUIET_S = 300.0
LATERAL = 9
WEIGHTS = "a0" * 32


class ByNumber:
    """Scores that follow from the number of the image; a lateral view is declined."""

    weights = WEIGHTS

    @property
    def identity(self) -> ClassifierIdentity:
        return prediction(weights=self.weights).classifier

    def predict_dataset(self, dataset: Dataset) -> Prediction:
        number = int(dataset.InstanceNumber)
        if number == LATERAL:
            raise NotForThisClassifier("a lateral view", code="lateral")
        said = prediction(weights=self.weights, labels=2)
        return replace(said, findings=tuple(replace(f, score=number / 10) for f in said.findings))


class Site:
    """A node without network, which may be opened again in the same folder, at a later time."""

    def __init__(self, folder: Path, *, at: float = 0.0) -> None:
        self.clock = FakeClock()
        self.clock.forward(at)
        self.spool = FileSpool(folder / "spool")
        self.ledger = SqlLedger(f"sqlite:///{folder}/ledger.db", clock=self.clock)
        self.ledger.end_all_leases()
        self.analyst = InProcess()
        self.analyst.weights = ByNumber()  # type: ignore[assignment]

    def close(self) -> None:
        self.ledger.close()
        self.spool.close()

    def receive(self, number: int) -> None:
        header = {
            **HEADER,
            "SOPInstanceUID": f"1.2.826.0.1.3680043.8.498.1.3.{number}".encode(),
            "InstanceNumber": str(number).encode(),
        }
        data = encoded(header)
        instance = replace(
            instance_of(read(header)),
            digest=hashlib.sha256(data).hexdigest(),
            spool_key=self.spool.put(meta() + data),
            received_at=self.clock.now(),
            header={"Modality": "CR"},
        )
        order = ClassifyOrder(classifier="cxr", results=("sr", "study-summary"), results_to=("pacs",))
        self.ledger.accept(instance, Plan(rules=("all",), classify=(order,), summary_quiet_s=QUIET_S))

    def classify(self) -> None:
        step = ClassifyStep(
            ledger=self.ledger, spool=self.spool, analyst=self.analyst, clock=self.clock, retry=RetryPolicy()
        )
        step.run(self.ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=99))

    def summarise(self) -> None:
        step = SummariseStep(ledger=self.ledger, spool=self.spool, clock=self.clock, policy=RetryPolicy())
        step.run(self.ledger.claim(TaskKind.SUMMARISE, "cxr", lease_s=60, limit=99))

    def delivered(self) -> list[tuple[SopInstance, bytes]]:
        """What goes out now, but for reports on single images."""
        tasks: list[Task] = self.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=99)
        out = []
        for task in tasks:
            if task.instance.kind is InstanceKind.SUMMARY:
                out.append((task.instance, self.spool.path(task.instance.spool_key).read_bytes()))
            self.ledger.complete(task)
        return out

    def after_quiet(self) -> list[tuple[SopInstance, bytes]]:
        self.clock.forward(QUIET_S)
        self.summarise()
        return self.delivered()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def images_in(data: bytes) -> set[str]:
    document = dcmread(BytesIO(data))
    (library,) = [i for i in document.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == "Image Library"]
    (group,) = library.ContentSequence
    return {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID.rsplit(".", 1)[1] for i in group.ContentSequence}


def predecessor(data: bytes) -> str:
    document = dcmread(BytesIO(data))
    if "PredecessorDocumentsSequence" not in document:
        return ""
    series = document.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    return str(series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


def test_a_study_gets_one_summary_after_the_quiet_time_and_another_when_more_comes(site: Site, tmp_path: Path) -> None:
    for number in (1, 2, LATERAL):
        site.receive(number)
    site.classify()
    site.summarise()
    assert site.delivered() == [], "it is not quiet yet"
    ((first, data),) = site.after_quiet()
    assert images_in(data) == {"1", "2"}
    assert predecessor(data) == ""
    assert "Not analysed, and not in this summary: 1 (lateral)." in validated(data, tmp_path)
    assert site.after_quiet() == [], "it is made once"

    site.receive(3)
    site.classify()
    ((second, data),) = site.after_quiet()
    assert images_in(data) == {"1", "2", "3"}
    assert predecessor(data) == first.sop_instance_uid
    assert second.series_instance_uid == first.series_instance_uid
    made = [line for line in site.ledger.queries.trace(second.sop_instance_uid) if line.what == "made"]
    assert second.sop_instance_uid in {line.sop_instance_uid for line in made}


def test_it_waits_for_images_that_are_still_to_be_classified(site: Site) -> None:
    site.receive(1)
    site.classify()
    site.receive(2)
    assert site.after_quiet() == []
    site.classify()
    ((_, data),) = site.after_quiet()
    assert images_in(data) == {"1", "2"}


def test_an_image_that_comes_again_gives_no_second_summary(site: Site) -> None:
    site.receive(1)
    site.classify()
    assert len(site.after_quiet()) == 1
    site.clock.forward(10)
    for key in site.ledger.free(retention_s=1):
        site.spool.delete(key)
    site.receive(1)
    site.classify()
    assert site.after_quiet() == []


def test_other_weights_give_a_summary_that_names_the_one_before(site: Site) -> None:
    site.receive(1)
    site.classify()
    ((first, _),) = site.after_quiet()
    site.clock.forward(10)
    for key in site.ledger.free(retention_s=1):
        site.spool.delete(key)
    site.analyst.weights.weights = "b0" * 32  # type: ignore[attr-defined]
    site.receive(1)
    site.classify()
    ((second, data),) = site.after_quiet()
    assert predecessor(data) == first.sop_instance_uid
    assert second.series_instance_uid != first.series_instance_uid


def test_a_study_of_which_nothing_was_analysed_has_none_and_the_reason_is_kept(site: Site) -> None:
    site.receive(LATERAL)
    site.classify()
    assert site.after_quiet() == []
    trace = site.ledger.queries.trace(HEADER["StudyInstanceUID"].decode())
    assert "no summary: no image has a report" in [line.detail for line in trace]


_SUMMARISES = """
import sys
from pathlib import Path
from tests.whole.test_study_summary import Site
site = Site(Path(sys.argv[1]), at=float(sys.argv[2]))
site.summarise()
"""


def test_killed_at_any_step_it_is_made_once_and_with_the_same_bytes(tmp_path: Path) -> None:
    site = Site(tmp_path / "node")
    site.receive(1)
    site.receive(2)
    site.classify()
    site.delivered()
    site.close()
    points = [name for name in FAULT_POINTS if name.startswith("summary.")]
    assert len(points) == 4
    for point in points:
        shutil.copytree(tmp_path / "node", tmp_path / point)
    killed = [
        subprocess.Popen(
            [sys.executable, "-c", _SUMMARISES, str(tmp_path / point), str(QUIET_S)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "ROUTER_FAULT": point},
        )
        for point in points
    ]
    assert [process.wait(120) for process in killed] == [-signal.SIGKILL] * len(points)
    results = []
    for point in ("node", *points):
        again = Site(tmp_path / point, at=QUIET_S)
        made = [*again.after_quiet(), *again.after_quiet()]
        assert len(made) == 1, point
        results.append(made[0][1])
        assert [line.what for line in again.ledger.queries.trace(made[0][0].sop_instance_uid)].count("made") == 2, (
            "its first image's report, and it"
        )
        again.close()
    assert len(set(results)) == 1, "the same bytes, with and without a death in between"
