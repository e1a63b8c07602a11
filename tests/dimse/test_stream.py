"""Bytes of a connection through one buffer: none lost, none twice, however they come; and every wait ends."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from router.dimse.stream import Stream

NUMBER = struct.Struct(">BxL")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs = listener.accept()[0]
    listener.close()
    yield ours, theirs
    ours.close()
    theirs.close()


def soon() -> float:
    return time.monotonic() + 60


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_sizes_of_what_comes_and_of_what_is_taken_every_byte_comes_once(pair, seed: int) -> None:
    ours, theirs = pair
    chance = random.Random(seed)
    sizes = [chance.choice((0, 1, 5, 700, 16_000, 131_066, 700_000)) for _ in range(60)]
    bodies = [chance.randbytes(size) for size in sizes]
    sent = b"".join(NUMBER.pack(4, len(body)) + body for body in bodies)

    def send() -> None:
        position = 0
        while position < len(sent):
            step = chance.choice((1, 3, 10_000, 100_000, 1_000_000))
            theirs.sendall(sent[position : position + step])
            position += step

    sender = threading.Thread(target=send)
    sender.start()
    held: list[memoryview] = []
    copied = bytearray()

    def copy() -> None:
        """As late as it is allowed: what was taken is valid until now."""
        for part in held:
            copied.extend(part)
        held.clear()

    stream = Stream(ours, send_timeout_s=60, before_reuse=copy)
    for number, body in enumerate(bodies):
        kind, length = stream.unpack(NUMBER, soon())
        assert (kind, length) == (4, len(body))
        while length:
            part = stream.take(length, soon())
            assert part
            length -= len(part)
            held.append(part)
        if number % 7 == 0:
            copy()
            stream.rewind()
    copy()
    assert copied == b"".join(bodies)
    assert stream.empty
    sender.join(60)


def test_the_beginning_of_a_number_at_the_end_of_the_memory_is_kept(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.dimse.stream._FILLED_BYTE_COUNT", 100)
    ours, theirs = pair
    stream = Stream(ours, send_timeout_s=60)
    theirs.sendall(bytes(200) + NUMBER.pack(5, 77)[:4])
    while len(ours.recv(204, socket.MSG_PEEK)) < 204:
        pass
    assert len(stream.take(200, soon())) == 200
    theirs.sendall(NUMBER.pack(5, 77)[4:])
    assert stream.unpack(NUMBER, soon()) == (5, 77)


def test_a_wait_ends_at_its_deadline_also_when_bytes_drip(pair) -> None:
    ours, theirs = pair
    stream = Stream(ours, send_timeout_s=60)
    with pytest.raises(TimeoutError):
        stream.wait(time.monotonic() + 0.05)
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.01):
            theirs.send(b"x")

    sender = threading.Thread(target=drip)
    sender.start()
    try:
        with pytest.raises(TimeoutError):
            deadline = time.monotonic() + 0.2
            while stream.take(10**6, deadline):
                pass
    finally:
        stop.set()
        sender.join(60)


def test_a_peer_that_closes_is_noticed_in_the_middle_of_a_number(pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"\4\0\0")
    theirs.close()
    with pytest.raises(ConnectionError):
        Stream(ours, send_timeout_s=60).unpack(NUMBER, soon())


def test_a_peer_that_does_not_read_is_not_waited_for(pair) -> None:
    ours, _ = pair
    with pytest.raises(TimeoutError):
        Stream(ours, send_timeout_s=0.2).send(bytes(50_000_000))
