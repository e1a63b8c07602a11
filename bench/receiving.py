"""Receiving: instances a second until the sender's last Success, and the receiver's processor time for each.

Success means different things: storescp and stock pynetdicom have written a file and synced nothing; Orthanc has synced file
and database; the router has synced file, folder and ledger. Its only destination is down meanwhile: delivering is
measured elsewhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import turns
from bench.effort import Effort
from bench.process import cpu_s
from bench.receiver import Receiver, receivers
from bench.row import Row
from bench.sender import NAGLE_OFF, NAGLE_ON, ROUTER_SEND, seconds_to_send
from bench.workload import CHEST, CT, SIZES, TINY, Size, instances

GROUP = "receive"
RATE = "instances/s"
CPU = "receiver's CPU ms per instance"
_ON_POSTGRESQL = "router, PostgreSQL"


def what(size: Size, how: str, associations: int) -> str:
    """How a row of this group is called."""
    return f"{size.name}, {how} x{associations}"


def cells(effort: Effort) -> Iterator[tuple[Size, str, int]]:
    """What is measured, the most important first."""
    for size in (CHEST, CT, TINY):
        for associations in (1, 8) if effort.quick else (1, 4, 8, 32):
            yield size, NAGLE_OFF, associations
    for size in (CHEST, CT, TINY):
        yield size, NAGLE_ON, 1
    if effort.quick:
        return
    for size in (CHEST, CT):
        for associations in (1, 8):
            yield size, ROUTER_SEND, associations
    for size in SIZES:
        yield size, NAGLE_ON, 8


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """Every cell; in each round every receiver takes its turn, freshly started and empty."""
    since = time.monotonic()
    for size, how, associations in cells(effort):
        full = size.slow_count if how == NAGLE_ON else size.count
        count = max(effort.count(full), 2 * associations)
        contenders = {
            name: partial(_turn, receiver, size, how, associations, count, folder)
            for name, receiver in receivers().items()
            if _takes_part(name, how, associations)
        }
        yield from turns.rows(
            effort, group=GROUP, what=what(size, how, associations), since=since, contenders=contenders
        )


def _takes_part(name: str, how: str, associations: int) -> bool:
    """PostgreSQL only where it tells something."""
    return name != _ON_POSTGRESQL or (how == NAGLE_OFF and associations in (1, 8))


def _turn(receiver: Receiver, size: Size, how: str, associations: int, count: int, folder: Path) -> turns.Figures:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        here = Path(name)
        warm = instances(size, 1, here / "warm")
        files = instances(size, count, here / "files")
        with _nagle(on=how == NAGLE_ON), receiver(here / "receiver") as peer:
            seconds_to_send(how, warm, peer.port, peer.ae_title)
            before = cpu_s(peer.pid)
            seconds = seconds_to_send(how, files, peer.port, peer.ae_title, associations)
            used_s = cpu_s(peer.pid) - before
        shutil.rmtree(here / "files")
    return {RATE: count / seconds, CPU: used_s / count * 1000}


@contextmanager
def _nagle(*, on: bool) -> Iterator[None]:
    """Whether programs of dcmtk that are started within, Orthanc among them, leave Nagle's algorithm on."""
    before = os.environ.pop("TCP_NODELAY", None)
    if not on:
        os.environ["TCP_NODELAY"] = "1"
    try:
        yield
    finally:
        os.environ.pop("TCP_NODELAY", None)
        if before is not None:
            os.environ["TCP_NODELAY"] = before
