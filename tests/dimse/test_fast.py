"""What an association leaves behind."""

from __future__ import annotations

import gc
import socket
import weakref

from router.dimse import pdu
from router.dimse.association import Agreed
from router.dimse.fast import FastAssociation
from router.dimse.limits import WireLimits
from router.dimse.store import PeerIdentity, Services


def _unused(*_: object) -> None:
    raise AssertionError


def test_the_buffer_of_an_association_that_has_ended_is_free_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    request = pdu.AssociateRequest(
        version_1=True, called_ae_title="ROUTER", calling_ae_title="RAW", application_context="1.2", contexts=()
    )
    limits = WireLimits(pdu_byte_count_max=2**17, dataset_byte_count_max=2**20, pdu_timeout_s=60, idle_timeout_s=60)
    ended: list[bool] = []
    association = FastAssociation(
        Agreed(
            connection=ours,
            request=request,
            answers=(),
            roles=(),
            peer=PeerIdentity(calling_ae_title="RAW", called_ae_title="ROUTER", host="127.0.0.1"),
            ae_title="ROUTER",
            limits=limits,
            services=Services(open_sink=_unused),
            tell=lambda *_, **__: None,
        ),
        lambda one: ended.append(one.released),
    )
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
