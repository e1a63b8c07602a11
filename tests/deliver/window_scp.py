"""A Storage SCP on a bare socket that lets several C-STOREs wait, and answers them when and in the order that a test says."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from router.dimse.command import Command
from router.dimse.message import MessageAssembler
from router.dimse.pdu import parse_associate_request, presentation_data
from tests.edge.rawpeer import AC, P_DATA, RELEASE_RP, RELEASE_RQ, element, item, p_data, pdu, pdv, us
from tests.peers import HOST


@dataclass(frozen=True)
class Stored:
    """A C-STORE that has come whole."""

    uid: str
    message_id: int
    context_id: int
    data: bytes


def answer(stored: Stored, status: int = 0, *, message_id: int | None = None) -> bytes:
    """A PDV with the response."""
    identifier = stored.message_id if message_id is None else message_id
    parts = element(0x0100, us(0x8001)) + element(0x0120, us(identifier))
    parts += element(0x0800, us(0x0101)) + element(0x0900, us(status))
    return pdv(stored.context_id, 3, element(0x0000, struct.pack("<L", len(parts))) + parts)


#: Given what waits: PDUs to send now, each a list of PDVs, and what of it is answered by them. None: hang up.
Answers = Callable[[Sequence[Stored]], "tuple[list[list[bytes]], list[Stored]] | None"]


def at_once(waiting: Sequence[Stored]) -> tuple[list[list[bytes]], list[Stored]]:
    return [[answer(one)] for one in waiting], list(waiting)


class WindowScp:
    """Every association in a thread of its own, until `stop`."""

    def __init__(self, *, grants: int | None, answers: Answers = at_once, pdu_byte_count_max: int = 16384) -> None:
        self.grants = grants
        self.answers = answers
        self.order: list[str] = []
        """SOP Instance UIDs as they came, those of every association."""
        self.received: dict[str, bytes] = {}
        self.proposed: list[int] = []
        """The window that each association asked for; 0: none."""
        self.outstanding_max = 0
        self.half_count = 0
        """Associations that ended in the middle of a message."""
        self._pdu_byte_count_max = pdu_byte_count_max
        self._server = socket.create_server((HOST, 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self.port = int(self._server.getsockname()[1])

    def stop(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for one in self._open:
            one.close()
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            self._open.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        assembler = MessageAssembler()
        try:
            with peer:
                self._associate(peer)
                self._stores(peer, assembler)
        except OSError:
            pass
        finally:
            self.half_count += assembler.inside

    def _associate(self, peer: socket.socket) -> None:
        _, body = _pdu(peer)
        request = parse_associate_request(body)
        _, found, window = body.partition(b"\x53\0\0\4")
        self.proposed.append(int.from_bytes(window[:2], "big") if found else 0)
        contexts = b"".join(
            item(0x21, bytes((one.context_id, 0, 0, 0)) + item(0x40, one.transfer_syntaxes[0].encode()))
            for one in request.contexts
        )
        user = item(0x51, struct.pack(">L", self._pdu_byte_count_max)) + item(0x52, b"1.2.3.4")
        if self.grants is not None:
            user += item(0x53, struct.pack(">HH", self.grants, 1))
        peer.sendall(pdu(AC, body[:68] + item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + item(0x50, user)))

    def _stores(self, peer: socket.socket, assembler: MessageAssembler) -> None:
        waiting: list[Stored] = []
        command, data = None, bytearray()
        while True:
            kind, body = _pdu(peer)
            if kind == RELEASE_RQ:
                peer.sendall(pdu(RELEASE_RP, b"\0\0\0\0"))
            if kind != P_DATA:
                return
            for context_id, control, fragment in presentation_data(memoryview(body)):
                found = assembler.fragment(context_id, control, fragment)
                if isinstance(found, Command):
                    command = found
                elif found is not None:
                    data += found.data
                if assembler.inside or command is None:
                    continue
                uid = command.affected_sop_instance_uid
                waiting.append(Stored(uid, command.message_id, context_id, bytes(data)))
                self.order.append(uid)
                self.outstanding_max = max(self.outstanding_max, len(waiting))
                command, data = None, bytearray()
                verdict = self.answers(waiting)
                if verdict is None:
                    return
                pdus, answered = verdict
                for one in answered:
                    self.received[one.uid] = one.data
                    waiting.remove(one)
                peer.sendall(b"".join(p_data(*pdvs) for pdvs in pdus))


def _pdu(peer: socket.socket) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxL", _exactly(peer, 6))
    return kind, _exactly(peer, length)


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise ConnectionError
        data += more
    return bytes(data)


@contextmanager
def window_scp(**more: object) -> Iterator[WindowScp]:
    scp = WindowScp(**more)  # type: ignore[arg-type]
    try:
        yield scp
    finally:
        scp.stop()
