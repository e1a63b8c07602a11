"""One image: how far it is, what the classifiers said, what was made of it; and a report as people read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response

from router.audit import events
from router.core.digest import parsed
from router.core.findings import Finding, Prediction
from router.core.instance import InstanceKind
from router.errors import SpoolDamaged
from router.ledger.queries import InstanceStatus, Queries
from router.ledger.search import Search, Step
from router.web.paper import Paper
from router.web.report import Line, UnreadableReport, findings_of
from router.web.tree import Tree, lines_of, read_tree
from router.web.viewer import ViewerPages
from router.web.ways import NotFound, Visit

#: What is a Structured Report of ours, to be shown as a page.
REPORT_KINDS = (InstanceKind.SR, InstanceKind.SUMMARY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Something made of an image."""

    instance_id: int
    status: InstanceStatus

    @property
    def readable(self) -> bool:
        """Whether there is a page of it."""
        return self.status.instance.kind in REPORT_KINDS


class ImagePages:
    """`/images/N`, `/reports/N`: N is the ledger's number, because two versions of an instance have one UID."""

    def __init__(
        self,
        *,
        search: Search,
        queries: Queries,
        spool_path: Callable[[str], Path],
        viewer: ViewerPages,
        paper: Paper,
        node: events.Node,
    ) -> None:
        """`spool_path`: where the bytes behind a spool key lie. Raises SpoolDamaged."""
        self._search = search
        self._queries = queries
        self._spool_path = spool_path
        self._viewer = viewer
        self._paper = paper
        self._node = node

    def image(self, visit: Visit) -> Response:
        """One original."""
        instance_id = int(visit.request.path_params["instance_id"])
        status = self._queries.status_of(instance_id)
        if status is None:
            raise NotFound(f"The ledger knows no instance with the number {instance_id}.")
        if status.root_id is not None:
            return self._report(visit, status)
        visit.record(events.viewed(self._node, visit.person, events.seen_of([status.instance])))
        steps = self._search.steps(instance_id)
        numbers = {result.instance.sop_instance_uid: result.instance_id for result in status.results}
        return self._paper.page(
            "image.html",
            principal=visit.principal,
            here="studies",
            image=status,
            instance=status.instance,
            digest=parsed(status.instance.digest),
            header=status.instance.header,
            durable_at=next(
                (step.at for step in steps if step.what in ("received", "received_again", "conflict")), None
            ),
            predictions=[(name, one) for name, one in status.outcomes.items() if isinstance(one, Prediction)],
            refusals=[(name, one) for name, one in status.outcomes.items() if not isinstance(one, Prediction)],
            sorted_findings=sorted_findings,
            outcome_at=_times_by_target(steps, ("analysed", "not_analysed")),
            made_at={step.instance_id: step.at for step in steps if step.what == "made"},
            committed_at={(s.instance_id, s.target): s.at for s in steps if s.what == "committed"},
            results=[Result(instance_id=numbers[r.instance.sop_instance_uid], status=r) for r in status.results],
            instance_id=instance_id,
            steps=steps,
            view=self._viewer.view(visit, status, steps),
        )

    def report(self, visit: Visit) -> Response:
        """A report that was made of an image."""
        instance_id = int(visit.request.path_params["instance_id"])
        status = self._queries.status_of(instance_id)
        if status is None or status.instance.kind not in REPORT_KINDS:
            raise NotFound(f"The ledger knows no report with the number {instance_id}.")
        return self._report(visit, status)

    def _report(self, visit: Visit, status: InstanceStatus) -> Response:
        lines: Sequence[Line] = ()
        tree: Tree | None = None
        problem = ""
        visit.record(events.viewed(self._node, visit.person, events.seen_of([status.instance])))
        try:
            tree = read_tree(self._spool_path(status.instance.spool_key))
            lines = lines_of(tree.content)
        except SpoolDamaged:
            problem = "Its bytes are not in the spool any more: they are freed some time after the last delivery. The archive has it."
        except UnreadableReport as error:
            problem = str(error)
        return self._paper.page(
            "report.html",
            principal=visit.principal,
            here="studies",
            instance=status.instance,
            root_id=status.root_id,
            lines=lines,
            findings=findings_of(lines),
            remarks=[line.value for line in lines if line.name == "Comment" and line.depth == 1],
            problem=problem,
            tree=tree,
        )


def sorted_findings(prediction: Prediction) -> Sequence[Finding]:
    """What is present first, then by score."""
    return sorted(prediction.findings, key=lambda finding: (not finding.present, -finding.score, finding.label))


def _times_by_target(steps: Sequence[Step], words: Sequence[str]) -> dict[str, object]:
    return {step.target: step.at for step in steps if step.what in words}
