"""Audit messages by syslog over TLS. A receiver that is slow or away holds up nobody: the queue is bounded and losses are counted.

Sources: RFC 5424 (message), RFC 5425 (TLS, framing by length), PS3.15 A.6.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from router.observe.log import emit

QUEUE_MAX = 10_000
_PRIORITY = 10 * 8 + 5  # facility «security/authorization», severity «notice»
_MESSAGE_ID = "DICOM+RFC3881"
_TIMEOUT_S = 10.0
_PAUSE_FIRST_S, _PAUSE_MAX_S = 1.0, 60.0
_BOM = b"\xef\xbb\xbf"


def frame(message: bytes, *, host: str, application: str, process_id: int, at: datetime) -> bytes:
    """The octets of one message on the wire: its length, a space, a syslog message."""
    stamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = f"<{_PRIORITY}>1 {stamp} {_word(host, 255)} {_word(application, 48)} {process_id} {_MESSAGE_ID} - "
    line = head.encode("ascii") + _BOM + message
    return f"{len(line)} ".encode("ascii") + line


def tls_context(
    *, ca_file: Path | None, certificate_file: Path | None = None, key_file: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.2 or newer, the receiver's certificate and name checked; our certificate when it asks for one. Raises OSError."""
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate_file is not None:
        context.load_cert_chain(certificate_file, key_file)
    return context


class SyslogSender:
    """A thread with one connection. `offer` never waits."""

    def __init__(self, *, host: str, port: int, context: ssl.SSLContext, queue_max: int = QUEUE_MAX) -> None:
        self._address = (host, port)
        self._context = context
        self._queue_max = queue_max
        self._queue: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._lost_count = 0
        self._trouble = ""
        self._connection: ssl.SSLSocket | None = None
        self._own_name = socket.gethostname()
        self._thread = threading.Thread(target=self._run, name="audit-syslog", daemon=True)
        self._thread.start()

    @property
    def lost_count(self) -> int:
        """Messages that were given up since the start; the files have them."""
        with self._changed:
            return self._lost_count

    @property
    def waiting_count(self) -> int:
        """Messages that the receiver has not had yet."""
        with self._changed:
            return len(self._queue)

    @property
    def trouble(self) -> str:
        """Why nothing goes out; empty when it does."""
        with self._changed:
            return self._trouble

    def offer(self, message: bytes) -> None:
        """Puts a message at the end of the queue; when that is full, the oldest is lost."""
        framed = frame(message, host=self._own_name, application="router", process_id=os.getpid(), at=datetime.now(UTC))
        with self._changed:
            if len(self._queue) >= self._queue_max:
                self._queue.popleft()
                self._lost_count += 1
            self._queue.append(framed)
            self._changed.notify_all()

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Sends what waits, as far as the time allows; the rest is lost and counted."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            self._lost_count += len(self._queue)
            left, self._queue = len(self._queue), deque()
        if left:
            emit("audit.syslog_lost", level=logging.WARNING, count=left)

    def _run(self) -> None:
        pause_s = _PAUSE_FIRST_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    break
                message = self._queue[0]
            try:
                self._send(message)
            except OSError as error:
                self._disconnect()
                if not self._pause_after(error, pause_s):
                    break
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
                continue
            pause_s = _PAUSE_FIRST_S
            self._sent(message)
        self._disconnect()

    def _send(self, message: bytes) -> None:
        if self._connection is not None and _is_over(self._connection):
            self._disconnect()
        if self._connection is None:
            plain = socket.create_connection(self._address, timeout=_TIMEOUT_S)
            try:
                self._connection = self._context.wrap_socket(plain, server_hostname=self._address[0])
            except BaseException:
                plain.close()
                raise
        self._connection.sendall(message)

    def _sent(self, message: bytes) -> None:
        with self._changed:
            if self._queue and self._queue[0] is message:  # unless it was pushed out meanwhile
                self._queue.popleft()
            news, self._trouble = bool(self._trouble), ""
        if news:
            emit("audit.syslog_up")

    def _pause_after(self, error: OSError, pause_s: float) -> bool:
        """False when there is no time left to try again."""
        reason = error.strerror or type(error).__name__
        with self._changed:
            news, self._trouble = not self._trouble, reason
            lost_count = self._lost_count
        if news:
            emit("audit.syslog_down", level=logging.WARNING, reason=reason, lost_count=lost_count)
        with self._changed:
            return not self._changed.wait_for(lambda: self._closing, pause_s)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_over(connection: ssl.SSLSocket) -> bool:
    """Whether the receiver has hung up: syslog has no answers, so what were sent then would be lost without a word."""
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except (ssl.SSLWantReadError, BlockingIOError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(_TIMEOUT_S)


def _word(text: str, length_max: int) -> str:
    """A field of the header: printable ASCII without spaces."""
    return "".join(c if "!" <= c <= "~" else "-" for c in text)[:length_max] or "-"
