"""What an association leaves behind."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref
from collections.abc import Sequence

import pytest

from router.dimse import pdu
from router.dimse.association import Agreed
from router.dimse.contexts import ACCEPTED, AnsweredContext
from router.dimse.fast import FastAssociation
from router.dimse.limits import WireLimits
from router.dimse.store import Answer, PeerIdentity, Services
from tests.edge.rawpeer import CT, EXPLICIT, store


def _unused(*_: object) -> None:
    raise AssertionError


def associated(server: socket.socket, services: Services, ended: list[bool]) -> tuple[FastAssociation, socket.socket]:
    """An association that was agreed on, and the peer's end of it."""
    theirs = socket.create_connection(server.getsockname())
    ours, _ = server.accept()
    request = pdu.AssociateRequest(
        version_1=True, called_ae_title="ROUTER", calling_ae_title="RAW", application_context="1.2", contexts=()
    )
    limits = WireLimits(pdu_byte_count_max=2**17, dataset_byte_count_max=2**20, pdu_timeout_s=60, idle_timeout_s=60)
    agreed = Agreed(
        connection=ours,
        request=request,
        answers=(AnsweredContext(context_id=1, abstract_syntax=CT, transfer_syntax=EXPLICIT, result=ACCEPTED),),
        roles=(),
        peer=PeerIdentity(calling_ae_title="RAW", called_ae_title="ROUTER", host="127.0.0.1"),
        ae_title="ROUTER",
        limits=limits,
        services=services,
        tell=lambda *_, **__: None,
    )
    return FastAssociation(agreed, lambda one: ended.append(one.released)), theirs


def test_the_buffer_of_an_association_that_has_ended_is_free_at_once() -> None:
    ended: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        association, theirs = associated(server, Services(open_sink=_unused), ended)
    stream = weakref.ref(association._stream)
    with theirs:
        theirs.sendall(pdu.encode_release(pdu.A_RELEASE_RQ))
        theirs.shutdown(socket.SHUT_WR)
        gc.disable()
        try:
            association.begin()
            del association
            assert stream() is None
        finally:
            gc.enable()
    assert ended == [True]


def test_what_our_disk_takes_is_not_the_time_of_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """PDUs that lie anywhere in what is written at once, each write longer than a PDU may take."""
    real, passed_s = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + passed_s[0])
    got = bytearray()

    class SlowSink:
        def write(self, parts: Sequence[memoryview]) -> None:
            got.extend(b"".join(parts))
            passed_s[0] += 600

        def finish(self) -> Answer:
            return Answer(status=0)

        def discard(self) -> None: ...

    monkeypatch.setattr("router.dimse.exchange.BYTES_PER_SECOND_MIN", 1)  # of a whole message: another limit
    ended: list[bool] = []
    data = bytes(range(250)) * 4000
    with socket.create_server(("127.0.0.1", 0)) as server:
        association, theirs = associated(server, Services(open_sink=lambda _: SlowSink()), ended)

    def send() -> None:
        theirs.sendall(store("1.2.3", data) + pdu.encode_release(pdu.A_RELEASE_RQ))

    sender = threading.Thread(target=send, daemon=True)
    with theirs:
        sender.start()
        association.begin()
        sender.join(60)
    assert bytes(got) == data
    assert ended == [True], association.end_reason
