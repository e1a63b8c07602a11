"""pynetdicom's acceptor with limits on everything, and without polling. No monkey-patching: subclasses only.

What stock pynetdicom 3.0 lacks and why it matters was measured (10 connections that send 3 bytes each switch a stock
Storage SCP off for ever): a deadline on every PDU, a length limit before a byte of it is buffered, data sets straight to
where they belong, bounded pipelining, time-outs that do not follow the wall clock.

Threads of one association: the DUL thread reads the socket and runs the state machine; the association thread serves
complete messages and sends their responses.
"""

from __future__ import annotations

import logging
import queue
import select
import socket as tcp
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pynetdicom import _config
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.timer import Timer
from pynetdicom.transport import AddressInformation, AssociationSocket

from router.dimse import pdu
from router.dimse.association import Agreed
from router.dimse.limits import BYTES_PER_SECOND_MIN, WireLimits
from router.dimse.pdu import ProtocolError
from router.dimse.provider import GuardedDIMSE
from router.dimse.rewrite import prepare_acceptor, rewritten_request

# pynetdicom formats every PDU for a log that we do not keep.
_config.LOG_HANDLER_LEVEL = "none"

#: The longest sleep of a thread that waits: everything that matters wakes it.
_TICK_S = 5.0


class _MonotonicTimer(Timer):  # type: ignore[misc]
    """pynetdicom's timer follows the wall clock: setting that clock forward would abort every association."""

    _start_time: float | None
    _end_time: float | None

    def start(self) -> None:
        self._start_time, self._end_time = time.monotonic(), None

    def stop(self) -> None:
        self._end_time = time.monotonic()

    @property
    def remaining(self) -> float:
        if self.timeout is None:
            return 1.0
        if self._start_time is None:
            return float(self.timeout)
        end = time.monotonic() if self._end_time is None else self._end_time
        return float(self.timeout - (end - self._start_time))


class GuardedSocket(AssociationSocket):  # type: ignore[misc]
    """A connection that is never waited for without a deadline."""

    def __init__(self, assoc: GuardedAssociation, connection: tcp.socket, *, send_timeout_s: float) -> None:
        super().__init__(assoc, client_socket=connection)
        # Two threads wait on it, each with a deadline of its own; a time-out of the socket would be shared.
        connection.setblocking(False)
        self._send_timeout_s = send_timeout_s
        self._send_lock = threading.Lock()

    def receive(self, byte_count: int, *, deadline: float) -> bytearray:
        """Exactly so many bytes. Raises ConnectionError when the peer closed, TimeoutError at `deadline`, OSError."""
        connection = self.socket
        if connection is None:
            raise ConnectionError("closed")
        data = bytearray(byte_count)
        rest = memoryview(data)
        while rest:
            _quick_ack(connection)
            try:
                count = connection.recv_into(rest)
            except BlockingIOError:
                _wait_for(connection, select.POLLIN, deadline)
                continue
            if not count:
                raise ConnectionError("closed by the peer")
            rest = rest[count:]
            self.assoc.dul.touch()
        return data

    def send(self, bytestream: bytes) -> None:
        """Sends whole PDUs, from either thread. A peer that does not read them is gone (Evt17)."""
        connection = self.socket
        if connection is None:
            return
        try:
            with self._send_lock:
                deadline = time.monotonic() + self._send_timeout_s
                rest = memoryview(bytestream)
                while rest:
                    try:
                        rest = rest[connection.send(rest) :]
                    except BlockingIOError:
                        _wait_for(connection, select.POLLOUT, deadline)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")


