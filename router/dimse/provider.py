"""pynetdicom's DIMSE provider, which collects nothing: fragments become requests, data sets go to a sink as they arrive."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from pynetdicom.dimse import DIMSEServiceProvider

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
from router.dimse.limits import BYTES_PER_SECOND_MIN, PIPELINED_MAX, WireLimits
from router.dimse.message import MessageAssembler
from router.dimse.pdu import ProtocolError
from router.dimse.store import Answer, DataSetSink, FollowUp, PeerIdentity, ServiceRequest, Services, StoreRequest
from router.faults import fault_point

if TYPE_CHECKING:
    from router.dimse.guard import GuardedAssociation


@dataclass(slots=True, eq=False)
class _Message:
    """A complete request that waits for its answer."""

    context_id: int
    command: Command
    sink: DataSetSink | None = None
    answer: Answer | None = None


@dataclass(slots=True, eq=False)
class _Promised:
    """A follow-up of an answer that we gave."""

    follow_up: FollowUp
    context_id: int
    due_at: float
    """When it is to be sent; once it is, until when the peer may answer."""
    message_id: int = 0
    """0: not sent."""


class GuardedDIMSE(DIMSEServiceProvider):  # type: ignore[misc]
    """Puts fragments together to requests; data sets of C-STORE go to a sink as they arrive, nothing is collected."""

    assoc: GuardedAssociation

    def __init__(
        self, assoc: GuardedAssociation, *, services: Services, peer: PeerIdentity, limits: WireLimits
    ) -> None:
        super().__init__(assoc)
        self._services = services
        self._peer = peer
        self._limits = limits
        self._assembler = MessageAssembler()
        self._open: _Message | None = None
        self._waiting: list[_Message] = []  # the one that is being served is the first
        self._byte_count = 0
        self._begun_at = 0.0
        self._promised: list[_Promised] = []  # the association thread's own
        self._sent_message_id = 0

    @property
    def full(self) -> bool:
        """True when no more may be read until a request is served."""
        return len(self._waiting) >= PIPELINED_MAX

    @property
    def busy(self) -> bool:
        """True while a message has begun and is not answered."""
        return self._assembler.inside or self._open is not None or bool(self._waiting)

    @property
    def due_in_s(self) -> float:
        """Until `follow_up` has something to do."""
        return min((promised.due_at for promised in self._promised), default=inf) - time.monotonic()

    def receive(self, body: memoryview) -> None:
        """The bytes after the header of one P-DATA-TF. Raises ProtocolError. Runs in the DUL thread."""
        for context_id, control, data in pdu.presentation_data(body):
            if not self._assembler.inside:
                self._begun_at, self._byte_count = time.monotonic(), 0
            found = self._assembler.fragment(context_id, control, data)
            if isinstance(found, Command):
                self._begin(context_id, found)
            elif found is not None:
                self._data(found.data, last=found.last)

    def serve(self, message: _Message) -> None:
        """Answers one complete request. Runs in the association thread."""
        try:
            if message.command.is_response:
                self._settle(message.command)
                return
            answer = message.answer if message.sink is None else self._finished(message.sink)
            if answer is not None:
                self._respond(message, answer)
        finally:
            self._waiting.remove(message)
            self.dul.wake()

    def follow_up(self) -> None:
        """Sends what is due on this association, and gives up what was not answered. Runs in the association thread."""
        now = time.monotonic()
        for promised in [one for one in self._promised if one.due_at <= now]:
            report = (
                None if promised.message_id else promised.follow_up.report(self.assoc.contexts[promised.context_id][1])
            )
            if report is None or self._closed:
                self._promised.remove(promised)
                promised.follow_up.settled(None)
                continue
            self._sent_message_id += 1
            promised.message_id = self._sent_message_id
            promised.due_at = now + self._limits.idle_timeout_s
            self._send(
                promised.context_id,
                encode_event_report(
                    message_id=promised.message_id,
                    sop_class_uid=report.sop_class_uid,
                    sop_instance_uid=report.sop_instance_uid,
                    event_type=report.event_type,
                ),
                report.data_set,
            )
            self.dul.touch()

    def discard(self) -> None:
        """The association has ended: nothing half-received stays."""
        for message in (self._open, *self._waiting):
            if message is not None and message.sink is not None:
                message.sink.discard()
        self._open = None
        self._waiting.clear()
        promised, self._promised = self._promised, []
        for one in promised:
            one.follow_up.settled(None)

    def _begin(self, context_id: int, command: Command) -> None:
        context = self.assoc.contexts.get(context_id)
        if context is None:
            raise ProtocolError("a message on a presentation context that was not accepted")
        message = _Message(context_id, command)
        if command.is_response:
            # Whatever else might answer: we send nothing but event reports.
            if command.field != N_EVENT_REPORT_RSP or not 0 < command.message_id <= self._sent_message_id:
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
        if command.has_data_set:
            self._open = message
        else:
            self._complete(message)

    def _data(self, data: memoryview, *, last: bool) -> None:
        message = self._open
        assert message is not None, "the assembler lets no data set pass without its command"
        self._byte_count += len(data)
        # What is refused is drained, so that the refusal can be told; but not for ever.
        if self._byte_count > 2 * self._limits.dataset_byte_count_max:
            raise ProtocolError("a data set goes on far beyond node.dataset_byte_count_max")
        elapsed_s = time.monotonic() - self._begun_at
        if elapsed_s > self._limits.idle_timeout_s + self._byte_count / BYTES_PER_SECOND_MIN:
            raise ProtocolError(f"a data set arrives with less than {BYTES_PER_SECOND_MIN} bytes a second")
        if message.sink is not None and data:
            message.sink.write(data)
        if last:
            self._complete(message)

    def _complete(self, message: _Message) -> None:
        """In this order the association thread, woken by the last line, finds nothing half-done and never sees «idle» too early."""
        self._waiting.append(message)
        self._open = None
        self.msg_queue.put((message.context_id, message))

    def _finished(self, sink: DataSetSink) -> Answer:
        try:
            return sink.finish()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in there, it is not Success
            code = status.PROCESSING_FAILURE
            self.assoc.tell("instance.refused", level=logging.ERROR, status=f"0x{code:04X}", exc_info=error)
            return Answer(status=code, comment="internal error, see the log of this node")
        finally:
            sink.discard()

    @property
    def _closed(self) -> bool:
        return self.dul.socket is None or self.dul.state_machine.current_state != "Sta6"

    def _respond(self, message: _Message, answer: Answer) -> None:
        if self._closed:
            for follow_up in answer.follow_ups:
                follow_up.settled(None)
            return
        response = encode_response(message.command, status=answer.status, comment=answer.comment)
        fault_point("answer.unsent")
        self._send(message.context_id, response)
        fault_point("answer.sent")
        now = time.monotonic()
        self._promised += [_Promised(one, message.context_id, now + one.delay_s) for one in answer.follow_ups]

    def _settle(self, response: Command) -> None:
        """The peer has answered what we sent; one that we waited for in vain settles nothing any more."""
        for promised in [one for one in self._promised if one.message_id == response.message_id]:
            self._promised.remove(promised)
            promised.follow_up.settled(response.status)

    def _send(self, context_id: int, command: bytes, data_set: bytes | None = None) -> None:
        connection = self.dul.socket
        if connection is not None:
            limit = self.assoc.peer_pdu_byte_count_max
            data = pdu.encode_command(context_id, command, pdu_byte_count_max=limit)
            if data_set is not None:
                data += pdu.encode_data_set(context_id, data_set, pdu_byte_count_max=limit)
            connection.send(data)
