"""The listening side: connections become associations here, or not.

The A-ASSOCIATE-RQ is read and judged before anything is built for a connection: a connection that says nothing costs a
thread for a few seconds, a rejected one a few microseconds. What then becomes of it is the wire's.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from router.core import commitment
from router.dimse import pdu, peers
from router.dimse.association import Agreed, Association, Wire
from router.dimse.contexts import ACCEPTED, answer
from router.dimse.fast import FastAssociation
from router.dimse.limits import FAREWELL_S, WireLimits
from router.dimse.listener import Listener
from router.dimse.pdu import ProtocolError
from router.dimse.slots import Slots
from router.dimse.store import PeerIdentity, Services, Tell
from router.dimse.stream import say_goodbye
from router.settings import NodeSettings, PeerSettings

#: Kept for a peer until it reads.
_SENT_BYTE_COUNT = 2**16


class AssociationServer:
    """Listens from construction on; `serve` takes connections until `close`. Raises OSError when the port is taken."""

    def __init__(
        self, *, node: NodeSettings, peer_settings: Sequence[PeerSettings], services: Services, tell: Tell
    ) -> None:
        self._node = node
        self._peer_settings = tuple(peer_settings)
        self._services = services
        self._tell = tell
        self._wire = _wire(node.wire)
        self._limits = WireLimits(
            pdu_byte_count_max=node.pdu_byte_count_max,
            dataset_byte_count_max=node.dataset_byte_count_max,
            pdu_timeout_s=node.pdu_timeout_s,
            idle_timeout_s=node.idle_timeout_s,
        )
        self._slots = Slots(
            associations_max=node.associations_max, associations_per_peer_max=node.associations_per_peer_max
        )
        self._draining = False
        self._open: dict[socket.socket, Association | None] = {}
        self._changed = threading.Condition()
        self._listener = Listener(node.host, node.port, connected=self._connected, tell=tell)

    @property
    def port(self) -> int:
        """The real one, also where 0 was asked for."""
        return self._listener.port

    def serve(self) -> None:
        """Takes connections in a thread of its own."""
        self._listener.start()

    def drain(self, *, timeout_s: float) -> bool:
        """No new connections; associations end once their message is answered. True when all have ended in time."""
        self._stop_listening()
        deadline = time.monotonic() + timeout_s
        for association in self._associations():
            association.leave(peers.DRAINING.reason)
        with self._changed:
            return self._changed.wait_for(
                lambda: not any(self._open.values()), timeout=max(0.0, deadline - time.monotonic())
            )

    def close(self) -> None:
        """Ends everything now: what is not answered yet was never acknowledged."""
        self._stop_listening()
        for association in self._associations():
            association.leave(peers.DRAINING.reason)
        with self._changed:
            left = list(self._open)
        for connection in left:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._changed.wait_for(lambda: not self._open, timeout=FAREWELL_S)

    def _connected(self, connection: socket.socket, address: str) -> None:
        """One connection, in a thread of its own, until it is an association or closed; on the fast wire, until that ends."""
        host = peers.plain_host(address)
        with self._changed:
            self._open[connection] = None
        crowded = self._slots.enter(connection, host)
        if crowded is not None:
            with suppress(OSError):
                crowded.shutdown(socket.SHUT_RDWR)
        association = None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # What we say is short; the kernel would keep megabytes of it for a peer that does not read.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENT_BYTE_COUNT)
            association = self._welcome(connection, host)
        except ProtocolError as error:
            self._tell("association.rejected", host=host, reason=str(error))
            say_goodbye(connection, pdu.encode_abort(diagnostic=6), timeout_s=FAREWELL_S)
        except (TimeoutError, OSError):
            # Not worth a line: port scanners and load balancers do it all day.
            self._tell("association.rejected", level=logging.DEBUG, host=host, reason="no A-ASSOCIATE-RQ came")
        finally:
            if association is None:
                self._forget(connection)
        if association is not None:
            association.begin()

    def _welcome(self, connection: socket.socket, host: str) -> Association | None:
        """What the connection has become. Raises ProtocolError, TimeoutError, OSError."""
        request = pdu.parse_associate_request(_read_request(connection, timeout_s=self._node.pdu_timeout_s))
        rejection = self._rejection(request, host)
        storage = rejection is None
        if self._may_notify(request, rejection):
            rejection = None
        if rejection is None and not self._slots.associate(connection, host):
            rejection = peers.LIMIT_REACHED
        if rejection is not None:
            self._tell(
                "association.rejected",
                host=host,
                calling_ae_title=request.calling_ae_title,
                called_ae_title=request.called_ae_title,
                reason=rejection.reason,
            )
            last_word = pdu.encode_associate_rejection(
                result=rejection.result, source=rejection.source, diagnostic=rejection.diagnostic
            )
            say_goodbye(connection, last_word, timeout_s=FAREWELL_S)
            return None
        return self._association(self._agreed(connection, host, request, storage=storage))

    def _may_notify(self, request: pdu.AssociateRequest, rejection: peers.Rejection | None) -> bool:
        """A destination that is no peer may come, to answer what we asked of it (Storage Commitment)."""
        not_a_peer = rejection is not None and rejection.diagnostic == peers.CALLING_AE_TITLE_NOT_RECOGNISED
        return not_a_peer and request.calling_ae_title in self._services.notifiers

    def _rejection(self, request: pdu.AssociateRequest, host: str) -> peers.Rejection | None:
        if self._draining:
            return peers.DRAINING
        if not request.version_1:
            return peers.PROTOCOL_VERSION
        if request.application_context != peers.APPLICATION_CONTEXT:
            return peers.APPLICATION_CONTEXT_NAME
        return peers.rejection(
            called_ae_title=request.called_ae_title,
            calling_ae_title=request.calling_ae_title,
            host=host,
            node=self._node,
            peers=self._peer_settings,
        )

    def _agreed(self, connection: socket.socket, host: str, request: pdu.AssociateRequest, *, storage: bool) -> Agreed:
        offered = self._services.open_service is not None
        answers = tuple(answer(context, storage=storage, storage_commitment=offered) for context in request.contexts)
        accepted = {answered.abstract_syntax for answered in answers if answered.result == ACCEPTED}
        # Whoever reports to us on Storage Commitment is its SCP, and says so.
        roles = [role for role in request.roles if role[0] == commitment.SOP_CLASS_UID and any(role[1:])]
        return Agreed(
            connection=connection,
            request=request,
            answers=answers,
            roles=tuple(role for role in roles[:1] if role[0] in accepted),
            peer=PeerIdentity(
                calling_ae_title=request.calling_ae_title, called_ae_title=request.called_ae_title, host=host
            ),
            ae_title=self._node.ae_title,
            limits=self._limits,
            services=self._services,
            tell=self._tell,
        )

    def _association(self, agreed: Agreed) -> Association:
        association = self._wire(agreed, self._ended)
        self._tell(
            "association.accepted",
            host=agreed.peer.host,
            calling_ae_title=agreed.peer.calling_ae_title,
            called_ae_title=agreed.peer.called_ae_title,
            implementation=agreed.request.implementation_version_name,
            contexts_proposed=len(agreed.answers),
            contexts_accepted=len(agreed.contexts),
        )
        with self._changed:
            self._open[agreed.connection] = association
        self._slots.occupy(agreed.connection, association)
        if self._draining:
            association.leave(peers.DRAINING.reason)
        return association

    def _ended(self, association: Association) -> None:
        peer = association.agreed.peer
        self._tell(
            "association.ended",
            host=peer.host,
            calling_ae_title=peer.calling_ae_title,
            released=association.released,
            reason=association.end_reason,
        )
        self._forget(association.agreed.connection)

    def _forget(self, connection: socket.socket) -> None:
        self._slots.leave(connection)
        connection.close()
        with self._changed:
            self._open.pop(connection, None)
            self._changed.notify_all()

    def _associations(self) -> list[Association]:
        with self._changed:
            return [association for association in self._open.values() if association is not None]

    def _stop_listening(self) -> None:
        with self._changed:
            if self._draining:
                return
            self._draining = True
        self._listener.stop()


def _wire(name: str) -> Wire:
    """Raises KeyError."""
    if name == "pynetdicom":
        # Its 80 MB and a third of a second are for those who ask for it.
        from router.dimse.guard import associations

        return associations()
    return {"fast": FastAssociation}[name]


def _read_request(connection: socket.socket, *, timeout_s: float) -> bytes:
    """The bytes after the header of an A-ASSOCIATE-RQ. Raises ProtocolError for anything else, TimeoutError, OSError."""
    deadline = time.monotonic() + timeout_s
    head = _exactly(connection, pdu.HEADER.size, deadline)
    kind, length = pdu.HEADER.unpack(head)
    if kind != pdu.A_ASSOCIATE_RQ:
        raise ProtocolError("the connection does not begin with an A-ASSOCIATE-RQ")
    if length > pdu.A_ASSOCIATE_BYTE_COUNT_MAX:
        raise ProtocolError(f"A-ASSOCIATE-RQ announces {length} bytes")
    return _exactly(connection, length, deadline)


def _exactly(connection: socket.socket, byte_count: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < byte_count:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        more = connection.recv(byte_count - len(data))
        if not more:
            raise ConnectionError("closed by the peer")
        data += more
    return bytes(data)
