"""The bytes of one connection, through one buffer that is used again and again; every wait has a deadline.

The socket stays blocking: one system call reads, and only that one lets other threads of Python run. Deadlines are the
kernel's (SO_RCVTIMEO), set again only when they differ by much. Nothing polls, nothing is copied before its reader has it.
"""

from __future__ import annotations

import mmap
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

#: So large that several PDUs of the default length (128 KiB) come by one read and go by one write. Each call lets other threads
#: of Python run, and with many associations it takes its time to come back: so rather few calls.
_BUFFER_BYTE_COUNT = 2**19
#: From here on it is time to write; later, less would be written while the rest still arrives.
_FILLED_BYTE_COUNT = 2**18

_TIMEVAL = struct.Struct("@ll")
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Stream:
    """Reads by one thread. Every method may raise OSError (ConnectionError when the peer closed)."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        send_timeout_s: float,
        before_reuse: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`before_reuse`: called before the memory of what was taken is used again. `now`: the clock of deadlines, in seconds."""
        connection.settimeout(None)
        self._connection = connection
        self._send_timeout_s = send_timeout_s
        self._before_reuse = before_reuse
        self._now = now
        # Of a bytearray every page would be written to now; of this one only what is used is memory.
        self._buffer = mmap.mmap(-1, _BUFFER_BYTE_COUNT)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0
        self._timeout_s = 0.0
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(send_timeout_s))

    @property
    def empty(self) -> bool:
        """True when everything that was read has been taken."""
        return self._begin == self._end

    def rewind(self) -> None:
        """Nobody uses what was taken any more: the same memory again, which the processor still has at hand."""
        if self.empty:
            self._begin = self._end = 0

    def wait(self, deadline: float) -> None:
        """Returns when there is at least one byte. Raises TimeoutError."""
        if self.empty:
            self._read(deadline)

    def unpack(self, form: struct.Struct, deadline: float) -> tuple[int, ...]:
        """The next few bytes as numbers. Raises TimeoutError."""
        while self._end - self._begin < form.size:
            self._read(deadline)
        values = form.unpack_from(self._buffer, self._begin)
        self._begin += form.size
        return values

    def take(self, byte_count: int, deadline: float) -> memoryview:
        """Of the next `byte_count` bytes those that are there, at least one; valid until reuse. Raises TimeoutError."""
        if self.empty:
            self._read(deadline)
        begin = self._begin
        self._begin = min(self._end, begin + byte_count)
        return self._view[begin : self._begin]

    def send(self, data: bytes) -> None:
        """All of it. Raises TimeoutError for a peer that does not read."""
        deadline = time.monotonic() + self._send_timeout_s
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._connection.send(rest) :]
            except BlockingIOError:
                raise TimeoutError from None
            if rest and time.monotonic() > deadline:
                raise TimeoutError

    def _read(self, deadline: float) -> None:
        """Reads once, as much as there is room for. Raises TimeoutError."""
        if self._end > _FILLED_BYTE_COUNT:
            self._before_reuse()
            rest = self._end - self._begin  # a few bytes: the beginning of a header
            self._view[:rest] = self._view[self._begin : self._end]
            self._begin, self._end = 0, rest
        connection = self._connection
        while True:
            self._arm(deadline - self._now())
            if _QUICK_ACK is not None:
                # Without it a sender that uses Nagle's algorithm, as dcmtk does, waits 40 ms for our ACK in every
                # message. The kernel forgets it by itself.
                connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            with suppress(BlockingIOError):
                count = connection.recv_into(self._view[self._end :])
                if not count:
                    raise ConnectionError("closed by the peer")
                self._end += count
                return

    def _arm(self, left_s: float) -> None:
        """The next read ends after about so long, or earlier, to be tried again. Raises TimeoutError when that is over."""
        if left_s <= 0:
            raise TimeoutError
        if not left_s / 100 <= self._timeout_s <= left_s * 1.1:
            self._timeout_s = left_s
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(left_s))


def say_goodbye(connection: socket.socket, last_word: bytes, *, timeout_s: float) -> None:
    """Sends it and waits a little for the peer to close: closing first, with bytes unread, could destroy it."""
    deadline = time.monotonic() + timeout_s
    with suppress(OSError):
        connection.settimeout(timeout_s)
        connection.sendall(last_word)
        connection.shutdown(socket.SHUT_WR)
        while (left_s := deadline - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not connection.recv(2**16):
                return


def _timeval(seconds: float) -> bytes:
    seconds = max(seconds, 0.001)  # zero would mean: for ever
    return _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
