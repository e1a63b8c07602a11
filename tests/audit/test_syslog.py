"""Audit messages by syslog over TLS, to a receiver of this test's own; openssl makes its certificate."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

from router.audit import events
from router.audit.syslog import SyslogSender, frame, tls_context
from router.audit.trail import AuditTrail, open_trail
from router.settings import AuditSettings
from tests import peers
from tests.peers import wait_until

DEADLINE_S = 60
NODE = events.Node(ae_title="ROUTER", pid=1)


class Receiver:
    """Takes frames (RFC 5425 4.3) and keeps the messages in them. Stopped and started again on the same port."""

    def __init__(self, certificate: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self.messages: list[bytes] = []
        self.port = peers.free_port()
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            self._connections.append(plain)
            threading.Thread(target=self._read, args=(plain,), daemon=True).start()

    def _read(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as connection, connection.makefile("rb") as stream:
                self._connections.append(connection)
                while True:
                    digits = b""
                    while (one := stream.read(1)) not in (b" ", b""):
                        digits += one
                    if not digits:
                        return
                    self.messages.append(stream.read(int(digits)))
        except OSError:
            return


@pytest.fixture
def receiver(certificate: Path) -> Iterator[Receiver]:
    made = Receiver(certificate)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def open_audit(tmp_path: Path, receiver: Receiver, certificate: Path) -> Iterator[Callable[..., AuditTrail]]:
    opened: list[AuditTrail] = []

    def open_it(**more: object) -> AuditTrail:
        syslog = {"host": "localhost", "port": receiver.port, "ca_file": str(certificate), **more}
        settings = AuditSettings.model_validate({"folder": str(tmp_path / "audit"), "syslog": syslog})
        opened.append(open_trail(settings, ae_title="ROUTER"))
        return opened[-1]

    yield open_it
    for trail in opened:
        trail.close()


def record(trail: AuditTrail, name: str) -> None:
    trail.record(events.signed_in(NODE, events.Person(name=name)))


def test_a_frame_is_the_length_in_octets_a_space_and_a_syslog_message() -> None:
    at = datetime(2026, 11, 22, 4, 5, 6, 789000, tzinfo=UTC)
    data = frame("<é/>".encode(), host="röntgen pc", application="router", process_id=7, at=at)
    length, _, line = data.partition(b" ")
    assert int(length) == len(line)
    head, message = line.split(b"\xef\xbb\xbf")
    assert head == b"<85>1 2026-11-22T04:05:06.789Z r-ntgen-pc router 7 DICOM+RFC3881 - "
    assert message == "<é/>".encode()


def test_every_message_arrives_over_tls_as_it_stands_in_the_file(
    open_audit: Callable[..., AuditTrail], receiver: Receiver, tmp_path: Path
) -> None:
    trail = open_audit()
    for name in ("anna", "otto", "jürgen"):
        record(trail, name)
    wait_until(lambda: len(receiver.messages) == 3, DEADLINE_S)
    lines = b"".join(path.read_bytes() for path in (tmp_path / "audit").glob("*.log")).splitlines()
    assert [message.split(b"\xef\xbb\xbf")[1] for message in receiver.messages] == lines
    for message in receiver.messages:
        assert re.match(rb"<85>1 \S+ \S+ router \d+ DICOM\+RFC3881 - ", message)
        etree.fromstring(message.split(b"\xef\xbb\xbf")[1])
    wait_until(lambda: trail.syslog_waiting_count == 0, DEADLINE_S)
    assert (trail.syslog_lost_count, trail.syslog_trouble) == (0, "")


def test_a_receiver_that_is_away_gets_everything_when_it_is_back(
    open_audit: Callable[..., AuditTrail], receiver: Receiver
) -> None:
    trail = open_audit()
    record(trail, "first")
    wait_until(lambda: len(receiver.messages) == 1, DEADLINE_S)
    receiver.stop()
    record(trail, "second")
    record(trail, "third")
    wait_until(lambda: trail.syslog_trouble, DEADLINE_S)
    assert trail.syslog_waiting_count == 2
    receiver.start()
    wait_until(lambda: len(receiver.messages) == 3, DEADLINE_S)
    assert [name in message for name, message in zip((b"first", b"second", b"third"), receiver.messages, strict=True)]
    wait_until(lambda: trail.syslog_trouble == "", DEADLINE_S)


def test_a_receiver_with_a_certificate_that_nobody_vouches_for_gets_nothing(
    open_audit: Callable[..., AuditTrail], receiver: Receiver
) -> None:
    trail = open_audit(ca_file=None)
    record(trail, "anna")
    assert "CERTIFICATE_VERIFY_FAILED" in wait_until(lambda: trail.syslog_trouble, DEADLINE_S)
    assert receiver.messages == []


def test_a_receiver_of_another_name_gets_nothing(open_audit: Callable[..., AuditTrail], receiver: Receiver) -> None:
    trail = open_audit(host="127.0.0.1")
    record(trail, "anna")
    assert wait_until(lambda: trail.syslog_trouble, DEADLINE_S)
    assert receiver.messages == []


def test_a_receiver_that_takes_nothing_holds_nobody_up_and_what_is_lost_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word of TLS
        sender = SyslogSender(
            host="127.0.0.1", port=silent.getsockname()[1], context=tls_context(ca_file=None), queue_max=10
        )
        for number in range(25):
            sender.offer(b"<%d/>" % number)
        assert (sender.waiting_count, sender.lost_count) == (10, 15)
    sender.close(timeout_s=0.1)
    assert sender.lost_count == 25
