"""The classify step: what a worker does with the classify tasks it claimed. The work itself is done in the child."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from router.core.childproto import Request
from router.core.findings import NotAnalysed, Prediction
from router.core.instance import Reference
from router.core.ports import Analysis, Analyst, BatchAnalyst, Clock, Ledger, Produced, ResultObject, Spool, Task
from router.core.retry import RetryPolicy
from router.errors import ChildDied, ChildNotReady, LeaseLost, SpoolDamaged
from router.faults import fault_point
from router.observe import meters
from router.observe.log import emit
from router.spool.results import spooled

#: An image that the child died of is tried once more, because the child may have died of something else.
_ATTEMPTS_MAX = 2
#: The result (entry point router.results) for which the child is asked once more, about the header alone.
_EXPLANATION = "not-analysed"
#: Before images ask again for a child that cannot be started; its keeper has a back-off of its own.
_NOT_READY_PAUSE_S = 5.0


class ClassifyStep:
    """Runs tasks one after another: analyse, spool the result objects, settle. See `core.ports.Step`."""

    def __init__(self, *, ledger: Ledger, spool: Spool, analyst: Analyst, clock: Clock, retry: RetryPolicy) -> None:
        self._ledger = ledger
        self._spool = spool
        self._analyst = analyst
        self._clock = clock
        self._retry = retry

    def run(self, tasks: Sequence[Task]) -> None:
        """Settles every task by the ledger; raises nothing but programming errors."""
        together = self._asked_together(tasks)
        for task in tasks:
            try:
                self._run(task, together.get(task.task_id))
            except LeaseLost:
                emit("task.lease_lost", level=logging.WARNING, **_facts(task))

    def _asked_together(self, tasks: Sequence[Task]) -> dict[int, Analysis | Exception]:
        """What the child says of images that nobody has tried yet, by task, if it computes several at once.

        Those that were tried before are asked about alone: the child may have died of one of them.
        """
        fresh = [task for task in tasks if task.attempts <= 1]
        if len(fresh) < 2 or not isinstance(self._analyst, BatchAnalyst):
            return {}
        requests: dict[int, Request] = {}
        for task in fresh:
            with contextlib.suppress(Exception):  # asked alone it will say why
                requests[task.task_id] = self._request(task)
        try:
            with meters.classifying(tasks[0].target):
                answers: Sequence[Analysis | Exception] = self._analyst.analyse_all(list(requests.values()))
        except ChildNotReady as error:
            answers = [error] * len(requests)
        return dict(zip(requests, answers, strict=True))

    def _request(self, task: Task) -> Request:
        wanted = tuple(task.options.get("results", ()))
        return Request(
            classifier=task.target,
            instance=task.instance,
            path=self._spool.path(task.instance.spool_key),
            results=wanted,
            made_before=tuple(self._made_before(task)) if wanted else (),
        )

    def _asked(self, task: Task) -> Analysis:
        asked = self._request(task)
        with meters.classifying(task.target):
            return self._analyst.analyse(
                asked.classifier, asked.instance, asked.path, asked.results, made_before=asked.made_before
            )

    def _run(self, task: Task, answer: Analysis | Exception | None = None) -> None:
        try:
            fault_point("classify.claimed")
            if isinstance(answer, Exception):
                raise answer
            analysis = answer or self._asked(task)
            fault_point("classify.answered")
            produced = self._spooled(task, analysis.results)
            self._complete(task, analysis, produced)
        except LeaseLost:
            raise
        except ChildDied as error:
            try:
                self._child_died(task, error)
            except OSError as full:
                self._defer(task, full)
        except ChildNotReady as error:
            at = self._clock.now() + timedelta(seconds=_NOT_READY_PAUSE_S)
            self._ledger.release(task, at=at, reason=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the task must be settled and the next one run
            self._defer(task, error)
        else:
            _tell(task, analysis)

    def _made_before(self, task: Task) -> list[Reference]:
        return [
            Reference(
                sop_class_uid=made.sop_class_uid,
                sop_instance_uid=made.sop_instance_uid,
                series_instance_uid=made.series_instance_uid,
                study_instance_uid=made.study_instance_uid,
            )
            for made in self._ledger.made_before(task)
        ]

    def _complete(self, task: Task, analysis: Analysis, produced: Sequence[Produced]) -> None:
        try:
            self._ledger.complete(task, note=analysis.not_reported, outcome=analysis.outcome, produced=produced)
        except LeaseLost:
            # Nothing was written, so no row names these. After any other error that is unknown: the janitor will see.
            self._forget([one.instance.spool_key for one in produced])
            raise

    def _spooled(self, task: Task, results: Sequence[ResultObject]) -> list[Produced]:
        produced: list[Produced] = []
        try:
            for result in results:
                produced.append(self._produced(task, result))
                fault_point("classify.spooled")
        except OSError:
            self._forget([one.instance.spool_key for one in produced])
            raise
        return produced

    def _produced(self, task: Task, result: ResultObject) -> Produced:
        destinations = task.options.get("results_to", ())
        return spooled(self._spool, result, at=self._clock.now(), destinations=destinations)

    def _child_died(self, task: Task, error: ChildDied) -> None:
        if task.attempts < _ATTEMPTS_MAX:
            self._defer(task, error)
            return
        outcome = NotAnalysed(
            code="child_died", reason=f"the classifier's process died of this image {task.attempts} times: {error}"
        )
        analysis = self._told(task, outcome)
        self._complete(task, analysis, self._spooled(task, analysis.results))
        emit("classify.not_analysed", level=logging.WARNING, code=outcome.code, **_facts(task))

    def _told(self, task: Task, outcome: NotAnalysed) -> Analysis:
        """What was asked for of an image that is given up: the header of an image may be harmless when its pixels are not."""
        wanted = tuple(task.options.get("results", ()))
        if _EXPLANATION not in wanted:
            return Analysis(outcome=outcome)
        try:
            path = self._spool.path(task.instance.spool_key)
            return self._analyst.analyse(task.target, task.instance, path, wanted, given=outcome)
        except (ChildDied, ChildNotReady, SpoolDamaged) as error:
            return Analysis(outcome=outcome, not_reported=f"no document says so: {error}")

    def _defer(self, task: Task, error: Exception) -> None:
        at = self._retry.next_attempt_at(
            now=self._clock.now(),
            attempts=task.attempts,
            error=error,
            jitter=random.random(),  # noqa: S311 - spreads retries, protects nothing
        )
        self._ledger.defer(task, error=f"{type(error).__name__}: {error}", at=at)
        event = "task.failed" if at is None else "task.deferred"
        emit(event, level=logging.WARNING, exc_info=error, attempts=task.attempts, **_facts(task))

    def _forget(self, spooled: Sequence[str]) -> None:
        """Removes result objects that no ledger row will name."""
        for key in spooled:
            self._spool.delete(key)


def _tell(task: Task, analysis: Analysis) -> None:
    facts = _facts(task)
    outcome = analysis.outcome
    if isinstance(outcome, Prediction):
        emit(
            "classify.done",
            findings=len(outcome.findings),
            results=[result.sop_instance_uid for result in analysis.results],
            demonstration=outcome.classifier.demonstration,
            **facts,
        )
    else:
        emit("classify.not_analysed", code=outcome.code, **facts)
    if analysis.not_reported:
        emit("report.held_back", level=logging.WARNING, **facts)


def _facts(task: Task) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "sop_instance_uid": task.instance.sop_instance_uid,
        "classifier": task.target,
    }
