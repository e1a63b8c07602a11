"""A web server and a mail server of the tests' own, both real; openssl makes their certificate."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests import peers

HOST = "127.0.0.1"
USER, PASSWORD = "router", "hush-4711"
DEADLINE_S = 60


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate for localhost and its key, in one PEM file."""
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    key, certificate = folder / "key.pem", folder / "cert.pem"
    done = peers.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
        "-addext", names, "-keyout", key, "-out", certificate,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate


def _server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class Hooks:
    """Takes POSTs and keeps them; answers `status` and `answer`."""

    def __init__(self, *, port: int = 0, certificate: Path | None = None) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.status = 204
        self.answer = b""
        self.location = ""
        hooks = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hooks.paths.append(self.path)
                hooks.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(hooks.status)
                if hooks.location:
                    self.send_header("Location", hooks.location)
                self.end_headers()
                self.wfile.write(hooks.answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, port), Handler)
        if certificate is not None:
            self._server.socket = _server_context(certificate).wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.taken]

    def of(self, event: str) -> list[dict[str, Any]]:
        """What came of one event."""
        return [message for message in self.messages if message["event"] == event]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Mails:
    """A mail server; who signs in must be `USER`."""

    def __init__(self, certificate: Path, *, tls: str = "starttls", port: int | None = None) -> None:
        self.taken: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.signed_in = 0
        self.refuse: dict[str, str] = {}
        """Recipient -> what is answered to it."""
        self.answer = "250 OK"
        context = _server_context(certificate)
        self._controller = Controller(
            self,
            hostname=HOST,
            port=port or peers.free_port(),
            ready_timeout=DEADLINE_S,
            authenticator=self._authenticate,
            auth_required=tls != "none",
            auth_require_tls=tls == "starttls",  # it does not see TLS that was there from the beginning
            tls_context=context if tls == "starttls" else None,
            require_starttls=tls == "starttls",
            ssl_context=context if tls == "tls" else None,
        )
        self._controller.start()
        self.port = int(self._controller.port)

    def _authenticate(self, _server: Any, _session: Any, _envelope: Any, _way: str, given: Any) -> AuthResult:
        good = isinstance(given, LoginPassword) and (given.login, given.password) == (USER.encode(), PASSWORD.encode())
        self.signed_in += good
        return AuthResult(success=good, handled=False)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.answer.startswith("250"):
            message = message_from_bytes(envelope.content, policy=default)
            assert isinstance(message, EmailMessage)
            self.taken.append(message)
            self.recipients.append(list(envelope.rcpt_tos))
        return self.answer

    def __enter__(self) -> Mails:
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


@contextmanager
def dripping() -> Iterator[int]:
    """The port of a server that answers one byte at a time and never comes to an end."""
    over = threading.Event()
    listener = socket.create_server((HOST, 0))

    def drip() -> None:
        line, _ = listener.accept()
        with line:
            while not over.wait(0.02):
                try:
                    line.sendall(b"2")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        over.set()
        thread.join()
        listener.close()
