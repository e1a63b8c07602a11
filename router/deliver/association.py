"""One association as requestor, on a socket of our own with a deadline for everything.

pynetdicom's threads leave the socket without time-outs (a peer that stops in the middle of a response would hold a lane for
ever), queue a whole data set in memory, and poll while they idle. Here PDUs are written straight from the file: the data
set's bytes are never decoded. Where the peer agrees, several C-STOREs wait for their answers at once.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO

from router.deliver.answers import closed, rejection
from router.deliver.command import C_ECHO_RQ, C_STORE_RQ, NotAResponse, Response, c_echo_rq, c_store_rq, parse_response
from router.deliver.connection import RECEIVED_PDU_BYTE_COUNT_MAX, Connection
from router.deliver.fragments import PDV_HEAD_BYTE_COUNT, Stream, command_parts, data_set_parts
from router.deliver.negotiation import (
    CONTEXT_COUNT_MAX,
    Context,
    NotAnAcceptance,
    context_id_at,
    encode_request,
    parse_acceptance,
)
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

__all__ = ["CONTEXT_COUNT_MAX", "Address", "Association", "Context", "Heard"]

_ACCEPT_BYTE_COUNT_MAX = 2**18
_COMMAND_BYTE_COUNT_MAX = 2**16
#: What we send at most in one PDU, also to a peer that sets no limit: more gains nothing.
SENT_PDU_BYTE_COUNT_MAX = 2**17
_COMMAND, _LAST = 0x01, 0x02
_RELEASE_TIMEOUT_S = 5.0
_ASSOCIATE_AC, _ASSOCIATE_RJ, _P_DATA_TF, _A_RELEASE_RQ = 0x02, 0x03, 0x04, 0x05
_RELEASE_RQ = b"\5\0\0\0\0\4\0\0\0\0"
_RELEASE_RP = b"\6\0\0\0\0\4\0\0\0\0"
_ABORT = b"\7\0\0\0\0\4\0\0\0\0"


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

    def __init__(
        self,
        address: Address,
        contexts: Sequence[Context],
        *,
        scp_of: Collection[str] = (),
        operations_max: int = 1,
    ) -> None:
        """Opens it, proposing each context by itself. Raises PeerUnreachable or AssociationRejected with a diagnosis.

        `scp_of`: SOP classes of which we are the SCP, although we open the association (PS3.7 D.3.3.4); a peer that
        refuses that has not accepted their contexts. `operations_max`: how many C-STOREs may wait for their answers at once
        if the peer agrees.
        """
        assert 0 < len(contexts) <= CONTEXT_COUNT_MAX
        self.address = address
        self.accepted: dict[Context, int] = {}
        """Context -> its ID, for those that the peer took as proposed."""
        self.proposed = frozenset(contexts)
        self.operations_max = 1
        """C-STOREs that may be outstanding."""
        self.cut_off = False
        """True when a message has begun and will never be complete: the association can only be aborted."""
        self._message_id = 0
        self._asked: dict[int, int] = {}
        """Message ID -> command field, of requests without an answer so far."""
        self._answers: deque[bytes] = deque()
        """Command sets that have come and were not asked for yet."""
        self._fragments = bytearray()
        self._room = SENT_PDU_BYTE_COUNT_MAX - PDV_HEAD_BYTE_COUNT
        self._connection = Connection(
            host=address.host,
            port=address.port,
            connect_timeout_s=address.connect_timeout_s,
            response_timeout_s=address.response_timeout_s,
        )
        try:
            self._negotiate(contexts, scp_of, operations_max)
        except BaseException:
            self._connection.close()
            raise

    # ---- C-STORE

    def request_store(self, *, context_id: int, sop_class_uid: str, sop_instance_uid: str, data_set: Stream) -> int:
        """Sends what is left of `data_set`; the Message ID by which its answer will be known. Raises what the stream raises."""
        assert len(self._asked) < self.operations_max
        message_id = self._next_message_id()
        request = c_store_rq(message_id=message_id, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid)
        fault_point("deliver.unsent")
        self._asked[message_id] = C_STORE_RQ
        self.cut_off = True
        self._send_command(context_id, request, more=True)
        fault_point("deliver.command_sent")
        self._send_data_set(context_id, data_set)
        self.cut_off = False
        return message_id

    def answer_waits(self) -> bool:
        """True when `next_response` has something to read at once."""
        return bool(self._answers) or (bool(self._asked) and self._connection.said_something())

    def next_response(self) -> Response:
        """The next answer of the peer, to whichever request it be."""
        assert self._asked
        deadline = time.monotonic() + self.address.response_timeout_s
        while not self._answers:
            self._listen(deadline)
        try:
            response = parse_response(self._answers.popleft(), requests=self._asked)
        except NotAResponse as error:
            raise PeerUnreachable(f"{self._connection.where} answered with nonsense: {error}") from error
        del self._asked[response.message_id]
        return response

    def store(self, *, context_id: int, sop_class_uid: str, sop_instance_uid: str, data_set: Stream) -> Response:
        """Sends what is left of `data_set` and waits for the peer's answer. Raises what the stream raises."""
        assert not self._asked
        self.request_store(
            context_id=context_id, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid, data_set=data_set
        )
        return self.next_response()

    # ---- other services

    def echo(self, *, context_id: int) -> Response:
        """A C-ECHO."""
        return self._ask(C_ECHO_RQ, context_id, c_echo_rq(message_id=self._next_message_id()))

    def action(
        self, *, context_id: int, sop_class_uid: str, sop_instance_uid: str, action_type: int, data_set: bytes
    ) -> Response:
        """An N-ACTION."""
        request = encode_action(
            message_id=self._next_message_id(),
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            action_type=action_type,
        )
        return self._ask(N_ACTION_RQ, context_id, request, data_set)

    def report(
        self, *, context_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int, data_set: bytes
    ) -> Response:
        """An N-EVENT-REPORT."""
        request = encode_event_report(
            message_id=self._next_message_id(),
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            event_type=event_type,
        )
        return self._ask(N_EVENT_REPORT_RQ, context_id, request, data_set)

    def hear(self, *, timeout_s: float, byte_count_max: int) -> Heard | None:
        """What the peer asks of us on this association, or None when it asks nothing in time, or goes."""
        deadline = time.monotonic() + timeout_s
        assembler, command, data = MessageAssembler(), None, bytearray()
        try:
            while True:
                kind, body = self._receive("say more", deadline)
                if kind != _P_DATA_TF:
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

    # ---- the end

    def alive(self) -> bool:
        """False when the peer has said or done anything while nothing was asked: it can only be a farewell."""
        return not self._connection.said_something()

    def release(self) -> None:
        """Ends it in good order; raises nothing."""
        with contextlib.suppress(PeerUnreachable, OSError):
            self._connection.send([_RELEASE_RQ])
            deadline = time.monotonic() + min(_RELEASE_TIMEOUT_S, self.address.response_timeout_s)
            while self._receive("release the association", deadline)[0] == _P_DATA_TF:
                pass  # late P-DATA is no longer of interest
        self._connection.close()

    def abort(self) -> None:
        """Ends it at once; raises nothing."""
        self._connection.say_and_close(_ABORT)

    # ---- negotiation

    def _negotiate(self, contexts: Sequence[Context], scp_of: Collection[str], operations_max: int) -> None:
        address = self.address
        request = encode_request(
            calling_ae_title=address.calling_ae_title,
            called_ae_title=address.ae_title,
            contexts=contexts,
            pdu_byte_count_max=RECEIVED_PDU_BYTE_COUNT_MAX,
            operations_max=operations_max,
            scp_of=scp_of,
        )
        self._connection.send([request])
        deadline = time.monotonic() + address.response_timeout_s
        kind, body = self._receive("answer our association request", deadline, byte_count_max=_ACCEPT_BYTE_COUNT_MAX)
        if kind == _ASSOCIATE_RJ and len(body) >= 4:
            raise rejection(
                result=body[1],
                source=body[2],
                reason=body[3],
                calling=address.calling_ae_title,
                called=address.ae_title,
            )
        if kind != _ASSOCIATE_AC:
            raise self._connection.odd("an answer to our association request")
        try:
            accepted = parse_acceptance(body)
        except NotAnAcceptance as error:
            raise self._connection.odd("a valid A-ASSOCIATE-AC") from error
        for index, context in enumerate(contexts):
            # A peer that says nothing of roles is asked all the same: many take reports and never learnt to say so.
            if context[0] in accepted.not_scp_of.intersection(scp_of):
                continue
            if accepted.transfer_syntaxes.get(context_id_at(index)) == context[1]:
                self.accepted[context] = context_id_at(index)
        if accepted.pdu_byte_count_max:
            # Even: dcmtk, for one, does not take fragments of an odd length.
            byte_count = min(accepted.pdu_byte_count_max, SENT_PDU_BYTE_COUNT_MAX) - PDV_HEAD_BYTE_COUNT
            self._room = max(2, byte_count & ~1)
        self.operations_max = min(operations_max, accepted.operations_max or operations_max)

    # ---- messages

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _ask(self, field: int, context_id: int, request: bytes, data_set: bytes | None = None) -> Response:
        """One request, alone, and its answer."""
        assert not self._asked
        self._asked[self._message_id] = field
        self._send_command(context_id, request)
        if data_set is not None:
            self._send_data_set(context_id, BytesIO(data_set))
        return self.next_response()

    def _send_command(self, context_id: int, command_set: bytes, *, more: bool = False) -> None:
        self._connection.send(command_parts(context_id, command_set, room=self._room), more=more)

    def _send_data_set(self, context_id: int, data_set: Stream) -> None:
        for parts in data_set_parts(context_id, data_set, room=self._room):
            self._connection.send(parts)

    def _listen(self, deadline: float) -> None:
        """One more PDU of responses."""
        kind, body = self._receive("answer", deadline)
        if kind == _A_RELEASE_RQ:  # it wants to go home before it has answered
            self._connection.send([_RELEASE_RP])
            raise closed(host=self.address.host, port=self.address.port, when="in order, without an answer")
        if kind != _P_DATA_TF:
            raise self._connection.odd("an answer")
        try:
            for _, control, fragment in presentation_data(memoryview(body)):
                if not control & _COMMAND:
                    raise ProtocolError("a data set")
                self._fragments += fragment
                if len(self._fragments) > _COMMAND_BYTE_COUNT_MAX:
                    raise self._connection.odd("a response of reasonable length")
                if control & _LAST:
                    self._answers.append(bytes(self._fragments))
                    self._fragments.clear()
        except ProtocolError as error:
            raise self._connection.odd("a response without a data set") from error

    def _receive(
        self, what: str, deadline: float, *, byte_count_max: int = RECEIVED_PDU_BYTE_COUNT_MAX + 64
    ) -> tuple[int, bytes]:
        return self._connection.pdu(what, deadline, byte_count_max=byte_count_max)
