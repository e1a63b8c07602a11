"""A Storage SCP that discards: as fast as we can make one, so that it is the sender that is measured.

    python -m bench.sink PORT [WINDOW]

One thread for each association; it reads what comes, looks only at heads and commands, and answers Success. When an
association ends it prints a line of JSON: instances, bytes, seconds from the request for the association to its end.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time

from router.dimse.pdu import AssociateRequest, parse_associate_request

_HEAD = struct.Struct(">BxLLBB")
_PDU_HEAD = struct.Struct(">BxL")
_ITEM = struct.Struct(">BxH")
_PDU_BYTE_COUNT_MAX = 131072
_BUFFER_BYTE_COUNT = 2**20
#: So much is read at once where a head may stand; of a longer PDU the rest is thrown away where the system has it.
_READ_BYTE_COUNT = 2**14
_P_DATA_TF, _RELEASE_RQ = 4, 5
_COMMAND, _LAST = 1, 2


def acceptance(request: AssociateRequest, body: bytes, window: int) -> bytes:
    """Takes every context in the first syntax proposed; a window when it is to be granted and is asked for."""
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for context in request.contexts:
        syntax = _item(0x40, context.transfer_syntaxes[0].encode())
        items += _item(0x21, bytes((context.context_id, 0, 0, 0)) + syntax)
    user = _item(0x51, _PDU_BYTE_COUNT_MAX.to_bytes(4, "big")) + _item(0x52, b"1.2.3.4")
    if window > 1 and b"\x53\0\0\4" in body:
        user += _item(0x53, struct.pack(">HH", window, 1))
    items += _item(0x50, user)
    return _PDU_HEAD.pack(2, 68 + len(items)) + body[:68] + items


def success(context_id: int, command: bytes) -> tuple[bytes, bool]:
    """The answer to a C-STORE or C-ECHO request; True when a data set comes first."""
    elements, position = {}, 0
    while position < len(command):
        _, number, length = struct.unpack_from("<HHL", command, position)
        elements[number] = command[position + 8 : position + 8 + length]
        position += 8 + length
    field = struct.unpack("<H", elements[0x0100])[0] | 0x8000
    parts = _element(0x0002, elements[0x0002]) + _element(0x0100, struct.pack("<H", field))
    parts += _element(0x0120, elements[0x0110]) + _element(0x0800, b"\1\1") + _element(0x0900, b"\0\0")
    if 0x1000 in elements:
        parts += _element(0x1000, elements[0x1000])
    body = _element(0, struct.pack("<L", len(parts))) + parts
    head = _HEAD.pack(_P_DATA_TF, len(body) + 6, len(body) + 2, context_id, _COMMAND | _LAST)
    return head + body, elements[0x0800] != b"\1\1"


def serve(peer: socket.socket, window: int) -> None:
    """One association."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    begun = time.perf_counter()
    instance_count = byte_count = 0
    with peer:
        head = _exactly(peer, 6)
        body = _exactly(peer, _PDU_HEAD.unpack(head)[1])
        peer.sendall(acceptance(parse_associate_request(body), body, window))
        buffer = bytearray(_BUFFER_BYTE_COUNT)
        view = memoryview(buffer)
        start = end = 0
        command = b""
        answer = b""
        while True:
            if end - start < _HEAD.size:
                view[: end - start] = view[start:end]
                start, end = 0, end - start
                # A release or abort is shorter than the head of a P-DATA.
                if not (end >= 10 and buffer[0] != _P_DATA_TF):
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                    got = peer.recv_into(view[end:], _READ_BYTE_COUNT)
                    if not got:
                        return
                    end += got
                    continue
            if buffer[start] != _P_DATA_TF:
                if buffer[start] == _RELEASE_RQ:
                    peer.sendall(b"\6\0\0\0\0\4\0\0\0\0")
                break
            _, length, _, context_id, control = _HEAD.unpack_from(buffer, start)
            left = length + 6
            byte_count += left
            if control & _COMMAND:
                while end - start < left:
                    end += _more(peer, view, end)
                command += buffer[start + 12 : start + left]
                start += left
                if control & _LAST:
                    answer, more_comes = success(context_id, command)
                    command = b""
                    if not more_comes:
                        peer.sendall(answer)
                continue
            if left > end - start:
                _discard(peer, view, left - (end - start))
                start = end = 0
            else:
                start += left
            if control & _LAST:
                instance_count += 1
                peer.sendall(answer)
    if instance_count:
        told = {"instances": instance_count, "bytes": byte_count, "seconds": time.perf_counter() - begun}
        sys.stdout.write(f"{json.dumps(told)}\n")  # in one piece: two associations may end together
        sys.stdout.flush()


def _more(peer: socket.socket, view: memoryview, at: int) -> int:
    got = peer.recv_into(view[at:], _READ_BYTE_COUNT)
    if not got:
        raise ConnectionError
    return got


def _discard(peer: socket.socket, view: memoryview, count: int) -> None:
    """Linux copies nothing of TCP's bytes with MSG_TRUNC (tcp(7)), whatever buffer it is given."""
    while count:
        got = peer.recv_into(view, min(count, len(view)), socket.MSG_TRUNC)
        if not got:
            raise ConnectionError
        count -= got


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def _served(peer: socket.socket, window: int) -> None:
    try:
        serve(peer, window)
    except (OSError, ValueError, KeyError):
        return  # a peer that only knocked, or went away


def main(port: int, window: int) -> None:
    """Until it is ended."""
    with socket.create_server(("127.0.0.1", port), backlog=128) as server:
        while True:
            peer, _ = server.accept()
            threading.Thread(target=_served, args=(peer, window), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