def _wait_for(connection: tcp.socket, event: int, deadline: float) -> None:
    """Raises TimeoutError at `deadline`."""
    poll = select.poll()
    poll.register(connection, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _quick_ack(connection: tcp.socket) -> None:
    """Without it a sender that uses Nagle's algorithm, as dcmtk does, waits 40 ms for our ACK in every message.

    The kernel forgets the option by itself, so it is set again before each read.
    """
    if hasattr(tcp, "TCP_QUICKACK"):
        connection.setsockopt(tcp.IPPROTO_TCP, tcp.TCP_QUICKACK, 1)


class _Waking(queue.Queue[Any]):
    """A queue that tells somebody when something is put into it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._wake()


class GuardedDUL(DULServiceProvider):  # type: ignore[misc]
    """Reads PDUs: length checked before the body is read, body within a deadline, P-DATA without detours."""

    assoc: GuardedAssociation
    socket: GuardedSocket | None

    def __init__(self, assoc: GuardedAssociation, *, request_pdu: bytes, limits: WireLimits) -> None:
        super().__init__(assoc)
        self.daemon = True
        self._limits = limits
        self._request_pdu: bytes | None = request_pdu
        self._run_loop_delay = 0  # the wait is in _is_transport_event, on the socket and on `wake`
        self._wake_read, self._wake_write = tcp.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._idle_timer = _MonotonicTimer(60)
        self.artim_timer = _MonotonicTimer(30)
        self.to_provider_queue = _Waking(self.wake)
        self.to_user_queue = _Waking(assoc.wake)

    def wake(self) -> None:
        """Ends the thread's wait."""
        with suppress(OSError):  # it is awake already, or has ended
            self._wake_write.send(b"\0")

    def touch(self) -> None:
        """The association is not idle."""
        self._idle_timer.restart()

    def stop_dul(self) -> bool:
        """See DULServiceProvider.stop_dul, without spinning."""
        if self.state_machine.current_state != "Sta1":
            return False
        self._kill_thread = True
        self.wake()
        if threading.current_thread() is not self:
            self.join()
        return True

    def run_reactor(self) -> None:
        """See DULServiceProvider.run_reactor."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - events that cross, e.g. our answer and the peer's close
            self.assoc.end_reason = self.assoc.end_reason or f"state machine: {type(error).__name__}"
            self.assoc.hang_up()
        finally:
            self.assoc.wake()
            self._close_wakers()

    def end(self) -> None:
        """The association thread ends: so must this one, whatever state it is in. Does not wait for that."""
        self._kill_thread = True
        if self.is_alive():
            self.wake()
        elif self.ident is None:  # it never began
            self._close_wakers()

    def _close_wakers(self) -> None:
        self._wake_read.close()
        self._wake_write.close()

    def _is_transport_event(self) -> bool:
        if self._request_pdu is not None:
            request, self._request_pdu = self._request_pdu, None
            self._take(request)
            return True
        if not self.event_queue.empty():
            return False
        state = self.state_machine.current_state
        paused = state == "Sta6" and self.assoc.dimse.full
        connection = self.socket.socket if self.socket is not None else None
        # Sta13: we have said the last word, and close as soon as there is nothing left to read.
        wait_s = 0.0 if state == "Sta13" else _TICK_S
        readable = self._wait(None if paused else connection, wait_s)
        if state == "Sta13":
            self._hear_out(readable)
            return True
        if not readable:
            return False
        self._read_pdu_data()
        while (
            self.state_machine.current_state == "Sta6"
            and self.event_queue.empty()
            and self.to_provider_queue.empty()
            and not self._kill_thread
            and not self.assoc.dimse.full
        ):
            if not self._wait(connection, 0.0):
                break
            self._read_pdu_data()
        return True

    def _hear_out(self, readable: bool) -> None:
        """After our last word: closing with bytes unread could destroy it, so they are read and thrown away.

        The state machine's own timer (ARTIM) ends this for a peer that goes on talking.
        """
        if self.socket is None:
            return
        with suppress(OSError):
            if readable and self.socket.socket is not None and self.socket.socket.recv(2**16):
                return
        self.socket.close()

    def _wait(self, connection: tcp.socket | None, timeout_s: float) -> bool:
        """True when the connection has something to read; False when the wait is over or `wake` ended it."""
        poll = select.poll()  # unlike select(), it knows no highest file descriptor
        poll.register(self._wake_read, select.POLLIN)
        if connection is not None and connection.fileno() >= 0:
            poll.register(connection, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(timeout_s * 1000)}
        if self._wake_read.fileno() in ready:
            self._wake_read.recv(4096)
        return bool(connection is not None and connection.fileno() in ready)

    def _read_pdu_data(self) -> None:
        """One PDU from the connection: P-DATA goes to DIMSE, any other becomes an event of the state machine."""
        if self.socket is None:
            return
        state = self.state_machine.current_state
        try:
            now = time.monotonic()
            head = self.socket.receive(pdu.HEADER.size, deadline=now + self._limits.pdu_timeout_s)
            kind, length = pdu.HEADER.unpack(head)
            if length > pdu.byte_count_max(kind, p_data_byte_count_max=self._limits.pdu_byte_count_max):
                raise ProtocolError(f"PDU of type {kind} announces {length} bytes")
            seconds = self._limits.pdu_timeout_s + length / BYTES_PER_SECOND_MIN
            body = self.socket.receive(length, deadline=now + seconds)
            if kind == pdu.P_DATA_TF and state == "Sta6":
                self.assoc.dimse.receive(memoryview(body))
            else:
                self._take(bytes(head + body))
        except ProtocolError as error:
            self.assoc.end_reason = str(error)
            self.event_queue.put("Evt19")
        except TimeoutError:
            # An unfinished PDU leaves nothing to go on with: PS3.8 9.2 knows only «invalid PDU» for it.
            self.assoc.end_reason = "a PDU did not arrive in time (node.pdu_timeout_s)"
            self.event_queue.put("Evt19")
        except OSError:
            self.event_queue.put("Evt17")

    def _take(self, data: bytes) -> None:
        try:
            decoded, event = self._decode_pdu(bytearray(data))
        except Exception as error:  # noqa: BLE001 - pynetdicom raises whatever its decoder meets; the PDU is invalid
            self.assoc.end_reason = f"invalid PDU ({type(error).__name__})"
            self.event_queue.put("Evt19")
            return
        self._recv_pdu.put(decoded)
        self.event_queue.put(event)


class GuardedAssociation(Association):  # type: ignore[misc]
    """An association that we accept. Its thread waits, it does not poll."""

    dul: GuardedDUL
    dimse: GuardedDIMSE
    is_established: bool

    def __init__(self, ae: ApplicationEntity, agreed: Agreed, on_end: Callable[[GuardedAssociation], None]) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.agreed = agreed
        self.end_reason = ""
        self._on_end = on_end
        self._leaving = ""
        self.dimse = GuardedDIMSE(self, agreed)
        self.dul = GuardedDUL(self, request_pdu=rewritten_request(agreed), limits=agreed.limits)
        # Their setters write into the timers of the DUL, which is a new one now.
        self.acse_timeout = agreed.limits.pdu_timeout_s
        self.network_timeout = agreed.limits.idle_timeout_s
        self.set_socket(GuardedSocket(self, agreed.connection, send_timeout_s=agreed.limits.pdu_timeout_s))
        prepare_acceptor(self.acceptor, agreed)
        self.requestor.address_info = AddressInformation.from_tuple(agreed.connection.getpeername())

    @property
    def released(self) -> bool:
        """See dimse.association.Association."""
        return bool(self.is_released)

    def begin(self) -> None:
        """See dimse.association.Association; returns at once."""
        try:
            self.start()
        except RuntimeError:  # there can be no further thread
            self.end_reason = "no thread for it"
            self._over()
            raise

    def wake(self) -> None:
        """Ends the thread's wait."""
        self.dimse.msg_queue.put((None, None))

    def idle_s(self) -> float:
        """See Occupant.idle_s."""
        if self.dimse.busy or not self.is_established:
            return 0.0
        timer = self.dul._idle_timer
        return max(0.0, (timer.timeout or 0.0) - timer.remaining)

    def leave(self, reason: str) -> None:
        """See Occupant.leave."""
        self._leaving = self._leaving or reason
        self.wake()

    def hang_up(self) -> None:
        """Ends the association from the DUL thread, without a word to the peer."""
        self.is_aborted, self.is_established = True, False
        self._kill = True

    def run_reactor(self) -> None:
        """See Association.run_reactor."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - one association ends, the others go on
            self.end_reason = f"internal error: {type(error).__name__}"
            self.agreed.tell("association.failed", level=logging.ERROR, host=self.agreed.peer.host, exc_info=error)
            self.hang_up()
        finally:
            self._over()

    def _over(self) -> None:
        self.dul.end()
        try:
            self.dimse.discard()
        finally:
            self.agreed.connection.close()
            self._on_end(self)

    def _run_reactor(self) -> None:
        """As pynetdicom's, but it sleeps until there is something to do."""
        exchange = self.dimse.exchange
        while not self._kill:
            # Whoever leaves follows nothing up any more: what is due then must not keep the thread awake.
            due_in_s = _TICK_S if self._leaving else exchange.due_in_s
            timeout_s = min(_TICK_S, self.dul._idle_timer.remaining, due_in_s)
            try:
                _, message = self.dimse.msg_queue.get(timeout=max(0.0, timeout_s))
            except queue.Empty:
                message = None
            if message is not None:
                with suppress(ConnectionError):  # it is over, which the state machine knows
                    self.dimse.serve(message)
                self.dul.touch()
                if not self._leaving:
                    continue
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released, self.is_established = True, False
                self.kill()
            elif self.acse.is_aborted():
                self.dul.receive_pdu(wait=False)
                self.is_aborted, self.is_established = True, False
                self.kill()
            elif not self.dul.is_alive():
                self.kill()
            elif not self._leaving and exchange.due_in_s <= 0:
                with suppress(ConnectionError):
                    exchange.follow_up()
                self.dul.touch()
            elif self._leaving and not self.dimse.busy:
                self.end_reason = self._leaving
                self.abort()
            elif self.dul.idle_timer_expired():
                self.end_reason = self.end_reason or "idle for longer than node.idle_timeout_s"
                self.abort()


def associations() -> Callable[[Agreed, Callable[[Any], None]], GuardedAssociation]:
    """See dimse.association.Wire."""
    entity = ApplicationEntity()
    entity.maximum_associations = 2**31  # Slots counts them
    return lambda agreed, on_end: GuardedAssociation(entity, agreed, on_end)
