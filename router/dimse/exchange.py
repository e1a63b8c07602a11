"""The DIMSE messages of one association, whoever moves their bytes: fragments in, answers and follow-ups out.

Both wires have one. Nothing is collected: the data set of a C-STORE goes to its sink as it arrives.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from router.core import commitment
from router.dimse import pdu, status
from router.dimse.command import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    N_EVENT_REPORT_RSP,
    Command,
    encode_event_report,
    encode_response,
)
from router.dimse.limits import BYTES_PER_SECOND_MIN, FOLLOW_UPS_MAX, WireLimits
from router.dimse.message import MessageAssembler
from router.dimse.pdu import ProtocolError
from router.dimse.store import Answer, DataSetSink, FollowUp, PeerIdentity, ServiceRequest, Services, StoreRequest, Tell
from router.faults import fault_point

#: Parts of a data set that wait to be written. A part of one byte costs 200: a PDU of 16 MB of such parts would take 450 MB.
_PARTS_MAX = 64


@dataclass(slots=True, eq=False)
class Message:
    """A request, or an answer to a request of ours, that has begun to arrive."""

    context_id: int
    command: Command
    sink: DataSetSink | None = None
    answer: Answer | None = None

    def discard(self) -> None:
        """Nothing of it stays; may be called twice."""
        if self.sink is not None:
            self.sink.discard()


@dataclass(slots=True, eq=False)
class _Promised:
    """A follow-up of an answer that we gave."""

    follow_up: FollowUp
    context_id: int
    due_at: float
    """When it is to be sent; once it is, until when the peer may answer."""
    message_id: int = 0
    """0: not sent."""


class Exchange:
    """Requests of one peer and their answers.

    `take` may run in another thread than `answer` and `follow_up`; these two and `discard` belong to one thread.
    """

    def __init__(
        self,
        *,
        contexts: Mapping[int, tuple[str, str]],
        peer: PeerIdentity,
        peer_pdu_byte_count_max: int,
        limits: WireLimits,
        services: Services,
        tell: Tell,
        send: Callable[[bytes], None],
        complete: Callable[[Message], None],
    ) -> None:
        """`contexts`: ID -> abstract syntax, transfer syntax. `send`: whole PDUs; what it raises, `answer` and `follow_up` raise.

        `complete`: called by `take` with each message that is there entirely; it is `answer`'s next.
        """
        self._contexts = contexts
        self._peer = peer
        self._peer_pdu_byte_count_max = peer_pdu_byte_count_max
        self._limits = limits
        self._services = services
        self._tell = tell
        self._send_pdus = send
        self._complete = complete
        self._assembler = MessageAssembler()
        self._open: Message | None = None
        self._byte_count = 0
        self._begun_at = 0.0
        self._parts: list[memoryview] = []  # of the open message's data set, not written yet
        self._written_s = 0.0
        self._promised: list[_Promised] = []
        self._sent_count = 0

    @property
    def inside(self) -> bool:
        """True between the first fragment of a message and its last."""
        return self._assembler.inside or self._open is not None

    @property
    def due_in_s(self) -> float:
        """Until `follow_up` has something to do. Reports go out one at a time (PS3.7 D.3.3.3: unless more was agreed)."""
        sent = [promised for promised in self._promised if promised.message_id]
        return min((promised.due_at for promised in sent or self._promised), default=inf) - time.monotonic()

    def now(self) -> float:
        """The peer's time, for deadlines in seconds: it stands still while what was taken is being written."""
        return time.monotonic() - self._written_s

    def take(self, context_id: int, control: int, data: memoryview) -> None:
        """One fragment, or a part of one: then without the bit that says «last». Raises ProtocolError.

        Of a data set `data` stays valid until `flush`.
        """
        if not self._assembler.inside:
            self._begun_at, self._byte_count = time.monotonic(), 0
        found = self._assembler.fragment(context_id, control, data)
        if found is None:
            self._keep_pace()
        elif isinstance(found, Command):
            self._begin(context_id, found)
        else:
            self._data(found.data, last=found.last)

    def flush(self) -> None:
        """What was taken goes to its sink: to be called before its memory is used again."""
        if self._parts:
            parts, self._parts = self._parts, []
            message = self._open  # once: another thread may discard it
            if message is not None and message.sink is not None:
                begun = time.monotonic()
                message.sink.write(parts)
                self._written_s += time.monotonic() - begun

    def answer(self, message: Message) -> None:
        """Serves a complete message; may take as long as disks and ledgers take."""
        if message.command.is_response:
            self._settle(message.command)
            return
        answer = message.answer if message.sink is None else self._finished(message.sink)
        if answer is not None:
            self._respond(message, answer)

    def follow_up(self) -> None:
        """Sends what is due. A peer that did not answer a report in time gets no other one here."""
        now = time.monotonic()
        if any(one.message_id and one.due_at <= now for one in self._promised):
            self._give_up_all()
        for promised in [one for one in self._promised if one.due_at <= now]:
            if any(one.message_id for one in self._promised):
                return
            report = promised.follow_up.report(self._contexts[promised.context_id][1])
            if report is None:
                self._give_up(promised)
                continue
            promised.message_id = self._sent_count % 0xFFFF + 1
            self._sent_count += 1
            promised.due_at = now + self._limits.idle_timeout_s
            request = encode_event_report(
                message_id=promised.message_id,
                sop_class_uid=report.sop_class_uid,
                sop_instance_uid=report.sop_instance_uid,
                event_type=report.event_type,
            )
            self._send(promised.context_id, request, report.data_set)

    def discard(self) -> None:
        """The association has ended: nothing half-received stays, and who promised a follow-up knows."""
        message, self._open = self._open, None
        self._parts = []
        if message is not None:
            message.discard()
        self._give_up_all()

    def _begin(self, context_id: int, command: Command) -> None:
        context = self._contexts.get(context_id)
        if context is None:
            raise ProtocolError("a message on a presentation context that was not accepted")
        message = Message(context_id, command)
        if command.is_response:
            # Whatever else might answer: we send nothing but event reports.
            if command.field != N_EVENT_REPORT_RSP or not 0 < command.message_id <= self._sent_count:
                raise ProtocolError("a response to a request that was never sent")
        elif (
            command.field in (N_ACTION_RQ, N_EVENT_REPORT_RQ)
            and context[0] == commitment.SOP_CLASS_UID
            and self._services.open_service
        ):
            message.sink = self._services.open_service(
                ServiceRequest(command=command, transfer_syntax_uid=context[1], peer=self._peer)
            )
        elif command.field == C_STORE_RQ and command.has_data_set:
            abstract_syntax, transfer_syntax = context
            message.sink = self._services.open_sink(
                StoreRequest(
                    sop_class_uid=command.affected_sop_class_uid,
                    sop_instance_uid=command.affected_sop_instance_uid,
                    context_sop_class_uid=abstract_syntax,
                    transfer_syntax_uid=transfer_syntax,
                    peer=self._peer,
                )
            )
        elif command.field == C_STORE_RQ:
            message.answer = Answer(status=status.CANNOT_UNDERSTAND, comment="C-STORE without a data set")
        elif command.field == C_ECHO_RQ:
            message.answer = Answer(status=status.SUCCESS)
        elif command.field != C_CANCEL_RQ:
            message.answer = Answer(
                status=status.UNRECOGNISED_OPERATION, comment="this node does not offer this operation here"
            )
        self._open = message
        if not command.has_data_set:
            self._close()

    def _data(self, data: memoryview, *, last: bool) -> None:
        message = self._open
        assert message is not None, "the assembler lets no data set pass without its command"
        self._byte_count += len(data)
        # What is refused is drained, so that the refusal can be told; but not for ever.
        if self._byte_count > 2 * self._limits.dataset_byte_count_max:
            raise ProtocolError("a data set goes on far beyond node.dataset_byte_count_max")
        self._keep_pace()
        if message.sink is not None and data:
            self._parts.append(data)
        if last or len(self._parts) == _PARTS_MAX:
            self.flush()
        if last:
            self._close()

    def _keep_pace(self) -> None:
        """Fragments without bytes, or with one each, would keep an association at work for ever. Raises ProtocolError."""
        elapsed_s = time.monotonic() - self._begun_at
        if elapsed_s > self._limits.idle_timeout_s + self._byte_count / BYTES_PER_SECOND_MIN:
            raise ProtocolError(f"a message arrives with less than {BYTES_PER_SECOND_MIN} bytes a second")

    def _close(self) -> None:
        """The open message is complete. In this order nobody finds it neither open nor complete."""
        message = self._open
        assert message is not None
        try:
            self._complete(message)
        finally:
            self._open = None

    def _finished(self, sink: DataSetSink) -> Answer:
        try:
            return sink.finish()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in there, it is not Success
            code = status.PROCESSING_FAILURE
            self._tell("instance.refused", level=logging.ERROR, status=f"0x{code:04X}", exc_info=error)
            return Answer(status=code, comment="internal error, see the log of this node")
        finally:
            sink.discard()

    def _respond(self, message: Message, answer: Answer) -> None:
        now = time.monotonic()
        room = max(0, FOLLOW_UPS_MAX - len(self._promised))
        # First: when sending fails, `discard` settles them.
        self._promised += [_Promised(one, message.context_id, now + one.delay_s) for one in answer.follow_ups[:room]]
        for one in answer.follow_ups[room:]:
            one.settled(None)
        response = encode_response(message.command, status=answer.status, comment=answer.comment)
        fault_point("answer.unsent")
        self._send(message.context_id, response)
        fault_point("answer.sent")

    def _settle(self, response: Command) -> None:
        """The peer has answered what we sent; one that we waited for in vain settles nothing any more."""
        for promised in [one for one in self._promised if one.message_id == response.message_id]:
            self._promised.remove(promised)
            promised.follow_up.settled(response.status)

    def _give_up_all(self) -> None:
        for promised in list(self._promised):
            self._give_up(promised)

    def _give_up(self, promised: _Promised) -> None:
        self._promised.remove(promised)
        promised.follow_up.settled(None)

    def _send(self, context_id: int, command: bytes, data_set: bytes | None = None) -> None:
        limit = self._peer_pdu_byte_count_max
        data = pdu.encode_command(context_id, command, pdu_byte_count_max=limit)
        if data_set is not None:
            data += pdu.encode_data_set(context_id, data_set, pdu_byte_count_max=limit)
        self._send_pdus(data)
