"""The whole way: chest images in, originals and Structured Reports delivered to a receiver that discards.

How much of it is the network's forward pass is measured in the classify children, by `bench.timed`, while they work.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench import timed, turns
from bench.effort import Effort
from bench.process import cpu_s, own_cpu_s
from bench.receiver import Sink
from bench.row import Row
from bench.sender import NAGLE_OFF, seconds_to_send
from bench.workload import CHEST, instances
from tests.peers import wait_until
from tests.whole.router_process import CHEST_RULE, EVERYTHING_RULE, RouterProcess, destination

GROUP = "whole"
RATE = "images/s"
SHARE = "% of the router's CPU time in the network's forward pass"
CORES = "% of all cores' time in the network's forward pass, sender and receiver on them too"
NODE = "CPU ms an image: the node's own process"
WHAT = f"{CHEST.name}: received, delivered"
WHAT_CLASSIFIED = f"{CHEST.name}: received, classified, reported, both delivered"
XRV = "router, DenseNet-121"


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """Without a classifier, with the demonstration classifier, with a DenseNet-121 of random weights."""
    since = time.monotonic()
    plain = {"router": partial(_turn, effort, folder, "")}
    yield from turns.rows(effort, group=GROUP, what=WHAT, since=since, contenders=plain)
    processes = f"processes = {os.cpu_count()}"
    contenders: dict[str, Callable[[], turns.Figures]] = {
        "router, demonstration classifier": partial(_turn, effort, folder, f'type = "demo"\n{processes}')
    }
    try:
        weights = _weights(folder)
    except ImportError as error:
        reason = f"{error.name} is not installed"
        yield Row(group=GROUP, what=WHAT_CLASSIFIED, who=XRV, unit=RATE, reason=reason)
    else:
        table = f'type = "xrv"\nweights = "{weights}"\nruntime = "onnx"\n{processes}'
        contenders[XRV] = partial(_turn, effort, folder, table)
    yield from turns.rows(effort, group=GROUP, what=WHAT_CLASSIFIED, since=since, contenders=contenders)


def _turn(effort: Effort, folder: Path, classifier: str) -> turns.Figures:
    count = effort.count(60 if classifier else 2 * CHEST.count, 4)
    with tempfile.TemporaryDirectory(dir=folder) as name, Sink(folder=Path(name) / "sink") as sink:
        node = RouterProcess(
            Path(name) / "node",
            destination("pacs", sink.ae_title, sink.port),
            rules=(CHEST_RULE, EVERYTHING_RULE) if classifier else (EVERYTHING_RULE,),
            classifier=classifier,
        )
        stages = Path(name) / "stages"
        node.program = ("-m", "bench.timed", str(stages))
        files = instances(CHEST, count, Path(name) / "files")
        warm = instances(CHEST, 4 if classifier else 2, Path(name) / "warm")
        with node:
            each = 2 if classifier else 1
            seconds_to_send(NAGLE_OFF, warm, node.port, node.ae_title)
            _until(node, each * len(warm))
            before = cpu_s(node.pid), own_cpu_s(node.pid), timed.totals(stages)
            begun = time.perf_counter()
            seconds_to_send(NAGLE_OFF, files, node.port, node.ae_title)
            _until(node, each * (len(warm) + count))
            seconds = time.perf_counter() - begun
            tree_s, own_s, spent = cpu_s(node.pid) - before[0], own_cpu_s(node.pid) - before[1], timed.totals(stages)
    figures = {RATE: count / seconds, NODE: own_s / count * 1000}
    for stage, (cpu_now_s, now_s) in spent.items():
        cpu_before_s, before_s = before[2].get(stage, (0.0, 0.0))
        figures[f"CPU ms an image: {stage}"] = (cpu_now_s - cpu_before_s) / count * 1000
        if stage == timed.FORWARD:
            figures[SHARE] = (cpu_now_s - cpu_before_s) / tree_s * 100
            figures[CORES] = (now_s - before_s) / (seconds * (os.cpu_count() or 1)) * 100
    return figures


def _until(node: RouterProcess, delivered: int) -> None:
    """Looks into the ledger beside the node, which is not to work for being asked."""

    def done() -> bool:
        with contextlib.closing(sqlite3.connect(f"file:{node.ledger_path}?mode=ro", uri=True)) as ledger:
            [[count]] = ledger.execute("SELECT count(*) FROM task WHERE kind = 'deliver' AND state = 'done'")
        return bool(count >= delivered)

    wait_until(done, 600, "everything is delivered")


def _weights(folder: Path) -> Path:
    """A DenseNet-121 of random weights. Raises ImportError."""
    from bench import classify

    [image] = instances(CHEST, 1, folder / "image")
    return classify.weights_file(folder, image)
