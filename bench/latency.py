"""From C-STORE response to the destination: one image at a time, on a node with nothing else to do.

The time is that of the ledger: when the destination's answer had come and was being written down.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median

from bench import turns
from bench.effort import Effort
from bench.receiver import Sink
from bench.row import Row
from bench.workload import CHEST, CT, Size, instances
from router.core.lifecycle import TaskState
from router.deliver.association import Address
from router.deliver.send import send
from router.deliver.sources import Source, find
from router.ledger.queries import InstanceStatus
from tests.peers import HOST, Orthanc, Peer, wait_until
from tests.whole.router_process import CHEST_RULE, EVERYTHING_RULE, RouterProcess, destination

GROUP = "latency"
MILLISECONDS = "ms"
ORTHANC = "router, to Orthanc with our orthanc.json"
ORTHANC_ANEW = "router, to Orthanc, a new association for each"
SINK = "router, to a receiver that discards"
CLASSIFYING = "router with the demonstration classifier, to Orthanc"
_REPORT = ", its SR"
#: Between two images: the node and the destination have come to rest, and their association stays open.
_PAUSE_S = 1.0


def what(size: Size) -> str:
    """How a row of this group is called."""
    return f"{size.name}, from C-STORE response to the destination's answer"


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """Slices and radiographs; to Orthanc, and to a receiver that costs nothing: the second is what we add ourselves."""
    since = time.monotonic()
    count = effort.count(20, 3)
    for size in (CHEST, CT):
        to_orthanc = partial(_turn, folder, size, count, lambda place: Orthanc(folder=place))
        contenders = {
            ORTHANC: to_orthanc,
            ORTHANC_ANEW: partial(to_orthanc, keep_open_s=0),
            SINK: partial(_turn, folder, size, count, lambda place: Sink(folder=place)),
        }
        if size is CHEST:
            contenders[CLASSIFYING] = partial(to_orthanc, classify=True)
        yield from turns.rows(effort, group=GROUP, what=what(size), since=since, contenders=contenders)


def _turn(
    folder: Path,
    size: Size,
    count: int,
    peer: Callable[[Path], Peer],
    *,
    classify: bool = False,
    keep_open_s: float | None = None,
) -> turns.Figures:
    more = {} if keep_open_s is None else {"keep_open_s": keep_open_s}
    with tempfile.TemporaryDirectory(dir=folder) as name, peer(Path(name) / "peer") as there:
        node = RouterProcess(
            Path(name) / "node",
            destination("pacs", there.ae_title, there.port, **more),
            rules=(CHEST_RULE, EVERYTHING_RULE) if classify else (EVERYTHING_RULE,),
            classifier='type = "demo"' if classify else "",
        )
        with node:
            if classify:
                wait_until(lambda: node.events("classify.child_started"), 120)
            address = Address(ae_title=node.ae_title, host=HOST, port=node.port, calling_ae_title="BENCH")
            found = [_one(node, address, path) for path in instances(size, count + 1, Path(name) / "files")][1:]
    values = [original for original, _ in found]
    reports = [report for _, report in found if report is not None]
    figures = {MILLISECONDS: median(values), f"{MILLISECONDS}, longest": max(values)}
    if reports:
        figures[MILLISECONDS + _REPORT] = median(reports)
    return figures


def _one(node: RouterProcess, address: Address, path: Path) -> tuple[float, float | None]:
    """Milliseconds until the original, and its SR if it has one, was delivered."""
    time.sleep(_PAUSE_S)
    [sent] = send(address, [one for one in find([path]) if isinstance(one, Source)])
    assert sent.status == "sent", sent.note
    assert sent.responded_at is not None
    node.settle()
    [status] = node.statuses([sent.source.sop_instance_uid])
    assert status is not None
    original = _milliseconds(sent.responded_at, status)
    return original, _milliseconds(sent.responded_at, status.results[0]) if status.results else None


def _milliseconds(since: datetime, status: InstanceStatus) -> float:
    settled = [t.settled_at for t in status.deliveries if t.state is TaskState.DONE and t.settled_at is not None]
    return (max(settled) - since).total_seconds() * 1000
