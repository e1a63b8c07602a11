"""Memory: what a receiver needs for each 7.2 MB instance that is in flight."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import turns
from bench.effort import Effort
from bench.process import peak_mib, resident_mib, rss_mib
from bench.receiver import Receiver, receivers
from bench.row import Row
from bench.workload import CHEST, instances
from router.deliver.association import Address, Association
from router.deliver.sources import Source, find
from router.errors import PeerUnreachable
from tests.peers import HOST, Peer

GROUP = "memory"
WHAT = "20 chest images of 7.2 MB in flight"
EACH = "MiB per instance, at most"
HELD = "MiB per instance, nine tenths received"
_IN_FLIGHT = 20
#: After the last byte of those parts was sent, until the receiver has them all; and between looks at its memory.
_REST_S = 1.0
#: Some receivers take only a few at once: the others wait so long.
_PATIENCE_S = 15.0


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """Every receiver, in turns."""
    contenders = {name: partial(_turn, receiver, folder) for name, receiver in receivers().items()}
    yield from turns.rows(effort, group=GROUP, what=WHAT, since=time.monotonic(), contenders=contenders)


def _turn(receiver: Receiver, folder: Path) -> turns.Figures:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        here = Path(name)
        sources = [one for one in find(instances(CHEST, _IN_FLIGHT + 1, here / "files")) if isinstance(one, Source)]
        with receiver(here / "receiver") as peer:
            address = Address(
                ae_title=peer.ae_title,
                host=HOST,
                port=peer.port,
                calling_ae_title="BENCH",
                response_timeout_s=_PATIENCE_S,
            )
            first = _Flight(address, sources[0])  # so that what is loaded on first use is not counted
            first.go.set()
            first.over.set()
            first.fly()
            flights = [_Flight(address, source) for source in sources[1:]]
            time.sleep(_REST_S)
            before, own = resident_mib(peer.pid), rss_mib(peer.pid)
            return _figures(peer, flights, before, own)


def _figures(peer: Peer, flights: Sequence[_Flight], before: float, own: float) -> turns.Figures:
    threads = [threading.Thread(target=flight.fly) for flight in flights]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 2 * _PATIENCE_S
        held = [flight for flight in flights if flight.halted.wait(max(0.0, deadline - time.monotonic()))]
        if not held:
            raise turns.NotMeasurable("no instance was taken")
        time.sleep(_REST_S)
        holding = rss_mib(peer.pid) - own
        for flight in held:
            flight.go.set()
        for flight in held:
            flight.stored.wait(2 * _PATIENCE_S)
        most = peak_mib(peer.pid) - before
    finally:
        for flight in flights:
            flight.go.set()
            flight.over.set()
        for thread in threads:
            thread.join(4 * _PATIENCE_S)
    return {
        EACH: max(0.0, most) / len(held),
        HELD: holding / len(held),
        "instances at once": len(held),
        "MiB before": own,
    }


class _Flight:
    """One instance on an association of its own; nine tenths of it go out, the rest when it is let go."""

    def __init__(self, address: Address, source: Source) -> None:
        with source.open() as file:
            file.read(source.data_set_offset)
            self._data = memoryview(file.read())
        self._source = source
        self._association = Association(address, [(source.sop_class_uid, source.transfer_syntax_uid)])
        self._halt = len(self._data) * 9 // 10
        self._at = 0
        self.halted, self.go, self.stored, self.over = (threading.Event() for _ in range(4))

    def fly(self) -> None:
        """Until `over`. A receiver that takes fewer at once lets the others wait, and they give up."""
        with contextlib.suppress(PeerUnreachable):
            self._association.store(
                context_id=self._association.accepted[self._source.sop_class_uid, self._source.transfer_syntax_uid],
                sop_class_uid=self._source.sop_class_uid,
                sop_instance_uid=self._source.sop_instance_uid,
                data_set=self,
            )
            self.stored.set()
        self.over.wait()
        self._association.abort()

    def readinto(self, buffer: memoryview, /) -> int:
        """As a file."""
        if self._at >= self._halt:
            self.halted.set()
            self.go.wait()
        end = self._halt if self._at < self._halt else len(self._data)
        count = min(len(buffer), end - self._at)
        buffer[:count] = self._data[self._at : self._at + count]
        self._at += count
        return count
