"""A scripted requestor on a bare socket: sends any bytes, right or wrong, and says what came back."""

from __future__ import annotations

import socket
import struct
import time
from typing import Self

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

RJ, AC, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 3, 2, 4, 5, 6, 7


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    return struct.pack(">BxL", kind, len(body) if length is None else length) + body


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def context(identifier: int, abstract: str, *syntaxes: str) -> bytes:
    inner = item(0x30, abstract.encode()) + b"".join(item(0x40, s.encode()) for s in syntaxes)
    return item(0x20, bytes((identifier, 0, 0, 0)) + inner)


def associate(
    *contexts: bytes,
    called: bytes = b"ROUTER",
    calling: bytes = b"RAW",
    application: str = "1.2.840.10008.3.1.1.1",
    version: int = 1,
    maximum: int = 16384,
    user: bytes = b"",
) -> bytes:
    contexts = contexts or (context(1, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT))
    body = struct.pack(">HH16s16s32x", version, 0, called.ljust(16), calling.ljust(16))
    body += item(0x10, application.encode()) + b"".join(contexts)
    body += item(0x50, item(0x51, struct.pack(">L", maximum)) + item(0x52, b"1.2.3.4") + user)
    return pdu(1, body)


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def command(
    field: int, message_id: int = 1, *, data: bool = False, sop_class: str | None = None, more: bytes = b""
) -> bytes:
    parts = b""
    if sop_class is not None:
        value = sop_class.encode()
        parts += element(0x0002, value + b"\0" * (len(value) % 2))
    parts += (
        element(0x0100, us(field)) + element(0x0110, us(message_id)) + element(0x0800, us(0x0001 if data else 0x0101))
    )
    return element(0x0000, struct.pack("<L", len(parts + more))) + parts + more


def store_command(uid: str | bytes, *, sop_class: str = CT, message_id: int = 1) -> bytes:
    value = uid.encode() if isinstance(uid, str) else uid
    value += b"\0" * (len(value) % 2)
    return command(1, message_id, data=True, sop_class=sop_class, more=element(0x0700, us(0)) + element(0x1000, value))


ECHO = command(0x0030, sop_class=VERIFICATION)


def pdv(context_id: int, control: int, data: bytes, *, length: int | None = None) -> bytes:
    return struct.pack(">LBB", len(data) + 2 if length is None else length, context_id, control) + data


def p_data(*pdvs: bytes) -> bytes:
    return pdu(P_DATA, b"".join(pdvs))


def store(
    uid: str | bytes, data: bytes, *, context_id: int = 1, sop_class: str = CT, message_id: int = 1, step: int = 16000
) -> bytes:
    """The PDUs of a whole C-STORE-RQ."""
    out = p_data(pdv(context_id, 3, store_command(uid, sop_class=sop_class, message_id=message_id)))
    for start in range(0, max(1, len(data)), step):
        out += p_data(pdv(context_id, 2 if start + step >= len(data) else 0, data[start : start + step]))
    return out


class RawPeer:
    """One TCP connection; every wait ends at a deadline."""

    def __init__(self, port: int, *, deadline_s: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=deadline_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadline_s = deadline_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> None:
        self.socket.sendall(b"".join(data))

    def associated(self, *contexts: bytes, **facts) -> dict[int, tuple[int, str]]:
        """Asks for an association; presentation context ID -> result, transfer syntax. Fails when it is not accepted."""
        self.send(associate(*contexts, **facts))
        kind, body = self.pdu()
        assert kind == AC, f"PDU type {kind}: {body!r}"
        answers, position = {}, 68
        while position < len(body):
            tag, length = struct.unpack_from(">BxH", body, position)
            value = body[position + 4 : position + 4 + length]
            if tag == 0x21:
                answers[value[0]] = (value[2], value[8:].decode())
            position += 4 + length
        return answers

    def exactly(self, count: int) -> bytes:
        self.socket.settimeout(self._deadline_s)
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError(f"closed after {data!r}")
            data += more
        return data

    def pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self.exactly(6))
        return kind, self.exactly(length)

    def response(self) -> dict[int, bytes]:
        """The elements of the next response command. Fails on anything else."""
        raw = b""
        while True:
            kind, body = self.pdu()
            assert kind == P_DATA, f"PDU type {kind}: {body!r}"
            raw += body[6:]
            if body[5] & 2:
                break
        elements, position = {}, 0
        while position < len(raw):
            _, number, length = struct.unpack_from("<HHL", raw, position)
            elements[number] = raw[position + 8 : position + 8 + length]
            position += 8 + length
        return elements

    def status(self) -> int:
        return int.from_bytes(self.response()[0x0900], "little")

    def ending(self) -> str:
        """How the other side ends the connection: «abort», «reject R S D» or «closed»; fails when it does not."""
        end = time.monotonic() + self._deadline_s
        said = "closed"
        try:
            while time.monotonic() < end:
                kind, body = self.pdu()
                if kind == ABORT:
                    said = "abort"
                elif kind == RJ:
                    said = f"reject {body[1]} {body[2]} {body[3]}"
        except (ConnectionError, BrokenPipeError):
            return said
        raise AssertionError("still open")
