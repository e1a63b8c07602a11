"""The listening side: connections become associations here, or not.

The A-ASSOCIATE-RQ is read and judged before anything is built for a connection: a connection that says nothing costs a
thread for a few seconds, a rejected one a few microseconds. What reaches pynetdicom is a request that we wrote ourselves
from what we understood of the peer's.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, ThreadedAssociationServer

from router.core import commitment
from router.core.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.dimse import pdu, peers
from router.dimse.contexts import ACCEPTED, TRANSFER_SYNTAXES_NOT_SUPPORTED, AnsweredContext, ProposedContext, answer
from router.dimse.guard import GuardedAssociation
from router.dimse.limits import WireLimits
from router.dimse.pdu import ProtocolError
from router.dimse.slots import Slots
from router.dimse.store import PeerIdentity, Services, Tell
from router.settings import NodeSettings, PeerSettings

# pynetdicom formats every PDU for a log that we do not keep.
_config.LOG_HANDLER_LEVEL = "none"

#: How often the listener looks whether it should stop.
_STOP_CHECK_S = 0.1
#: How long a rejected peer may take to close its connection.
_FAREWELL_S = 2.0
#: pynetdicom answers a context as we want it when it supports the class, but with syntaxes that are not these two.
_NEVER_SUPPORTED = "1.2.840.10008.1.2.4.94"  # JPIP Referenced
_SUPPORTED_INSTEAD = "1.2.840.10008.1.2"
_NO_CLASS = "1.2.840.10008.1.2.4.95"


class GuardedServer(ThreadedAssociationServer):  # type: ignore[misc]
    """Listens from construction on; `serve` takes connections until `close`. Raises OSError when the port is taken."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(
        self, *, node: NodeSettings, peer_settings: Sequence[PeerSettings], services: Services, tell: Tell
    ) -> None:
        self._node = node
        self._peer_settings = tuple(peer_settings)
        self._services = services
        self._tell = tell
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
        self._associations: set[GuardedAssociation] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        super().__init__(_entity(node), (node.host, node.port), node.ae_title, [])
        self.ae._servers.append(self)

    @property
    def port(self) -> int:
        """The real one, also where 0 was asked for."""
        return int(self.server_address[1])

    def serve(self) -> None:
        """Takes connections in a thread of its own."""
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_STOP_CHECK_S,), name="dimse-listener", daemon=True
        )
        self._thread.start()

    def drain(self, *, timeout_s: float) -> bool:
        """No new connections; associations end once their message is answered. True when all have ended in time."""
        self._stop_listening()
        deadline = time.monotonic() + timeout_s
        with self._changed:
            for association in self._associations:
                association.leave()
            return self._changed.wait_for(lambda: not self._associations, timeout=max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Ends everything now: what is not answered yet was never acknowledged."""
        self._stop_listening()
        with self._changed:
            left = list(self._associations)
        for association in left:
            association.leave()
            with suppress(OSError):
                association.connection.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._changed.wait_for(lambda: not self._associations, timeout=_FAREWELL_S)

    def service_actions(self) -> None:
        """Nothing: the base class collects garbage here every half minute, of the whole process."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Instead of a traceback on standard error."""
        self._tell("association.rejected", level=logging.ERROR, reason="internal error", exc_info=True)

    def process_request_thread(self, request: socket.socket, client_address: Any) -> None:
        """One connection, in a thread of its own, until it is an association or closed."""
        host = peers.plain_host(client_address[0])
        crowded = self._slots.enter(request, host)
        if crowded is not None:
            with suppress(OSError):
                crowded.shutdown(socket.SHUT_RDWR)
        associated = False
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            associated = self._welcome(request, client_address, host)
        except ProtocolError as error:
            self._tell("association.rejected", host=host, reason=str(error))
            _say_goodbye(request, pdu.encode_abort(diagnostic=6))
        except (TimeoutError, OSError):
            # Not worth a line: port scanners and load balancers do it all day.
            self._tell("association.rejected", level=logging.DEBUG, host=host, reason="no A-ASSOCIATE-RQ came")
        finally:
            if not associated:
                self._slots.leave(request)
                request.close()

    def _welcome(self, connection: socket.socket, address: Any, host: str) -> bool:
        """True when the connection has become an association. Raises ProtocolError, TimeoutError, OSError."""
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
            _say_goodbye(
                connection,
                pdu.encode_associate_rejection(
                    result=rejection.result, source=rejection.source, diagnostic=rejection.diagnostic
                ),
            )
            return False
        self._begin(connection, address, host, request, storage=storage)
        return True

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

    def _begin(
        self, connection: socket.socket, address: Any, host: str, request: pdu.AssociateRequest, *, storage: bool
    ) -> None:
        offered = self._services.open_service is not None
        answers = [answer(context, storage=storage, storage_commitment=offered) for context in request.contexts]
        roles = [role for role in request.roles if role[0] == commitment.SOP_CLASS_UID and any(role[1:])]
        accepted = {a.context_id: (a.abstract_syntax, a.transfer_syntax) for a in answers if a.result == ACCEPTED}
        peer = PeerIdentity(
            calling_ae_title=request.calling_ae_title, called_ae_title=request.called_ae_title, host=host
        )
        rewritten = replace(request, contexts=tuple(_rewritten(a) for a in answers), roles=tuple(roles[:1]))
        association = GuardedAssociation(
            self.ae,
            connection,
            request_pdu=pdu.encode_associate_request(rewritten),
            contexts=accepted,
            peer=peer,
            peer_pdu_byte_count_max=request.pdu_byte_count_max,
            limits=self._limits,
            services=self._services,
            tell=self._tell,
            on_end=self._ended,
        )
        association.acceptor.maximum_length = self._node.pdu_byte_count_max
        association.acceptor.ae_title = self._node.ae_title
        association.acceptor.address_info = AddressInformation.from_tuple(self.server_address)
        association.acceptor.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        association.acceptor.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        association.acceptor.supported_contexts = _supported(answers)
        association.requestor.address_info = AddressInformation.from_tuple(address)
        with self._changed:
            self._associations.add(association)
        self._tell(
            "association.accepted",
            host=host,
            calling_ae_title=peer.calling_ae_title,
            called_ae_title=peer.called_ae_title,
            implementation=request.implementation_version_name,
            contexts_proposed=len(answers),
            contexts_accepted=len(accepted),
        )
        association.start()
        if self._draining:
            association.leave()

    def _ended(self, association: GuardedAssociation) -> None:
        self._slots.leave(association.connection)
        self._tell(
            "association.ended",
            host=association.peer.host,
            calling_ae_title=association.peer.calling_ae_title,
            released=association.is_released,
            reason=association.end_reason,
        )
        with self._changed:
            self._associations.discard(association)
            self._changed.notify_all()

    def _stop_listening(self) -> None:
        with self._changed:
            if self._draining:
                return
            self._draining = True
        if self._thread is not None:
            self.shutdown()
        else:
            self.server_close()


def _entity(node: NodeSettings) -> ApplicationEntity:
    entity = ApplicationEntity(node.ae_title)
    entity.maximum_associations = 2**31  # Slots counts them
    entity.network_timeout = node.idle_timeout_s
    return entity


def _rewritten(answered: AnsweredContext) -> ProposedContext:
    """What pynetdicom is asked, so that it answers what we decided."""
    if answered.result == ACCEPTED:
        syntax, abstract_syntax = answered.transfer_syntax, answered.abstract_syntax
    else:
        syntax = _NEVER_SUPPORTED
        known = answered.result == TRANSFER_SYNTAXES_NOT_SUPPORTED
        abstract_syntax = answered.abstract_syntax if known else _NO_CLASS
    return ProposedContext(context_id=answered.context_id, abstract_syntax=abstract_syntax, transfer_syntaxes=(syntax,))


def _supported(answers: Sequence[AnsweredContext]) -> list[PresentationContext]:
    """One entry for each class that we take, with every syntax that we chose for it."""
    syntaxes: dict[str, list[str]] = {}
    for answered in answers:
        if answered.result == ACCEPTED:
            syntaxes.setdefault(answered.abstract_syntax, []).append(answered.transfer_syntax)
        elif answered.result == TRANSFER_SYNTAXES_NOT_SUPPORTED:
            syntaxes.setdefault(answered.abstract_syntax, [])
    if not syntaxes:
        syntaxes[_SUPPORTED_INSTEAD] = []
    supported = []
    for abstract_syntax, chosen in syntaxes.items():
        context = PresentationContext()
        context.abstract_syntax = abstract_syntax
        context.transfer_syntax = list(dict.fromkeys(chosen)) or [_SUPPORTED_INSTEAD]
        if abstract_syntax == commitment.SOP_CLASS_UID:  # whoever reports to us is its SCP, and says so
            context.scu_role = context.scp_role = True
        supported.append(context)
    return supported


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


def _say_goodbye(connection: socket.socket, last_word: bytes) -> None:
    """Sends it and waits a little for the peer to close: closing first, with bytes unread, could destroy it."""
    deadline = time.monotonic() + _FAREWELL_S
    with suppress(OSError):
        connection.settimeout(_FAREWELL_S)
        connection.sendall(last_word)
        connection.shutdown(socket.SHUT_WR)
        while (left_s := deadline - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not connection.recv(2**16):
                return
