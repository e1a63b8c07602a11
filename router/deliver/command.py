"""DIMSE command sets of a Storage SCU: C-STORE-RQ and C-ECHO-RQ out, their responses in.

Command sets are implicit VR little endian (PS3.7 6.3.1); elements are those of PS3.7 9.3.1 and 9.3.5.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
_RESPONSE = 0x8000
_NO_DATA_SET = 0x0101
_WITH_DATA_SET = 0x0001
_PRIORITY_MEDIUM = 0x0000
VERIFICATION = "1.2.840.10008.1.1"


class NotAResponse(ValueError):
    """The peer sent a command set that is no response to what we asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a peer answered."""

    message_id: int
    """Of the request."""
    status: int
    comment: str
    """Error Comment (0000,0902): the peer's words; may quote values of elements, so it is never logged."""


def c_store_rq(*, message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """A C-STORE request that a data set follows. Source: PS3.7 Table 9.3-1."""
    return _command(
        _uid(0x0002, sop_class_uid)
        + _us(0x0100, C_STORE_RQ)
        + _us(0x0110, message_id)
        + _us(0x0700, _PRIORITY_MEDIUM)
        + _us(0x0800, _WITH_DATA_SET)
        + _uid(0x1000, sop_instance_uid)
    )


def c_echo_rq(*, message_id: int) -> bytes:
    """A C-ECHO request. Source: PS3.7 Table 9.3-12."""
    return _command(
        _uid(0x0002, VERIFICATION) + _us(0x0100, C_ECHO_RQ) + _us(0x0110, message_id) + _us(0x0800, _NO_DATA_SET)
    )


def parse_response(command_set: bytes, *, requests: Mapping[int, int]) -> Response:
    """The response in a command set. `requests`: Message ID -> command field of what waits for its answer.

    Raises NotAResponse when it is none, or one to something else.
    """
    elements = _elements(command_set)
    message_id = _number(elements, 0x0120)
    if message_id is None or message_id not in requests:
        raise NotAResponse("it is no response to anything that was asked")
    expected = requests[message_id] | _RESPONSE
    if _number(elements, 0x0100) != expected:
        raise NotAResponse(f"expected the response {expected:#06x}, it is another command")
    status = _number(elements, 0x0900)
    if status is None:
        raise NotAResponse("the response has no status")
    comment = elements.get(0x0902, b"").decode("ascii", "replace").strip(" \0")
    return Response(
        message_id=message_id, status=status, comment="".join(c if c.isprintable() else "?" for c in comment)[:200]
    )


def _command(elements: bytes) -> bytes:
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def _us(element: int, value: int) -> bytes:
    return struct.pack("<HHLH", 0, element, 2, value)


def _uid(element: int, value: str) -> bytes:
    data = value.encode("ascii")
    data += b"\0" * (len(data) % 2)
    return struct.pack("<HHL", 0, element, len(data)) + data


def _elements(command_set: bytes) -> dict[int, bytes]:
    """Element number -> value, of group 0000."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 8 <= len(command_set):
        group, element, length = struct.unpack_from("<HHL", command_set, offset)
        offset += 8
        if group != 0 or offset + length > len(command_set):
            raise NotAResponse("the command set is damaged")
        found[element] = command_set[offset : offset + length]
        offset += length
    return found


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None
