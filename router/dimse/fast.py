"""The wire of our own: one thread for an association, which reads, writes to the spool and answers, one message after the other.

It sleeps in the kernel and nowhere else. What a peer sends beyond the message in work waits there too, so that a peer which
does not wait for answers fills neither memory nor disk. Source: PS3.8 9.2 (states 2, 3, 6, 8 and 13 are points in `_serve`).
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from router.core.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.dimse import pdu
from router.dimse.association import Agreed, Association
from router.dimse.exchange import Exchange, Message
from router.dimse.limits import BYTES_PER_SECOND_MIN, FAREWELL_S, OPERATIONS_MAX
from router.dimse.pdu import ProtocolError
from router.dimse.stream import Stream, say_goodbye

_LAST = 2
_LATE = "a PDU did not arrive in time (node.pdu_timeout_s)"
_IDLE = "idle for longer than node.idle_timeout_s"


class _End(Exception):
    """The association is over; `last_word` is what the peer is told."""

    def __init__(self, reason: str, last_word: bytes = b"", *, released: bool = False) -> None:
        super().__init__(reason)
        self.last_word = last_word
        self.released = released


class FastAssociation:
    """See dimse.association.Association."""

    def __init__(self, agreed: Agreed, on_end: Callable[[Association], None]) -> None:
        self.agreed = agreed
        self.released = False
        self.end_reason = ""
        self._on_end = on_end
        self._limits = agreed.limits
        self._lock = threading.Lock()
        self._idle_since: float | None = None
        self._leaving = ""
        self._complete: list[Message] = []
        self._exchange = Exchange(
            contexts=agreed.contexts,
            peer=agreed.peer,
            peer_pdu_byte_count_max=agreed.request.pdu_byte_count_max,
            limits=agreed.limits,
            services=agreed.services,
            tell=agreed.tell,
            send=self._send,
            complete=self._complete.append,
        )
        self._stream = Stream(
            agreed.connection,
            send_timeout_s=agreed.limits.pdu_timeout_s,
            before_reuse=self._exchange.flush,
            now=self._exchange.now,
        )

    def idle_s(self) -> float:
        """See Occupant.idle_s."""
        since = self._idle_since
        return 0.0 if since is None else time.monotonic() - since

    def leave(self, reason: str) -> None:
        """See Occupant.leave."""
        with self._lock:
            self._leaving = self._leaving or reason
            if self._idle_since is not None:
                with suppress(OSError):
                    self.agreed.connection.shutdown(socket.SHUT_RD)  # wakes the thread, which then says goodbye

    def begin(self) -> None:
        """See Association.begin; returns when it has ended."""
        last_word = b""
        try:
            self._serve()
        except _End as end:
            self.end_reason, last_word, self.released = str(end), end.last_word, end.released
        except ProtocolError as error:
            self.end_reason, last_word = str(error), pdu.encode_abort(diagnostic=6)
        except OSError as error:
            self.end_reason = self._leaving or error.strerror or str(error)
        except Exception as error:  # noqa: BLE001 - one association ends, the others go on
            self.end_reason, last_word = f"internal error: {type(error).__name__}", pdu.encode_abort(diagnostic=0)
            self.agreed.tell("association.failed", level=logging.ERROR, host=self.agreed.peer.host, exc_info=error)
        try:
            for message in self._complete:  # whose answer failed
                message.discard()
            self._exchange.discard()
        finally:
            del self._exchange, self._stream  # they know us: our buffer would wait for the garbage collector
            if last_word:
                say_goodbye(self.agreed.connection, last_word, timeout_s=FAREWELL_S)
            self.agreed.connection.close()
            self._on_end(self)

    def _serve(self) -> None:
        """Raises _End, ProtocolError, OSError: there is no other way out."""
        stream, limits = self._stream, self._limits
        self._send(_acceptance(self.agreed))
        while True:
            self._await_pdu()
            now = self._exchange.now()
            try:
                kind, length = stream.unpack(pdu.HEADER, now + limits.pdu_timeout_s)
                if length > pdu.byte_count_max(kind, p_data_byte_count_max=limits.pdu_byte_count_max):
                    raise ProtocolError(f"PDU of type {kind} announces {length} bytes")
                deadline = now + limits.pdu_timeout_s + length / BYTES_PER_SECOND_MIN
                if kind == pdu.P_DATA_TF:
                    self._take(length, deadline)
                    continue
                self._drain(length, deadline)
            except TimeoutError:
                raise _End(_LATE, pdu.encode_abort(diagnostic=0)) from None
            if kind == pdu.A_RELEASE_RQ:
                raise _End("", pdu.encode_release(pdu.A_RELEASE_RP), released=True)
            if kind == pdu.A_ABORT:
                raise _End("aborted by the peer")
            raise _End(f"PDU of type {kind} in an association", pdu.encode_abort(diagnostic=2))

    def _await_pdu(self) -> None:
        """Returns when the next PDU begins; between two messages there may be other things to do."""
        exchange = self._exchange
        idle_at = exchange.now() + self._limits.idle_timeout_s
        while not exchange.inside:
            due_in_s = exchange.due_in_s
            if due_in_s <= 0 and not self._leaving:
                exchange.follow_up()
                idle_at = exchange.now() + self._limits.idle_timeout_s
                continue
            with self._lock:
                if not self._leaving:
                    self._idle_since = time.monotonic()
            self._stream.rewind()
            try:
                if not self._leaving:
                    self._stream.wait(min(idle_at, exchange.now() + due_in_s))
            except TimeoutError:
                if exchange.now() >= idle_at:
                    raise _End(_IDLE, pdu.encode_abort(diagnostic=0, by_user=True)) from None
                continue
            except OSError:
                if not self._leaving:
                    raise
            finally:
                with self._lock:
                    self._idle_since = None
            if self._leaving:
                raise _End(self._leaving, pdu.encode_abort(diagnostic=0, by_user=True))
            return
        try:
            self._stream.wait(idle_at)
        except TimeoutError:
            raise _End(_IDLE, pdu.encode_abort(diagnostic=0)) from None

    def _take(self, length: int, deadline: float) -> None:
        """One P-DATA-TF. Raises TimeoutError; what serving takes is not the peer's time."""
        stream, exchange = self._stream, self._exchange
        if not length:
            raise ProtocolError("P-DATA-TF without a PDV")
        while length:
            if length < pdu.PDV_HEADER.size:
                raise ProtocolError("PDV is cut off")
            pdv_length, context_id, control = stream.unpack(pdu.PDV_HEADER, deadline)
            missing = pdv_length - 2
            length -= pdu.PDV_HEADER.size + missing
            if missing < 0 or length < 0:
                raise ProtocolError("PDV is longer than its PDU, or shorter than its header")
            while missing:
                data = stream.take(missing, deadline)
                missing -= len(data)
                exchange.take(context_id, control & ~_LAST if missing else control, data)
            if pdv_length == 2:
                exchange.take(context_id, control, memoryview(b""))
            if self._complete:
                begun = time.monotonic()
                exchange.answer(self._complete[0])
                self._complete.clear()
                deadline += time.monotonic() - begun

    def _drain(self, byte_count: int, deadline: float) -> None:
        while byte_count:
            byte_count -= len(self._stream.take(byte_count, deadline))

    def _send(self, data: bytes) -> None:
        try:
            self._stream.send(data)
        except TimeoutError:
            raise _End("the peer does not read what we send") from None


def _acceptance(agreed: Agreed) -> bytes:
    asked = agreed.request.operations
    operations = None
    if asked is not None:
        # We serve in order and have one report open at a time.
        operations = (min(asked[0] or OPERATIONS_MAX, OPERATIONS_MAX), 1)
    return pdu.encode_associate_accept(
        agreed.request,
        agreed.answers,
        pdu_byte_count_max=agreed.limits.pdu_byte_count_max,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        roles=agreed.roles,
        operations=operations,
    )
