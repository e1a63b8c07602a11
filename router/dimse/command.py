"""Command sets from and to bytes. Source: PS3.7 6.3, Annex E (Implicit VR Little Endian, group 0000 only)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from router.core.admission import valid_uid
from router.dimse.pdu import ProtocolError
from router.dimse.status import ERROR_COMMENT_LENGTH_MAX

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP, N_ACTION_RQ = 0x0100, 0x8100, 0x0130
_RESPONSE = 0x8000
_DATA_SET, _NO_DATA_SET = 0x0001, 0x0101

_ELEMENT = struct.Struct("<HHL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A request or response, as far as we heed it; UIDs are empty text and numbers None where absent."""

    field: int
    message_id: int
    has_data_set: bool
    affected_sop_class_uid: str = ""
    affected_sop_instance_uid: str = ""
    requested_sop_class_uid: str = ""
    requested_sop_instance_uid: str = ""
    event_type: int | None = None
    action_type: int | None = None
    status: int | None = None

    @property
    def is_response(self) -> bool:
        """True for what answers a request of ours."""
        return bool(self.field & _RESPONSE)


def parse_command(data: bytes | bytearray) -> Command:
    """Raises ProtocolError for what is no command set, or lacks what every command must have."""
    values: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise ProtocolError("a command set is cut off")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += 8
        if group != 0 or length > len(data) - position:
            raise ProtocolError("a command set holds what is no command element")
        if element in values:
            raise ProtocolError("a command set holds an element twice")
        values[element] = bytes(data[position : position + length])
        position += length
    field = _number(values, 0x0100, "Command Field")
    return Command(
        field=field,
        # A C-CANCEL-RQ has only the ID of what it cancels.
        message_id=_number(values, 0x0120 if field & _RESPONSE or field == C_CANCEL_RQ else 0x0110, "Message ID"),
        has_data_set=_number(values, 0x0800, "Command Data Set Type") != _NO_DATA_SET,
        affected_sop_class_uid=_uid(values, 0x0002),
        affected_sop_instance_uid=_uid(values, 0x1000),
        requested_sop_class_uid=_uid(values, 0x0003),
        requested_sop_instance_uid=_uid(values, 0x1001),
        event_type=_optional(values, 0x1002),
        action_type=_optional(values, 0x1008),
        status=_optional(values, 0x0900),
    )


def encode_response(command: Command, *, status: int, comment: str = "") -> bytes:
    """The command set that answers a request, without a data set; a comment is cut to what its VR holds.

    A UID of the request that breaks the rules for UIDs is not repeated.
    """
    elements = {
        0x0100: struct.pack("<H", command.field | _RESPONSE),
        0x0120: struct.pack("<H", command.message_id),
        0x0800: struct.pack("<H", _NO_DATA_SET),
        0x0900: struct.pack("<H", status),
    }
    # What a request calls requested, its response calls affected (PS3.7 10.3).
    for element, uid in (
        (0x0002, command.affected_sop_class_uid or command.requested_sop_class_uid),
        (0x1000, command.affected_sop_instance_uid or command.requested_sop_instance_uid),
    ):
        if valid_uid(uid):
            elements[element] = _even(uid.encode(), b"\0")
    for element, number in ((0x1002, command.event_type), (0x1008, command.action_type)):
        if number is not None:
            elements[element] = struct.pack("<H", number)
    if comment:
        text = comment.encode("ascii", "replace").replace(b"\\", b"/")[:ERROR_COMMENT_LENGTH_MAX]
        elements[0x0902] = _even(text, b" ")
    return _command_set(elements)


def encode_action(
    *, message_id: int, sop_class_uid: str, sop_instance_uid: str, action_type: int, has_data_set: bool = True
) -> bytes:
    """The command set of an N-ACTION-RQ. Source: PS3.7 Table 10.3-7."""
    return _command_set(
        {
            0x0003: _even(sop_class_uid.encode(), b"\0"),
            0x0100: struct.pack("<H", N_ACTION_RQ),
            0x0110: struct.pack("<H", message_id),
            0x0800: struct.pack("<H", _DATA_SET if has_data_set else _NO_DATA_SET),
            0x1001: _even(sop_instance_uid.encode(), b"\0"),
            0x1008: struct.pack("<H", action_type),
        }
    )


def encode_event_report(*, message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int) -> bytes:
    """The command set of an N-EVENT-REPORT-RQ that a data set follows. Source: PS3.7 Table 10.3-1."""
    return _command_set(
        {
            0x0002: _even(sop_class_uid.encode(), b"\0"),
            0x0100: struct.pack("<H", N_EVENT_REPORT_RQ),
            0x0110: struct.pack("<H", message_id),
            0x0800: struct.pack("<H", _DATA_SET),
            0x1000: _even(sop_instance_uid.encode(), b"\0"),
            0x1002: struct.pack("<H", event_type),
        }
    )


def _command_set(elements: dict[int, bytes]) -> bytes:
    body = b"".join(_ELEMENT.pack(0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(body)) + body


def _number(values: dict[int, bytes], element: int, name: str) -> int:
    value = values.get(element, b"")
    if len(value) != 2:
        raise ProtocolError(f"a command set has no {name}")
    return int.from_bytes(value, "little")


def _optional(values: dict[int, bytes], element: int) -> int | None:
    value = values.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _uid(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("latin_1").rstrip("\0 ")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value
