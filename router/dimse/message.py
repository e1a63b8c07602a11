"""Fragments put together to messages, within limits. No I/O: bytes in, what they mean out. Source: PS3.7 6.3, PS3.8 Annex E."""

from __future__ import annotations

from dataclasses import dataclass

from router.dimse.command import Command, parse_command
from router.dimse.pdu import ProtocolError

#: A real command set has some 300 bytes.
COMMAND_BYTE_COUNT_MAX = 2**16

_COMMAND, _LAST = 1, 2


@dataclass(frozen=True, slots=True)
class DataSetPart:
    """Some bytes of the data set that follows the last command; `data` is valid until its memory is used again."""

    data: memoryview
    last: bool


class MessageAssembler:
    """One direction of one association. `inside` is true while a message has begun and is not complete."""

    def __init__(self) -> None:
        self._command = bytearray()
        self._context_id: int | None = None
        self._wants_data_set = False

    @property
    def inside(self) -> bool:
        """True between the first fragment of a message and its last."""
        return self._context_id is not None

    def fragment(self, context_id: int, control: int, data: memoryview) -> Command | DataSetPart | None:
        """What this fragment completes: a command, a part of a data set, or nothing yet. Raises ProtocolError."""
        if self._context_id is not None and context_id != self._context_id:
            raise ProtocolError("fragments of one message on two presentation contexts")
        last = bool(control & _LAST)
        if not control & _COMMAND:
            if not self._wants_data_set:
                raise ProtocolError("a data set without a command that announces it")
            if last:
                self._context_id, self._wants_data_set = None, False
            return DataSetPart(data, last)
        if self._wants_data_set:
            raise ProtocolError("a command where a data set belongs")
        self._context_id = context_id
        if len(self._command) + len(data) > COMMAND_BYTE_COUNT_MAX:
            raise ProtocolError(f"a command set is longer than {COMMAND_BYTE_COUNT_MAX} bytes")
        self._command += data
        if not last:
            return None
        raw, self._command = self._command, bytearray()
        command = parse_command(raw)
        self._wants_data_set = command.has_data_set
        if not command.has_data_set:
            self._context_id = None
        return command
