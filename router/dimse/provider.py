"""pynetdicom's DIMSE provider, which collects nothing: fragments go to the exchange of the association, in the DUL thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetdicom.dimse import DIMSEServiceProvider

from router.dimse import pdu
from router.dimse.exchange import Exchange, Message
from router.dimse.limits import PIPELINED_MAX

if TYPE_CHECKING:
    from router.dimse.association import Agreed
    from router.dimse.guard import GuardedAssociation


class GuardedDIMSE(DIMSEServiceProvider):  # type: ignore[misc]
    """Hands complete messages from the DUL thread, which reads, to the association thread, which serves."""

    assoc: GuardedAssociation

    def __init__(self, assoc: GuardedAssociation, agreed: Agreed) -> None:
        super().__init__(assoc)
        self._waiting: list[Message] = []  # the one that is being served is the first
        self.exchange = Exchange(
            contexts=agreed.contexts,
            peer=agreed.peer,
            peer_pdu_byte_count_max=agreed.request.pdu_byte_count_max,
            limits=agreed.limits,
            services=agreed.services,
            tell=agreed.tell,
            send=self._send,
            complete=self._complete,
        )

    @property
    def full(self) -> bool:
        """True when no more may be read until a request is served."""
        return len(self._waiting) >= PIPELINED_MAX

    @property
    def busy(self) -> bool:
        """True while a message has begun and is not answered."""
        return self.exchange.inside or bool(self._waiting)

    def receive(self, body: memoryview) -> None:
        """The bytes after the header of one P-DATA-TF. Raises ProtocolError. Runs in the DUL thread."""
        for context_id, control, data in pdu.presentation_data(body):
            self.exchange.take(context_id, control, data)
        self.exchange.flush()

    def serve(self, message: Message) -> None:
        """Answers one complete request. Runs in the association thread."""
        try:
            self.exchange.answer(message)
        finally:
            message.discard()
            self._waiting.remove(message)
            self.dul.wake()

    def discard(self) -> None:
        """The association has ended: nothing half-received stays."""
        for message in self._waiting:
            message.discard()
        self._waiting.clear()
        self.exchange.discard()

    def _complete(self, message: Message) -> None:
        self._waiting.append(message)
        self.msg_queue.put((message.context_id, message))

    def _send(self, data: bytes) -> None:
        connection = self.dul.socket
        if connection is None or self.dul.state_machine.current_state != "Sta6":
            raise ConnectionError("the association is over")
        connection.send(data)
