"""Start-up: from the command to the first association that could be taken, processor time and memory by then."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench import turns
from bench.effort import Effort
from bench.process import cpu_s, peak_mib, rss_mib
from bench.receiver import Receiver, Router, receivers
from bench.row import Row
from tests.peers import Peer, listens, wait_until

GROUP = "start"
WHAT = "until it takes associations"
_DEMO = '[classifiers.cxr]\ntype = "demo"\n'


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """Every receiver, in turns."""
    contenders = {name: partial(_turn, receiver, folder) for name, receiver in receivers().items()}
    contenders["router, with the demonstration classifier"] = partial(
        _turn, lambda place: Router(folder=place, more=_DEMO), folder
    )
    yield from turns.rows(effort, group=GROUP, what=WHAT, since=time.monotonic(), contenders=contenders)


def _turn(receiver: Receiver, folder: Path) -> turns.Figures:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        begun = time.monotonic()
        with receiver(Path(name) / "receiver") as peer:
            ready_s = _ready(peer, begun)
            return {
                "s": ready_s,
                "CPU s": cpu_s(peer.pid),
                "MiB of its own": rss_mib(peer.pid),
                "MiB at most": peak_mib(peer.pid),
            }


def _ready(peer: Peer, begun: float) -> float:
    wait_until(lambda: listens(peer.port), 60)
    return time.monotonic() - begun
