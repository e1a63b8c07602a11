"""The whole way: chest images in, originals and Structured Reports delivered to a receiver that discards."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench import turns
from bench.effort import Effort
from bench.receiver import Sink
from bench.row import Row
from bench.sender import NAGLE_OFF, seconds_to_send
from bench.workload import CHEST, instances
from tests.peers import wait_until
from tests.whole.router_process import CHEST_RULE, EVERYTHING_RULE, RouterProcess, destination

GROUP = "whole"
RATE = "images/s"
SHARE = "% of all cores in the network's forward pass"
FORWARD = "CPU ms of a forward pass"
WHAT = f"{CHEST.name}: received, delivered"
WHAT_CLASSIFIED = f"{CHEST.name}: received, classified, reported, both delivered"
XRV = "router, DenseNet-121"
_DONE = re.compile(r'^router_tasks\{kind="deliver",state="done",target="pacs"\} (\S+)$', re.MULTILINE)


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """Without a classifier, with the demonstration classifier, with a DenseNet-121 of random weights."""
    since = time.monotonic()
    plain = {"router": partial(_turn, effort, folder, "", None)}
    yield from turns.rows(effort, group=GROUP, what=WHAT, since=since, contenders=plain)
    processes = f"processes = {os.cpu_count()}"
    contenders: dict[str, Callable[[], turns.Figures]] = {
        "router, demonstration classifier": partial(_turn, effort, folder, f'type = "demo"\n{processes}', None)
    }
    try:
        weights, forward_s = _network(folder)
    except ImportError as error:
        reason = f"{error.name} is not installed"
        yield Row(group=GROUP, what=WHAT_CLASSIFIED, who=XRV, unit=RATE, reason=reason)
    else:
        table = f'type = "xrv"\nweights = "{weights}"\nruntime = "onnx"\n{processes}'
        contenders[XRV] = partial(_turn, effort, folder, table, forward_s)
    yield from turns.rows(effort, group=GROUP, what=WHAT_CLASSIFIED, since=since, contenders=contenders)


def _turn(effort: Effort, folder: Path, classifier: str, forward_s: Callable[[], float] | None) -> turns.Figures:
    count = effort.count(60 if classifier else 2 * CHEST.count, 4)
    with tempfile.TemporaryDirectory(dir=folder) as name, Sink(folder=Path(name) / "sink") as sink:
        node = RouterProcess(
            Path(name) / "node",
            destination("pacs", sink.ae_title, sink.port),
            rules=(CHEST_RULE, EVERYTHING_RULE) if classifier else (EVERYTHING_RULE,),
            classifier=classifier,
        )
        files = instances(CHEST, count, Path(name) / "files")
        warm = instances(CHEST, 2, Path(name) / "warm")
        with node:
            each = 2 if classifier else 1
            seconds_to_send(NAGLE_OFF, warm, node.port, node.ae_title)
            _until(node, each * len(warm))
            begun = time.perf_counter()
            seconds_to_send(NAGLE_OFF, files, node.port, node.ae_title)
            _until(node, each * (len(warm) + count))
            seconds = time.perf_counter() - begun
    figures = {RATE: count / seconds}
    if forward_s is not None:
        one_s = forward_s()
        figures[FORWARD] = one_s * 1000
        figures[SHARE] = count * one_s / (seconds * (os.cpu_count() or 1)) * 100
    return figures


def _until(node: RouterProcess, delivered: int) -> None:
    def done() -> bool:
        found = _DONE.search(node.get("/metrics")[1])
        return found is not None and float(found[1]) >= delivered

    wait_until(done, 600, "everything is delivered")


def _network(folder: Path) -> tuple[Path, Callable[[], float]]:
    """Random weights, and what measures one forward pass by them in processor seconds. Raises ImportError."""
    from bench import classify
    from router.classify.pixels import to_input

    [image] = instances(CHEST, 1, folder / "image")
    weights = classify.weights_file(folder, image)
    network, _ = classify.classifier(weights, "onnx")._ready()
    prepared = to_input(classify.read(image), classify.WEIGHTS.side)[None]

    def forward_s() -> float:
        taken = sorted(classify.cpu_ms(lambda: network.logits(prepared)) for _ in range(15))
        return taken[len(taken) // 2] / 1000

    return weights, forward_s
