"""The classify step settles every task: done with its results, tried again, or said why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from router.classify.step import ClassifyStep
from router.core.childproto import Request
from router.core.findings import ClassifierIdentity, Finding, NotAnalysed, Prediction
from router.core.instance import InstanceKind, Reference, SopInstance
from router.core.lifecycle import TaskKind
from router.core.ports import Analysis, ResultObject, Task
from router.core.retry import RetryPolicy
from router.errors import ChildDied, ChildNotReady, LeaseLost, SpoolDamaged
from router.spool.part10 import file_head

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
PREDICTION = Prediction(
    classifier=ClassifierIdentity(
        name="cxr", algorithm="a", version="1", manufacturer="m", weights_sha256="0" * 64, parameters={}
    ),
    findings=(Finding(label="Effusion", score=0.7, raw=0.2),),
)
DATA_SET = b"the data set's bytes"
RESULT = ResultObject(
    kind=InstanceKind.SR,
    data=file_head(sop_class_uid="1.2", sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2.1") + DATA_SET,
    sop_instance_uid="1.2.3",
    sop_class_uid="1.2",
    study_instance_uid="1.2.4",
    series_instance_uid="1.2.5",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
)


class Clock:
    def now(self) -> datetime:
        return NOW


class FakeSpool:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.full_after = 99

    def put(self, data: bytes) -> str:
        if len(list(self.folder.iterdir())) >= self.full_after:
            raise OSError(28, "No space left on device")
        key = f"k{len(list(self.folder.iterdir()))}"
        (self.folder / key).write_bytes(data)
        return key

    def path(self, spool_key: str) -> Path:
        if not (self.folder / spool_key).exists():
            raise SpoolDamaged(spool_key)
        return self.folder / spool_key

    def delete(self, spool_key: str) -> None:
        (self.folder / spool_key).unlink(missing_ok=True)


class FakeLedger:
    def __init__(self) -> None:
        self.completed: list[tuple[Task, dict[str, Any]]] = []
        self.deferred: list[tuple[Task, str, datetime | None]] = []
        self.released: list[tuple[Task, datetime]] = []
        self.lost: set[int] = set()
        self.made: list[SopInstance] = []

    def made_before(self, task: Task) -> list[SopInstance]:
        return self.made

    def complete(self, task: Task, **what: Any) -> None:
        if task.task_id in self.lost:
            raise LeaseLost
        self.completed.append((task, what))

    def release(self, task: Task, *, at: datetime, reason: str) -> None:
        self.released.append((task, at))

    def defer(self, task: Task, *, error: str, at: datetime | None) -> None:
        self.deferred.append((task, error, at))


class FakeAnalyst:
    def __init__(self, *answers: Analysis | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Path, Sequence[str]]] = []
        self.made_before: list[Sequence[Reference]] = []
        self.given: list[NotAnalysed | None] = []

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
        self.given.append(given)
        self.asked.append((classifier, instance.sop_instance_uid, path, results))
        self.made_before.append(made_before)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def spool(tmp_path: Path) -> FakeSpool:
    (tmp_path / "image").write_bytes(b"an image")
    return FakeSpool(tmp_path)


def _task(task_id: int = 1, attempts: int = 1, key: str = "image") -> Task:
    instance = SopInstance(
        sop_instance_uid=f"1.2.840.{task_id}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        study_instance_uid="1.2.4",
        series_instance_uid="1.2.6",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest="ab",
        byte_count=8,
        spool_key=key,
        received_at=NOW,
        calling_ae_title="MODALITY",
        peer_host="10.0.0.1",
        header={"PatientID": "SECRET-7"},
    )
    options = {"results": ["sr"], "results_to": ["orthanc", "archive"]}
    return Task(
        task_id=task_id, kind=TaskKind.CLASSIFY, target="cxr", attempts=attempts, instance=instance, options=options
    )


def _step(ledger: FakeLedger, spool: FakeSpool, analyst: FakeAnalyst) -> ClassifyStep:
    return ClassifyStep(ledger=ledger, spool=spool, analyst=analyst, clock=Clock(), retry=RetryPolicy())


def test_a_prediction_and_its_results_are_settled_together(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    analyst = FakeAnalyst(Analysis(outcome=PREDICTION, results=(RESULT,)))
    _step(ledger, spool, analyst).run([_task()])
    assert analyst.asked == [("cxr", "1.2.840.1", spool.folder / "image", ("sr",))]
    [(_, settled)] = ledger.completed
    assert settled["outcome"] == PREDICTION
    [produced] = settled["produced"]
    assert produced.destinations == ("orthanc", "archive")
    made = produced.instance
    assert (made.digest, made.byte_count) == (hashlib.sha256(DATA_SET).hexdigest(), len(DATA_SET))
    assert (made.kind, made.made_by_router, made.calling_ae_title, made.peer_host) == (InstanceKind.SR, True, "", "")
    assert spool.path(made.spool_key).read_bytes() == RESULT.data


def test_an_image_that_is_not_for_the_classifier_is_done(spool: FakeSpool) -> None:
    ledger, outcome = FakeLedger(), NotAnalysed(code="lateral", reason="a lateral view")
    _step(ledger, spool, FakeAnalyst(Analysis(outcome=outcome))).run([_task()])
    assert [(what["outcome"], list(what["produced"])) for _, what in ledger.completed] == [(outcome, [])]


def test_a_report_that_is_held_back_is_noted_and_the_prediction_kept(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    analysis = Analysis(outcome=PREDICTION, not_reported="StudyInstanceUID is missing")
    _step(ledger, spool, FakeAnalyst(analysis)).run([_task()])
    [(_, settled)] = ledger.completed
    assert (settled["note"], settled["outcome"]) == ("StudyInstanceUID is missing", PREDICTION)


def test_the_image_a_child_died_of_is_tried_once_more_and_then_given_up(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    _step(ledger, spool, FakeAnalyst(ChildDied("signal 11"))).run([_task(attempts=1)])
    [(_, _, at)] = ledger.deferred
    assert at is not None
    assert NOW < at < NOW + timedelta(minutes=6)
    _step(ledger, spool, FakeAnalyst(ChildDied("signal 11"))).run([_task(attempts=2)])
    [(_, settled)] = ledger.completed
    assert settled["outcome"].code == "child_died"
    assert "signal 11" in settled["outcome"].reason


def test_an_image_given_up_gets_the_document_that_says_so_when_its_header_can_be_read(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    task = replace(_task(attempts=2), options={"results": ["sr", "not-analysed"], "results_to": ["orthanc"]})
    outcome = NotAnalysed(code="child_died", reason="whatever")
    analyst = FakeAnalyst(ChildDied("signal 11"), Analysis(outcome=outcome, results=(RESULT,)))
    _step(ledger, spool, analyst).run([task])
    [(_, settled)] = ledger.completed
    assert settled["outcome"] == outcome
    assert len(settled["produced"]) == 1
    assert [given.code if given else None for given in analyst.given] == [None, "child_died"]


@pytest.mark.parametrize("error", [ChildDied("again"), ChildNotReady("no memory")])
def test_an_image_whose_header_kills_too_is_given_up_without_a_document(spool: FakeSpool, error: Exception) -> None:
    ledger = FakeLedger()
    task = replace(_task(attempts=2), options={"results": ["sr", "not-analysed"], "results_to": ["orthanc"]})
    _step(ledger, spool, FakeAnalyst(ChildDied("signal 11"), error)).run([task])
    [(_, settled)] = ledger.completed
    assert (settled["outcome"].code, list(settled["produced"])) == ("child_died", [])
    assert str(error) in settled["note"]


def test_a_child_that_cannot_be_started_costs_no_image_an_attempt(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    for attempts in (1, 2, 3):
        _step(ledger, spool, FakeAnalyst(ChildNotReady("no weights"))).run([_task(attempts=attempts)])
    assert [at > NOW for _, at in ledger.released] == [True] * 3
    assert ledger.completed == ledger.deferred == []


def test_the_rest_of_a_batch_goes_on_after_a_death_and_after_a_lost_lease(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    ledger.lost = {2}
    analyst = FakeAnalyst(ChildDied("x"), *[Analysis(outcome=PREDICTION, results=(RESULT,))] * 2)
    _step(ledger, spool, analyst).run([_task(1), _task(2), _task(3)])
    assert [task.task_id for task, *_ in ledger.deferred] == [1]
    assert [task.task_id for task, _ in ledger.completed] == [3]
    assert len(list(spool.folder.iterdir())) == 2, "the result of the lost task is gone, that of the third is kept"


def test_a_lost_image_fails_visibly(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    _step(ledger, spool, FakeAnalyst()).run([_task(key="gone")])
    [(_, error, at)] = ledger.deferred
    assert at is None
    assert error.startswith("SpoolDamaged")


def test_a_full_disk_defers_and_leaves_nothing_behind(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    spool.full_after = 2
    _step(ledger, spool, FakeAnalyst(Analysis(outcome=PREDICTION, results=(RESULT, RESULT)))).run([_task()])
    [(_, _, at)] = ledger.deferred
    assert at is not None
    assert [path.name for path in spool.folder.iterdir()] == ["image"]


def test_a_fault_of_ours_is_tried_a_few_times_and_then_visible(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    for attempts in (1, 5):
        _step(ledger, spool, FakeAnalyst(KeyError("x"))).run([_task(attempts=attempts)])
    assert [at is None for _, _, at in ledger.deferred] == [False, True]


def test_log_lines_hold_uids_and_no_patient_data(
    spool: FakeSpool, told: list[tuple[str, Mapping[str, object]]]
) -> None:
    analyst = FakeAnalyst(
        Analysis(outcome=replace(PREDICTION, notes=("n",)), results=(RESULT,)),
        Analysis(outcome=NotAnalysed(code="lateral", reason="of SECRET-7")),
        ChildDied("SECRET-7"),
        ValueError("SECRET-7"),
        Analysis(outcome=PREDICTION, not_reported="SECRET-7"),
    )
    _step(FakeLedger(), spool, analyst).run([_task(n) for n in range(1, 6)])
    assert [event for event, _ in told] == [
        "classify.done",
        "classify.not_analysed",
        "task.deferred",
        "task.deferred",
        "classify.done",
        "report.held_back",
    ]
    fields = json.dumps([fields for _, fields in told], default=str)
    assert "1.2.840.3" in fields
    assert "SECRET" not in fields
    assert "Effusion" not in fields


def test_the_child_learns_what_was_made_of_the_image_before(spool: FakeSpool) -> None:
    ledger, analyst = FakeLedger(), FakeAnalyst(*[Analysis(outcome=PREDICTION)] * 2)
    ledger.made = [replace(_task().instance, sop_instance_uid="2.25.7", series_instance_uid="2.25.8")]
    _step(ledger, spool, analyst).run([_task(), replace(_task(2), options={})])
    known, nothing_asked_for = analyst.made_before
    assert list(known) == [
        Reference(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
            sop_instance_uid="2.25.7",
            series_instance_uid="2.25.8",
            study_instance_uid="1.2.4",
        )
    ]
    assert list(nothing_asked_for) == []


class FakeBatchAnalyst(FakeAnalyst):
    """Answers several at once; alone what `answers` says."""

    batch_max = 16

    def __init__(self, together: Sequence[Analysis | Exception], *alone: Analysis | Exception) -> None:
        super().__init__(*alone)
        self.together = together
        self.asked_together: list[list[str]] = []

    def analyse_all(self, requests: Sequence[Request]) -> Sequence[Analysis | Exception]:
        self.asked_together.append([request.instance.sop_instance_uid for request in requests])
        if isinstance(self.together[0], ChildNotReady):
            raise self.together[0]
        return self.together[: len(requests)]


def test_images_that_came_together_are_asked_about_together_and_settled_each(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    ledger.lost = {2}
    analyst = FakeBatchAnalyst([Analysis(outcome=PREDICTION, results=(RESULT,))] * 3)
    _step(ledger, spool, analyst).run([_task(1), _task(2), _task(3)])
    assert analyst.asked_together == [["1.2.840.1", "1.2.840.2", "1.2.840.3"]]
    assert [task.task_id for task, _ in ledger.completed] == [1, 3]
    assert len(list(spool.folder.iterdir())) == 3, "what the lost one made is gone"


def test_after_a_death_those_without_an_answer_are_tried_alone(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    died = ChildDied("signal 11")
    _step(ledger, spool, FakeBatchAnalyst([Analysis(outcome=PREDICTION), died, died])).run(
        [_task(n) for n in (1, 2, 3)]
    )
    assert [task.task_id for task, _ in ledger.completed] == [1]
    assert [task.task_id for task, *_ in ledger.deferred] == [2, 3], "nobody knows yet which of them it was"
    analyst = FakeBatchAnalyst([], Analysis(outcome=PREDICTION), ChildDied("signal 11"))
    _step(ledger, spool, analyst).run([_task(3, attempts=2), _task(2, attempts=2)])
    assert analyst.asked_together == []
    assert [uid for _, uid, *_ in analyst.asked] == ["1.2.840.3", "1.2.840.2"]
    assert [getattr(what["outcome"], "code", "") for _, what in ledger.completed] == ["", "", "child_died"]


def test_one_image_that_is_gone_does_not_keep_the_others_from_being_asked_about(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    analyst = FakeBatchAnalyst([Analysis(outcome=PREDICTION)] * 2)
    _step(ledger, spool, analyst).run([_task(1), _task(2, key="gone"), _task(3)])
    assert analyst.asked_together == [["1.2.840.1", "1.2.840.3"]]
    [(task, error, at)] = ledger.deferred
    assert (task.task_id, at) == (2, None)
    assert error.startswith("SpoolDamaged")


def test_a_child_that_cannot_start_gives_all_back(spool: FakeSpool) -> None:
    ledger = FakeLedger()
    _step(ledger, spool, FakeBatchAnalyst([ChildNotReady("no weights")])).run([_task(1), _task(2)])
    assert [task.task_id for task, _ in ledger.released] == [1, 2]
