"""Doing nothing: what 100 associations without work cost a receiver, and what setting one up with every context takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pynetdicom.presentation import AllStoragePresentationContexts

from bench import turns
from bench.effort import Effort
from bench.process import cpu_s
from bench.receiver import Receiver, receivers
from bench.row import Row
from router.deliver.association import Address, Association
from router.deliver.negotiation import CONTEXT_COUNT_MAX
from router.dimse.contexts import EXPLICIT_VR_LITTLE_ENDIAN
from router.errors import AssociationRejected, PeerUnreachable
from tests.edge.rawpeer import RawPeer, associate, context, pdu
from tests.peers import HOST, Peer

GROUP = "idle"
IDLE = "100 idle associations"
SET_UP = "association with 128 contexts of 4 syntaxes"
CORE = "% of a core"
MILLISECONDS = "ms"
_IDLE_COUNT = 100
_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90")


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """Both, every receiver in turns."""
    since = time.monotonic()
    watch_s = 2.0 if effort.quick else 10.0
    for what, turn in (
        (IDLE, partial(_idle, watch_s)),
        (SET_UP, partial(_set_up, effort.count(50, 5))),
    ):
        contenders = {name: partial(_turn, receiver, folder, turn) for name, receiver in receivers().items()}
        yield from turns.rows(effort, group=GROUP, what=what, since=since, contenders=contenders)


def _turn(receiver: Receiver, folder: Path, turn: partial[turns.Figures]) -> turns.Figures:
    with tempfile.TemporaryDirectory(dir=folder) as name, receiver(Path(name) / "receiver") as peer:
        return turn(peer)


def _idle(watch_s: float, peer: Peer) -> turns.Figures:
    address = Address(
        ae_title=peer.ae_title, host=HOST, port=peer.port, calling_ae_title="BENCH", response_timeout_s=10
    )
    contexts = [(str(c.abstract_syntax), EXPLICIT_VR_LITTLE_ENDIAN) for c in AllStoragePresentationContexts[:3]]
    time.sleep(2)  # what it does after its start is over
    open_now: list[Association] = []
    try:
        before = cpu_s(peer.pid)
        time.sleep(watch_s)
        nothing = cpu_s(peer.pid) - before
        for _ in range(_IDLE_COUNT):
            open_now.append(Association(address, contexts))
        time.sleep(1)
        before = cpu_s(peer.pid)
        time.sleep(watch_s)
        used = cpu_s(peer.pid) - before
    except (PeerUnreachable, AssociationRejected) as error:
        raise turns.NotMeasurable(f"it takes {len(open_now)} associations at once: {error}") from error
    finally:
        for association in open_now:
            association.abort()
    return {CORE: used / watch_s * 100, f"{CORE} without any": nothing / watch_s * 100}


def _set_up(repetitions: int, peer: Peer) -> turns.Figures:
    """From the connection to the answer, the median."""
    classes = [str(c.abstract_syntax) for c in AllStoragePresentationContexts]
    proposed = [context(2 * n + 1, classes[n % len(classes)], *_SYNTAXES) for n in range(CONTEXT_COUNT_MAX)]
    request = associate(*proposed, called=peer.ae_title.encode())
    taken = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        with RawPeer(peer.port, deadline_s=60) as raw:
            raw.send(request)
            kind, _ = raw.pdu()
            taken.append(time.perf_counter() - begun)
            if kind != 2:
                raise turns.NotMeasurable("it does not accept them")
            raw.send(pdu(5, b"\0\0\0\0"))
            raw.pdu()
    return {MILLISECONDS: sorted(taken)[len(taken) // 2] * 1000}
