"""What failed, and what conflicts: the pages that want somebody to do something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from starlette.responses import RedirectResponse, Response

from router.audit import events
from router.core.lifecycle import TaskKind
from router.ledger.search import Search
from router.web.fixes import fix_for
from router.web.paper import Paper
from router.web.status import ReadStatus
from router.web.studies import number_of
from router.web.ways import Visit

_PAGE = 50


class Requeue(Protocol):
    """`ledger.store.SqlLedger.requeue`."""

    def __call__(
        self, task_ids: Sequence[int] | None = None, *, kind: TaskKind | None = None, target: str | None = None
    ) -> int: ...


class FailedPages:
    """`/failed`, `/failed/requeue`."""

    def __init__(
        self, *, search: Search, requeue: Requeue, read_status: ReadStatus, paper: Paper, node: events.Node
    ) -> None:
        self._search = search
        self._requeue = requeue
        self._read_status = read_status
        self._paper = paper
        self._node = node

    def list(self, visit: Visit) -> Response:
        """Tasks that failed for good, the newest first, each with its reason and what helps. UIDs, nothing else of patients."""
        kind, target, before_id = visit.query("kind"), visit.query("target"), number_of(visit.query("before"))
        rows = self._search.failed(kind=kind, target=target, before_id=before_id, limit=_PAGE + 1)
        more, rows = len(rows) > _PAGE, rows[:_PAGE]
        lanes = [lane for lane in self._read_status().lanes if lane.counts.get("failed")]
        return self._paper.page(
            "failed.html",
            principal=visit.principal,
            here="failed",
            rows=[(row, fix_for(kind=row.kind, target=row.target, reason=row.error)) for row in rows],
            lanes=lanes,
            kind=kind,
            target=target,
            put_back=number_of(visit.query("put_back")),
            next_id=rows[-1].task_id if more else None,
        )

    def requeue(self, visit: Visit) -> Response:
        """Puts tasks back: those that are named, or all of one kind and target. Written down before it is done."""
        task_ids = [n for n in map(number_of, visit.form.get("task", [])) if n is not None]
        kind, target = visit.field("kind"), visit.field("target")
        if not task_ids and (kind not in set(TaskKind) or not target):
            return self._paper.message(
                status=400, title="Nothing chosen", text="Name the tasks to put back.", principal=visit.principal
            )
        if task_ids:
            what = f"tasks {', '.join(map(str, task_ids))}"
            count = self._search.failed_count(task_ids=task_ids)
        else:
            what, count = f"all failed: {kind} {target}", self._search.failed_count(kind=kind, target=target)
        visit.record(events.requeued(self._node, visit.person, what=what, count=count))
        done = self._requeue(task_ids) if task_ids else self._requeue(kind=TaskKind(kind), target=target)
        return RedirectResponse(f"/failed?put_back={done}", status_code=303)


class ConflictPage:
    """`/conflicts`."""

    def __init__(self, *, search: Search, paper: Paper) -> None:
        self._search = search
        self._paper = paper

    def list(self, visit: Visit) -> Response:
        """Instances that came with another one's UID and other bytes, all versions beside each other."""
        page = 25
        rows = self._search.conflicts(before_id=number_of(visit.query("before")), limit=page)
        lowest = min((v.instance_id for row in rows for v in row.versions if v.conflict), default=None)
        return self._paper.page(
            "conflicts.html",
            principal=visit.principal,
            here="conflicts",
            rows=rows,
            next_id=lowest if len(rows) >= page else None,
        )
