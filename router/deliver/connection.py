"""A TCP connection to a peer on which nothing waits for ever: parts out by `sendmsg`, whole PDUs in, each with a deadline."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Sequence

from router.deliver.answers import closed, silent, unreachable
from router.errors import PeerUnreachable

PDU_HEAD = struct.Struct(">BxL")
A_ABORT = 0x07
#: Our own responses are far smaller; a peer's are, too.
RECEIVED_PDU_BYTE_COUNT_MAX = 65536
#: Buffers of one `sendmsg`: Linux takes 1024 (IOV_MAX).
_PARTS_MAX = 1024
#: A peer has to take this much within its response time.
_PACE_BYTE_COUNT = 2**17
_RECEIVE_BYTE_COUNT = 65536
#: Linux only. A peer with Nagle's algorithm sends the second half of its answer when we have acknowledged the first, which
#: we would delay by 40 ms.
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", None)
_NEWS = select.POLLIN | select.POLLHUP | select.POLLERR

Part = bytes | bytearray | memoryview


class Connection:
    """Every method raises PeerUnreachable, in words, when the peer goes away or takes or says nothing in time."""

    def __init__(self, *, host: str, port: int, connect_timeout_s: float, response_timeout_s: float) -> None:
        """Opens it."""
        self.host = host
        self.port = port
        self._response_timeout_s = response_timeout_s
        self._heard = bytearray()
        """Received and not yet read."""
        try:
            self._socket = socket.create_connection((host, port), connect_timeout_s)
        except OSError as error:
            raise unreachable(error, host=host, port=port) from error
        # Nagle and the peer's delayed ACK together cost 40 ms for each instance.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._poll.register(self._socket, _NEWS)

    def send(self, parts: Sequence[Part], *, more: bool = False) -> None:
        """All of it. `more`: the next call continues it, so that no packet goes out for this alone.

        Raises OSError (EFAULT) when a part is a file in memory that can no longer be read.
        """
        left = sum(map(len, parts))
        deadline = time.monotonic() + self._response_timeout_s
        taken, first, flags = 0, 0, socket.MSG_MORE if more else 0
        rest = list(parts)
        while left:
            taken += (sent := self._send_some(rest[first : first + _PARTS_MAX], deadline, flags))
            left -= sent
            while sent and sent >= len(rest[first]):
                sent -= len(rest[first])
                first += 1
            if sent:
                rest[first] = memoryview(rest[first])[sent:]
            if taken >= _PACE_BYTE_COUNT:
                taken, deadline = 0, time.monotonic() + self._response_timeout_s

    def pdu(
        self, what: str, deadline: float, *, byte_count_max: int = RECEIVED_PDU_BYTE_COUNT_MAX
    ) -> tuple[int, bytes]:
        """Type and body of the next PDU, whole before the deadline; an A-ABORT raises. `what` the peer has to do, in words."""
        self._hear(PDU_HEAD.size, what, deadline)
        kind, length = PDU_HEAD.unpack_from(self._heard)
        if not 1 <= kind <= A_ABORT or length > byte_count_max:
            raise self.odd("DICOM, or a PDU of the length we allow")
        end = PDU_HEAD.size + length
        self._hear(end, what, deadline)
        body = bytes(memoryview(self._heard)[PDU_HEAD.size : end])
        del self._heard[:end]
        if kind == A_ABORT:
            by = "the peer itself" if len(body) > 2 and body[2] == 0 else "its protocol layer"
            raise PeerUnreachable(f"{self.where} aborted the association ({by})")
        return kind, body

    def said_something(self) -> bool:
        """True when the peer has sent anything that was not read, or has gone."""
        return bool(self._heard) or bool(self._poll.poll(0))

    def say_and_close(self, last_words: bytes) -> None:
        """Closes it; what the peer should still hear is sent if that needs no waiting. Raises nothing."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(0.5)
            self._socket.sendall(last_words)
        self.close()

    def close(self) -> None:
        """May be called twice."""
        self._socket.close()

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.host}:{self.port}"

    def odd(self, instead_of: str) -> PeerUnreachable:
        """What to raise when the peer sends something else."""
        return PeerUnreachable(f"{self.where} sent something that is not {instead_of}")

    def _send_some(self, parts: Sequence[Part], deadline: float, flags: int) -> int:
        try:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            return self._socket.sendmsg(parts, (), flags)
        except TimeoutError as error:
            raise silent(
                host=self.host, port=self.port, what="take more data", timeout_s=self._response_timeout_s
            ) from error
        except OSError as error:
            if error.errno == errno.EFAULT:
                raise
            raise closed(host=self.host, port=self.port, when="while we were sending") from error

    def _hear(self, count: int, what: str, deadline: float) -> None:
        """Until `count` bytes wait to be read."""
        while len(self._heard) < count:
            left_s = deadline - time.monotonic()
            try:
                if left_s <= 0:
                    raise TimeoutError
                self._socket.settimeout(left_s)
                if _QUICK_ACK is not None:  # the kernel forgets it now and then
                    self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
                some = self._socket.recv(_RECEIVE_BYTE_COUNT)
            except TimeoutError as error:
                raise silent(host=self.host, port=self.port, what=what, timeout_s=self._response_timeout_s) from error
            except OSError as error:
                raise unreachable(error, host=self.host, port=self.port) from error
            if not some:
                raise closed(host=self.host, port=self.port, when="instead of an answer")
            self._heard += some
