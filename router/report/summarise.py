"""The summarise step: a study to which nothing was added for a while gets one document on all its images."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from datetime import timedelta

from router.core.findings import NotAnalysed, Prediction
from router.core.ports import Clock, Ledger, ResultObject, Spool, Study, Task
from router.core.retry import RetryPolicy
from router.errors import LeaseLost, NotReportable, SpoolDamaged
from router.faults import fault_point
from router.observe.log import emit
from router.report.check_summary import check_summary
from router.report.summary import StudySummaryBuilder, Summarised
from router.spool.results import spooled

#: Before a study is looked at again of which images are still to be classified.
_STILL_CLASSIFYING_S = 5.0


class SummariseStep:
    """`core.ports.Step` for TaskKind.SUMMARISE and one classifier. It looks at nothing but the ledger and our own reports."""

    def __init__(self, *, ledger: Ledger, spool: Spool, clock: Clock, policy: RetryPolicy) -> None:
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._policy = policy
        self._builder = StudySummaryBuilder()

    def run(self, tasks: Sequence[Task]) -> None:
        """Settles every task by the ledger; raises nothing but programming errors."""
        for task in tasks:
            try:
                self._run(task)
            except LeaseLost:
                emit("task.lease_lost", level=logging.WARNING, task_id=task.task_id, kind=task.kind, target=task.target)
            except Exception as error:  # noqa: BLE001 - whatever it is, the task must be settled and the next one run
                self._defer(task, error)

    def _run(self, task: Task) -> None:
        fault_point("summary.claimed")
        study = self._ledger.study(task)
        waiting = sum(image.waiting for image in study.images)
        if waiting:
            at = self._clock.now() + timedelta(seconds=_STILL_CLASSIFYING_S)
            self._ledger.release(task, at=at, reason=f"{waiting} images of the study are still to be classified")
            return
        try:
            result, note = self._made(study)
        except NotReportable as error:
            result, note = None, f"no summary: {error}"
        if result is None:
            self._ledger.complete(task, note=note)
            return
        destinations = task.options.get("results_to", ())
        produced = spooled(self._spool, result, at=self._clock.now(), destinations=destinations)
        fault_point("summary.spooled")
        try:
            self._ledger.complete(task, note=note, produced=[produced])
        except LeaseLost:
            self._spool.delete(produced.instance.spool_key)
            raise
        emit(
            "summary.made",
            task_id=task.task_id,
            classifier=task.target,
            sop_instance_uid=result.sop_instance_uid,
            images=len(study.images),
        )

    def _made(self, study: Study) -> tuple[ResultObject | None, str]:
        """The document, or None, and what the ledger is to say of it. Raises NotReportable."""
        analysed = [
            Summarised(image=image.instance, prediction=image.outcome, report=image.reports[0])
            for image in study.images
            if isinstance(image.outcome, Prediction) and image.reports
        ]
        report = self._report(analysed)
        result = self._builder.summary(
            report,
            analysed,
            not_analysed=[(i.instance, i.outcome) for i in study.images if isinstance(i.outcome, NotAnalysed)],
            made_before=study.summaries,
        )
        if result is None:
            return None, "the newest summary says the same"
        summarised = self._builder.alike(analysed)
        if problems := check_summary(result, report, summarised):
            emit("report.held_back", level=logging.WARNING, sop_instance_uid=result.sop_instance_uid)
            raise NotReportable("; ".join(problems))
        return result, f"of {len(summarised)} images"

    def _report(self, analysed: Sequence[Summarised]) -> bytes:
        """The bytes of the newest report that are still here: from it the patient's identity is copied."""
        for one in reversed(analysed):
            try:
                return self._spool.path(one.report.spool_key).read_bytes()
            except (SpoolDamaged, FileNotFoundError):
                continue
        raise NotReportable("no report of the study is in the spool any more" if analysed else "no image has a report")

    def _defer(self, task: Task, error: Exception) -> None:
        at = self._policy.next_attempt_at(
            now=self._clock.now(),
            attempts=task.attempts,
            error=error,
            jitter=random.random(),  # noqa: S311 - spreads retries, protects nothing
        )
        self._ledger.defer(task, error=f"{type(error).__name__}: {error}", at=at)
        emit(
            "task.failed" if at is None else "task.deferred",
            level=logging.WARNING,
            exc_info=error,
            attempts=task.attempts,
            task_id=task.task_id,
            kind=task.kind,
            target=task.target,
            uid=task.uid,
        )
