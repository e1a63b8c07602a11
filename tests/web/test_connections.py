"""Whoever sends or reads slowly, or opens too many connections, is cut off; everybody else is answered meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from router.settings import WebSettings
from router.web.connections import ConnectionLimits
from router.web.server import WebServer
from tests.peers import HOST, wait_until

LARGE = 64 * 2**20
Started = Callable[..., WebServer]
READING = threading.Event()
"""Set when a form has begun to come."""


@pytest.fixture
def start() -> Iterator[Started]:
    """start(**limits): pages that answer «yes» to `/`, much to `/large`, and to `/form` when it is whole."""
    servers: list[WebServer] = []

    async def form(request: Request) -> PlainTextResponse:
        READING.set()
        return PlainTextResponse(str(len(await request.body())))

    app = Starlette(
        routes=[
            Route("/", lambda _: PlainTextResponse("yes")),
            Route("/large", lambda _: PlainTextResponse(b"x" * LARGE)),
            Route("/form", form, methods=["POST"]),
        ]
    )

    def make(*, certificate: Path | None = None, **limits: object) -> WebServer:
        settings = WebSettings.model_validate({"request_timeout_s": 2, "answer_timeout_s": 0.5, **limits})
        servers.append(
            WebServer(
                app,
                host=HOST,
                port=0,
                certificate_file=certificate,
                key_file=certificate,
                limits=ConnectionLimits.of(settings),
            )
        )
        servers[-1].start()
        wait_until(lambda: asked(servers[-1]) if not certificate else accepts(servers[-1]), 60)
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def asked(server: WebServer) -> str:
    """What somebody with a connection of their own is answered; nothing when the server does not answer."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    with contextlib.suppress(ConnectionError):
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().read().decode()
    return ""


def accepts(server: WebServer) -> bool:
    with contextlib.suppress(ConnectionError), connected(server):
        return True
    return False


def connected(server: WebServer) -> socket.socket:
    return socket.create_connection((HOST, server.port), timeout=60)


def ended(peer: socket.socket) -> bool:
    """True when the other side has ended it; waits for that."""
    try:
        return peer.recv(1) == b""
    except ConnectionError:
        return True


class Dripper(threading.Thread):
    """Sends a head byte by byte, for as long as anybody takes it."""

    def __init__(self, server: WebServer) -> None:
        super().__init__(daemon=True)
        self.peer = connected(server)
        self.stopped = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            self.peer.sendall(b"GET / HTTP/1.1\r\nX: ")
            while not self.stopped.is_set():
                self.peer.sendall(b"x")
                time.sleep(0.05)


def test_a_dripping_client_is_cut_off_and_others_are_answered_meanwhile(start: Started) -> None:
    server = start()
    dripper = Dripper(server)
    dripper.start()
    try:
        assert asked(server) == "yes"
        assert ended(dripper.peer)
        assert asked(server) == "yes"
    finally:
        dripper.stopped.set()
        dripper.join(60)
        dripper.peer.close()


def test_a_client_that_says_nothing_is_cut_off(start: Started) -> None:
    with connected(start()) as peer:
        assert ended(peer)


def test_a_client_that_does_not_take_its_answer_is_cut_off(start: Started) -> None:
    server = start()
    with connected(server) as peer:
        peer.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        taken = len(peer.recv(1000))
        wait_until(lambda: not server._server.server_state.connections, 60)
        with contextlib.suppress(ConnectionError):
            while more := len(peer.recv(2**20)):
                taken += more
        assert 0 < taken < LARGE


def test_a_client_that_takes_a_large_answer_gets_all_of_it(start: Started) -> None:
    server = start(answer_timeout_s=60)
    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    connection.request("GET", "/large")
    assert len(connection.getresponse().read()) == LARGE
    connection.close()


def test_a_request_in_hand_is_not_held_to_the_time_of_a_head(start: Started) -> None:
    """Its body is the form's matter, which has a time of its own."""
    with connected(start()) as peer:
        peer.sendall(b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        for byte in b"body":
            time.sleep(0.7)  # not for a signal: all four take longer than a head may
            peer.sendall(bytes([byte]))
        assert peer.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("limit", ["connections_max", "connections_per_peer_max"])
def test_whoever_waits_longest_makes_room_for_one_more(start: Started, limit: str) -> None:
    server = start(request_timeout_s=600, **{limit: 3})
    with connected(server) as oldest, connected(server) as older, connected(server) as newest:
        assert asked(server) == "yes"
        assert ended(oldest)
        for peer in (older, newest):
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert peer.recv(1000).startswith(b"HTTP/1.1 200")


def test_where_all_are_being_answered_one_more_is_told_to_come_again(start: Started) -> None:
    server = start(connections_max=1)
    with connected(server) as busy:
        READING.clear()
        busy.sendall(b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        assert READING.wait(60)
        with connected(server) as second:
            told = second.recv(1000)
            assert told.startswith(b"HTTP/1.1 503")
            assert ended(second)
        busy.sendall(b"x")
        assert busy.recv(1000).startswith(b"HTTP/1.1 200")


def test_behind_a_trusted_proxy_all_come_from_one_address(start: Started) -> None:
    server = start(request_timeout_s=600, connections_per_peer_max=1, trusted_proxy={"hosts": [HOST]})
    with connected(server) as first, connected(server) as second:
        for peer in (first, second):
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert peer.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_tls_handshake_that_does_not_go_on_is_cut_off(start: Started, certificate: Path) -> None:
    server = start(certificate=certificate)
    with connected(server) as silent:
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection("localhost", server.port, timeout=60, context=context)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"yes"
        connection.close()
        assert ended(silent)


def test_an_answer_does_not_wait_for_an_acknowledgement(start: Started) -> None:
    """40 ms for every page on a connection that was used before: Nagle's algorithm."""
    server = start(request_timeout_s=600)
    with connected(server) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peer.recv(1000).startswith(b"HTTP/1.1 200")
        (connection,) = server._server.server_state.connections
        assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
