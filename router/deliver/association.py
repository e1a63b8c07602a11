"""One association as requestor, on a blocking socket of our own with a deadline for everything.

pynetdicom's codecs encode and decode A-ASSOCIATE; its threads are not used: they leave the socket without time-outs (a
peer that stops in the middle of a response would hold a lane for ever), queue a whole data set in memory, and poll
while they idle. P-DATA are written here, straight from the file: the data set's bytes are never decoded.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from router.core.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.deliver.answers import closed, rejection, silent, unreachable
from router.deliver.command import C_ECHO_RQ, C_STORE_RQ, NotAResponse, Response, c_echo_rq, c_store_rq, response_to
from router.dimse.command import (
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    Command,
    encode_action,
    encode_event_report,
    encode_response,
)
from router.dimse.message import MessageAssembler
from router.dimse.pdu import ProtocolError, presentation_data
from router.errors import PeerUnreachable
from router.faults import fault_point

#: PS3.8 9.3.2.2: presentation context IDs are odd numbers of one byte.
CONTEXT_COUNT_MAX = 128
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
#: What we announce; responses are far smaller.
_RECEIVED_PDU_BYTE_COUNT_MAX = 65536
_ACCEPT_BYTE_COUNT_MAX = 2**18
_COMMAND_BYTE_COUNT_MAX = 2**16
#: What we send at most in one PDU, also to a peer that sets no limit.
_SENT_PDU_BYTE_COUNT_MAX = 2**17
_PDU_HEAD = struct.Struct(">BxL")
_PDV_HEAD = struct.Struct(">LBB")
_HEAD_BYTE_COUNT = _PDU_HEAD.size + _PDV_HEAD.size
_COMMAND, _LAST = 0x01, 0x02
_RELEASE_TIMEOUT_S = 5.0
_RELEASE_RQ = b"\5\0\0\0\0\4\0\0\0\0"
_RELEASE_RP = b"\6\0\0\0\0\4\0\0\0\0"

#: SOP class and transfer syntax.
Context = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Whom to call, as whom, and how long to wait."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str
    connect_timeout_s: float = 10
    response_timeout_s: float = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A request of the peer."""

    context_id: int
    command: Command
    data_set: bytes


