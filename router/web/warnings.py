"""What is wrong and keeps no image out, in words: /health/ready says it beside what does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from router.core.lifecycle import TaskKind
from router.web.paper import age_text
from router.web.status import Lane


def warnings(
    *,
    lanes: Sequence[Lane],
    classifiers: Mapping[str, str],
    untold: Mapping[str, int],
    audit_trouble: str = "",
) -> Iterator[str]:
    """`classifiers`: name -> why it has no process, empty when it has one or is to get it. `untold`: [notify.NAME] -> notifications
    that could not be sent and are tried again.
    """
    for lane in lanes:
        if lane.kind == TaskKind.DELIVER and lane.down_s is not None:
            why = f": {lane.trouble}" if lane.trouble else ""
            yield f"destination {lane.target} has not been reached for {age_text(lane.down_s)}{why}; {lane.owed_count} deliveries wait"
    for name, why in classifiers.items():
        if why:
            yield f"classifier {name} has no process: {why}; images wait for it, originals do not"
    for name, count in untold.items():
        yield f"notifications to {name} cannot be sent: {count} are tried again"
    for lane in lanes:
        if count := lane.counts.get("failed", 0):
            yield f"{count} tasks have failed for good ({lane.kind} {lane.target}): router queue says why"
    if audit_trouble:
        yield f"the syslog receiver of the audit trail gets nothing ({audit_trouble}); the files have all of it"
