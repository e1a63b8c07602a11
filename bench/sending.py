"""Sending to a receiver that discards: how many instances a second, from the request for an association to its release.

Measured by the receiver, so that the start of a program counts for nobody.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from bench.effort import Effort
from bench.receiver import Sink
from bench.row import Row
from bench.sender import (
    NAGLE_OFF,
    NAGLE_ON,
    PYNETDICOM,
    PYNETDICOM_CHUNKS,
    ROUTER_LANE,
    ROUTER_LANE_VERIFYING,
    ROUTER_SEND,
    NotAllStored,
    seconds_to_send,
)
from bench.workload import SIZES, Size, instances
from tests.peers import ProgramMissing, wait_until

GROUP = "send"
UNIT = "instances/s"
WINDOW = 8
WITH_WINDOW = f", {WINDOW} at once where the peer agrees"

#: Contender, its way of sending, and the window that the receiver grants.
_CONTENDERS = (
    (ROUTER_SEND, ROUTER_SEND, 1),
    (ROUTER_SEND + WITH_WINDOW, ROUTER_SEND, WINDOW),
    (ROUTER_LANE, ROUTER_LANE, 1),
    (ROUTER_LANE + WITH_WINDOW, ROUTER_LANE, WINDOW),
    (ROUTER_LANE_VERIFYING, ROUTER_LANE_VERIFYING, 1),
    (NAGLE_OFF, NAGLE_OFF, 1),
    (NAGLE_ON, NAGLE_ON, 1),
    (PYNETDICOM, PYNETDICOM, 1),
    (PYNETDICOM_CHUNKS, PYNETDICOM_CHUNKS, 1),
)


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """Every size, every contender, in turns."""
    begun = time.monotonic()
    for size in SIZES:
        files = instances(size, effort.count(size.count, 4), folder / "files")
        values: dict[str, list[float]] = {name: [] for name, _, _ in _CONTENDERS}
        reasons: dict[str, str] = {}
        with Sink(folder=folder / "sink") as one, Sink(folder=folder / "window", window=WINDOW) as several:
            for _ in itertools.takewhile(lambda n: n == 0 or not effort.spent(begun), range(effort.rounds)):
                for name, how, window in _CONTENDERS:
                    try:
                        values[name].append(_rate(how, files, size, several if window > 1 else one))
                    except (ProgramMissing, NotAllStored) as error:
                        reasons[name] = str(error)
        for name, figures in values.items():
            reason = "" if figures else reasons[name]
            yield Row(group=GROUP, what=size.name, who=name, unit=UNIT, values=figures, reason=reason)
        shutil.rmtree(folder)
        folder.mkdir()


def _rate(how: str, files: list[Path], size: Size, sink: Sink) -> float:
    slow = how in (NAGLE_ON, PYNETDICOM, PYNETDICOM_CHUNKS)
    sent = files[: size.slow_count] if slow else files
    before = len(sink.told())
    seconds_to_send(how, sent, sink.port, sink.ae_title)
    wait_until(lambda: sum(one["instances"] for one in sink.told()[before:]) >= len(sent), 60, "the receiver's word")
    news = sink.told()[before:]
    # A lane may have two associations, which are open side by side; a program that sends has one after the other.
    together = max if how in (ROUTER_LANE, ROUTER_LANE_VERIFYING) else sum
    return len(sent) / together(one["seconds"] for one in news)