class Association:
    """An established association; every method raises PeerUnreachable when the peer goes away or stays silent."""

    def __init__(self, address: Address, contexts: Sequence[Context], *, scp_of: Collection[str] = ()) -> None:
        """Opens it, proposing each context by itself. Raises PeerUnreachable or AssociationRejected with a diagnosis.

        `scp_of`: SOP classes of which we are the SCP, although we open the association (PS3.7 D.3.3.4); a peer that
        refuses that has not accepted their contexts.
        """
        assert 0 < len(contexts) <= CONTEXT_COUNT_MAX
        self.address = address
        self.accepted: dict[Context, int] = {}
        """Context -> its ID, for those that the peer took as proposed."""
        self.proposed = frozenset(contexts)
        self._message_id = 0
        self._sent_byte_count_max = _SENT_PDU_BYTE_COUNT_MAX
        try:
            self._socket = socket.create_connection((address.host, address.port), address.connect_timeout_s)
        except OSError as error:
            raise unreachable(error, host=address.host, port=address.port) from error
        try:
            # Nagle and the peer's delayed ACK together cost 40 ms for each instance.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._negotiate(contexts, scp_of)
        except BaseException:
            self._socket.close()
            raise

    def store(self, *, context_id: int, sop_class_uid: str, sop_instance_uid: str, data_set: BinaryIO) -> Response:
        """Sends what is left of `data_set`, chunk by chunk, and waits for the peer's answer. Raises OSError of the file."""
        message_id = self._next_message_id()
        request = c_store_rq(message_id=message_id, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid)
        fault_point("deliver.unsent")
        self._send_command(context_id, request)
        fault_point("deliver.command_sent")
        self._send_data_set(context_id, data_set)
        return self._response(C_STORE_RQ, message_id)

    def echo(self, *, context_id: int) -> Response:
        """A C-ECHO."""
        message_id = self._next_message_id()
        self._send_command(context_id, c_echo_rq(message_id=message_id))
        return self._response(C_ECHO_RQ, message_id)

    def action(
        self, *, context_id: int, sop_class_uid: str, sop_instance_uid: str, action_type: int, data_set: bytes
    ) -> Response:
        """An N-ACTION."""
        message_id = self._next_message_id()
        request = encode_action(
            message_id=message_id,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            action_type=action_type,
        )
        self._send_command(context_id, request)
        self._send_data_set(context_id, BytesIO(data_set))
        return self._response(N_ACTION_RQ, message_id)

    def report(
        self, *, context_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int, data_set: bytes
    ) -> Response:
        """An N-EVENT-REPORT."""
        message_id = self._next_message_id()
        request = encode_event_report(
            message_id=message_id,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            event_type=event_type,
        )
        self._send_command(context_id, request)
        self._send_data_set(context_id, BytesIO(data_set))
        return self._response(N_EVENT_REPORT_RQ, message_id)

    def hear(self, *, timeout_s: float, byte_count_max: int) -> Heard | None:
        """What the peer asks of us on this association, or None when it asks nothing in time, or goes."""
        deadline = time.monotonic() + timeout_s
        assembler, command, data = MessageAssembler(), None, bytearray()
        try:
            while True:
                kind, body = self._receive("say more", deadline)
                if kind != 0x04:
                    return None
                for context_id, control, fragment in presentation_data(memoryview(body)):
                    found = assembler.fragment(context_id, control, fragment)
                    if isinstance(found, Command):
                        command = found
                    elif found is not None:
                        data += found.data
                    if len(data) > byte_count_max:
                        return None
                    if command is not None and not assembler.inside:
                        return Heard(context_id=context_id, command=command, data_set=bytes(data))
        except (PeerUnreachable, ProtocolError):
            return None

    def answer(self, heard: Heard, *, status: int) -> None:
        """Answers what the peer asked."""
        self._send_command(heard.context_id, encode_response(heard.command, status=status))

    def alive(self) -> bool:
        """False when the peer has said or done anything since the last response: it can only be a farewell."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLHUP | select.POLLERR)
        return not poll.poll(0)

    def release(self) -> None:
        """Ends it in good order; raises nothing."""
        with contextlib.suppress(PeerUnreachable, OSError):
            self._send(_RELEASE_RQ)
            deadline = time.monotonic() + min(_RELEASE_TIMEOUT_S, self.address.response_timeout_s)
            while self._receive("release the association", deadline)[0] == 0x04:
                pass  # late P-DATA is no longer of interest
        self._socket.close()

    def abort(self) -> None:
        """Ends it at once; raises nothing."""
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 0, 0
        with contextlib.suppress(OSError):
            self._socket.settimeout(0.5)
            self._socket.sendall(abort.encode())
        self._socket.close()

    # ---- negotiation

    def _negotiate(self, contexts: Sequence[Context], scp_of: Collection[str]) -> None:
        address = self.address
        self._send(_request(address, contexts, scp_of).encode())
        kind, body = self._receive(
            "answer our association request", time.monotonic() + address.response_timeout_s, _ACCEPT_BYTE_COUNT_MAX
        )
        if kind == 0x03 and len(body) >= 4:
            raise rejection(
                result=body[1],
                source=body[2],
                reason=body[3],
                calling=address.calling_ae_title,
                called=address.ae_title,
            )
        if kind != 0x02:
            raise self._odd("an answer to our association request")
        accept = A_ASSOCIATE_AC()
        try:
            accept.decode(_PDU_HEAD.pack(kind, len(body)) + body)
            answer = accept.to_primitive()
            results = list(answer.presentation_context_definition_results_list)
            announced = int(answer.maximum_length_received or 0)
            # A peer that says nothing of roles is asked all the same: many take reports and never learnt to say so.
            refused = {str(item.sop_class_uid) for item in _roles(answer) if not item.scp_role}
        except Exception as error:  # whatever pynetdicom makes of hostile bytes
            raise self._odd("a valid A-ASSOCIATE-AC") from error
        by_id = {2 * index + 1: context for index, context in enumerate(contexts)}
        for result in results:
            context = by_id.get(result.context_id)
            if context and context[0] in refused.intersection(scp_of):
                continue
            if context and result.result == 0 and str(result.transfer_syntax[0]) == context[1]:
                self.accepted[context] = result.context_id
        if announced:
            # Even: dcmtk, for one, does not take fragments of an odd length.
            self._sent_byte_count_max = max(_HEAD_BYTE_COUNT + 2, min(announced, _SENT_PDU_BYTE_COUNT_MAX) & ~1)

    # ---- messages

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _send_command(self, context_id: int, command_set: bytes) -> None:
        room = self._sent_byte_count_max - _PDV_HEAD.size
        for start in range(0, len(command_set), room):
            some = command_set[start : start + room]
            last = _LAST if start + room >= len(command_set) else 0
            self._send(_head(context_id, _COMMAND | last, len(some)) + some)

    def _send_data_set(self, context_id: int, data_set: BinaryIO) -> None:
        room = self._sent_byte_count_max - _PDV_HEAD.size
        here, ahead = bytearray(_HEAD_BYTE_COUNT + room), bytearray(_HEAD_BYTE_COUNT + room)
        count = _fill(here, data_set)
        while True:  # one chunk ahead, because the last one has to be called so
            more = _fill(ahead, data_set) if count == room else 0
            here[:_HEAD_BYTE_COUNT] = _head(context_id, 0 if more else _LAST, count)
            self._send(memoryview(here)[: _HEAD_BYTE_COUNT + count])
            if not more:
                return
            here, ahead, count = ahead, here, more

    def _response(self, request: int, message_id: int) -> Response:
        deadline = time.monotonic() + self.address.response_timeout_s
        command_set = bytearray()
        while True:
            kind, body = self._receive("answer", deadline)
            if kind == 0x05:  # it wants to go home before it has answered
                self._send(_RELEASE_RP)
                raise closed(host=self.address.host, port=self.address.port, when="in order, without an answer")
            if kind != 0x04:
                raise self._odd("an answer")
            offset, last = 0, False
            while offset + _PDV_HEAD.size <= len(body):
                length, _, flags = _PDV_HEAD.unpack_from(body, offset)
                if length < 2 or not flags & _COMMAND or offset + 4 + length > len(body):
                    raise self._odd("a response without a data set")
                command_set += body[offset + _PDV_HEAD.size : offset + 4 + length]
                offset += 4 + length
                last = bool(flags & _LAST)
            if len(command_set) > _COMMAND_BYTE_COUNT_MAX:
                raise self._odd("a response of reasonable length")
            if last:
                break
        try:
            return response_to(request, message_id=message_id, command_set=bytes(command_set))
        except NotAResponse as error:
            raise PeerUnreachable(f"{self._where()} answered with nonsense: {error}") from error

    # ---- the socket

    def _send(self, data: bytes | memoryview) -> None:
        self._socket.settimeout(self.address.response_timeout_s)
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise silent(
                host=self.address.host,
                port=self.address.port,
                what="take more data",
                timeout_s=self.address.response_timeout_s,
            ) from error
        except OSError as error:
            raise closed(host=self.address.host, port=self.address.port, when="while we were sending") from error

    def _receive(
        self, what: str, deadline: float, byte_count_max: int = _RECEIVED_PDU_BYTE_COUNT_MAX + 64
    ) -> tuple[int, bytes]:
        """Type and body of the next PDU, whole before the deadline. Raises PeerUnreachable, for an A-ABORT too."""
        kind, length = _PDU_HEAD.unpack(self._exactly(_PDU_HEAD.size, what, deadline))
        if not 1 <= kind <= 7 or length > byte_count_max:
            raise self._odd("DICOM, or a PDU of the length we allow")
        body = self._exactly(length, what, deadline)
        if kind == 0x07:
            by = "the peer itself" if len(body) > 2 and body[2] == 0 else "its protocol layer"
            raise PeerUnreachable(f"{self._where()} aborted the association ({by})")
        return kind, body

    def _exactly(self, count: int, what: str, deadline: float) -> bytes:
        got = bytearray()
        while len(got) < count:
            left_s = deadline - time.monotonic()
            try:
                if left_s <= 0:
                    raise TimeoutError
                self._socket.settimeout(left_s)
                some = self._socket.recv(count - len(got))
            except TimeoutError as error:
                raise silent(
                    host=self.address.host,
                    port=self.address.port,
                    what=what,
                    timeout_s=self.address.response_timeout_s,
                ) from error
            except OSError as error:
                raise unreachable(error, host=self.address.host, port=self.address.port) from error
            if not some:
                raise closed(host=self.address.host, port=self.address.port, when="instead of an answer")
            got += some
        return bytes(got)

    def _odd(self, instead_of: str) -> PeerUnreachable:
        return PeerUnreachable(f"{self._where()} sent something that is not {instead_of}")

    def _where(self) -> str:
        return f"{self.address.host}:{self.address.port}"


def _roles(answer: A_ASSOCIATE) -> list[SCP_SCU_RoleSelectionNegotiation]:
    return [item for item in answer.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]


def _request(address: Address, contexts: Sequence[Context], scp_of: Collection[str]) -> A_ASSOCIATE_RQ:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = _APPLICATION_CONTEXT
    primitive.calling_ae_title = address.calling_ae_title
    primitive.called_ae_title = address.ae_title
    nowhere = AddressInformation("127.0.0.1", 0)  # pynetdicom wants one; no PDU holds it
    primitive.calling_presentation_address = nowhere
    primitive.called_presentation_address = nowhere
    proposed = []
    for index, (sop_class_uid, transfer_syntax_uid) in enumerate(contexts):
        context = PresentationContext()
        context.context_id = 2 * index + 1
        context.abstract_syntax = sop_class_uid
        context.add_transfer_syntax(transfer_syntax_uid)
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    length = MaximumLengthNotification()
    length.maximum_length_received = _RECEIVED_PDU_BYTE_COUNT_MAX
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    primitive.user_information = [length, implementation, version]
    for sop_class_uid in scp_of:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = sop_class_uid, False, True
        primitive.user_information.append(role)
    return A_ASSOCIATE_RQ(primitive)


def _head(context_id: int, flags: int, count: int) -> bytes:
    """PDU and PDV head of one fragment. Source: PS3.8 9.3.5, Annex E.2."""
    return _PDU_HEAD.pack(0x04, _PDV_HEAD.size + count) + _PDV_HEAD.pack(count + 2, context_id, flags)


def _fill(buffer: bytearray, stream: BinaryIO) -> int:
    """Reads as much as fits behind the head; returns how much that was."""
    view = memoryview(buffer)[_HEAD_BYTE_COUNT:]
    count = 0
    while count < len(view):
        data = stream.read(len(view) - count)
        if not data:
            break
        view[count : count + len(data)] = data
        count += len(data)
    return count
