"""A message as P-DATA-TF PDUs: the heads are built once and lie between pieces of the data, which nobody copies. Source: PS3.8 9.3.5, Annex E."""

from __future__ import annotations

import io
import mmap
import os
import struct
from collections.abc import Iterator
from typing import Protocol

from router.deliver.connection import Part

_HEAD = struct.Struct(">BxLLBB")
_P_DATA_TF = 0x04
_COMMAND, _LAST = 0x01, 0x02
#: Of a P-DATA-TF PDU, before the fragment's own bytes; a peer's maximum length counts it (PS3.8 D.1.1).
PDV_HEAD_BYTE_COUNT = 6
#: What is read and sent at once, roughly: little enough to stay in a processor's cache meanwhile.
_CHUNK_BYTE_COUNT = 2**18
#: Fragments handed on at once: two buffers each, and Linux takes 1024 in a call.
_FRAGMENTS_MAX = 512
#: A shorter file costs less to read than to map.
_MAPPED_BYTE_COUNT_MIN = 2**18


class Stream(Protocol):
    """Where the bytes of a data set come from: a file, a member of an archive, memory."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fills what it can from the front; 0 at the end."""
        ...


def command_parts(context_id: int, command_set: bytes, *, room: int) -> list[Part]:
    """All PDUs of a command set. `room`: bytes of a fragment, at most."""
    batches = _of_view(memoryview(command_set), context_id, _COMMAND, room, last=True)
    return [part for parts in batches for part in parts]


def data_set_parts(context_id: int, data_set: Stream, *, room: int) -> Iterator[list[Part]]:
    """The PDUs of what is left of a data set, some at a time; each must be sent before the next is asked for.

    A file is sent from the pages where the system has it anyway. Raises OSError of the file, and what its stream raises.
    """
    whole = _whole(data_set)
    if whole is None:
        yield from _of_stream(data_set, context_id, room)
    else:
        yield from _of_view(whole, context_id, 0, room, last=True)


def _of_stream(stream: Stream, context_id: int, room: int) -> Iterator[list[Part]]:
    size = max(1, min(_FRAGMENTS_MAX, _CHUNK_BYTE_COUNT // room)) * room
    here, ahead = bytearray(size), bytearray(size)
    count = _fill(here, stream)
    while True:  # one chunk ahead, because the last one has to be called so
        more = _fill(ahead, stream) if count == size else 0
        yield from _of_view(memoryview(here)[:count], context_id, 0, room, last=not more)
        if not more:
            return
        here, ahead, count = ahead, here, more


def _of_view(view: memoryview, context_id: int, flags: int, room: int, *, last: bool) -> Iterator[list[Part]]:
    """Never more than _FRAGMENTS_MAX fragments at once, and one at least: also of nothing."""
    full = _head(context_id, flags, room)
    parts: list[Part] = []
    end = len(view)
    start = 0
    while end - start > room or (end - start == room and not last):
        parts += (full, view[start : start + room])
        start += room
        if len(parts) >= 2 * _FRAGMENTS_MAX and start < end:
            yield parts
            parts = []
    if last:
        parts += (_head(context_id, flags | _LAST, end - start), view[start:])
    elif start < end:
        parts += (_head(context_id, flags, end - start), view[start:])
    yield parts


def _head(context_id: int, flags: int, count: int) -> bytes:
    return _HEAD.pack(_P_DATA_TF, count + PDV_HEAD_BYTE_COUNT, count + 2, context_id, flags)


def _whole(stream: Stream) -> memoryview | None:
    """What is left of a stream, as memory; None where that would have to be read piece by piece.

    A long file is mapped. Only the kernel looks at its pages, while it sends: one that cannot be read is an error there, not
    a signal.
    """
    if isinstance(stream, io.BytesIO):
        return stream.getbuffer()[stream.tell() :]
    if not isinstance(stream, io.BufferedReader | io.FileIO):
        return None
    start, byte_count = stream.tell(), os.fstat(stream.fileno()).st_size
    if byte_count - start < _MAPPED_BYTE_COUNT_MIN:
        return memoryview(stream.read())
    try:
        return memoryview(mmap.mmap(stream.fileno(), byte_count, access=mmap.ACCESS_READ))[start:]
    except OSError:  # a file system that cannot do it
        return None


def _fill(buffer: bytearray, stream: Stream) -> int:
    """Reads as much as fits; returns how much that was."""
    view = memoryview(buffer)
    count = 0
    while count < len(view):
        got = stream.readinto(view[count:])
        if not got:
            break
        count += got
    return count
