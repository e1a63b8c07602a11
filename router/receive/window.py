"""The encoded data set as a window that only moves forward: of a file, or of what a deflated file inflates to.

A walk asks for the bytes at a position; what lies between is skipped (a file) or inflated and thrown away (a deflated
one), so that memory does not grow with the data set.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from router.core.admission import CANNOT_UNDERSTAND
from router.core.ports import Readable
from router.errors import RefusedError

#: A whole header of a radiograph usually lies within this.
_READ_BYTE_COUNT = 2**15
_INFLATE_BYTE_COUNT = 2**18
#: Of everything inflated: a file of 1 MB can inflate to 1 GB, and whoever receives it from us would have to do it too.
INFLATED_BYTE_COUNT_MAX = 2**29
#: PS3.5 A.5 pads a deflated data set to an even length; some writers add a little more.
_DEFLATE_TAIL_MAX = 16


class Window(Protocol):
    """Bytes at positions that never decrease."""

    end: int
    """No data at or after this position: exact for a file, an upper limit for a deflated one."""

    def load(self, position: int, byte_count: int = _READ_BYTE_COUNT) -> bytes:
        """The bytes from `position` on: about `byte_count` of them, none only at the end. Raises RefusedError, OSError."""
        ...


class FileWindow:
    """The data set as it lies in a file."""

    def __init__(self, file: Readable, *, offset: int, byte_count: int) -> None:
        self._file = file
        self._offset = offset
        self.end = byte_count

    def load(self, position: int, byte_count: int = _READ_BYTE_COUNT) -> bytes:
        """See Window.load."""
        self._file.seek(self._offset + position)
        return self._file.read(min(byte_count, self.end - position))


class InflatedWindow:
    """What a deflated data set inflates to (PS3.5 A.5: a raw RFC 1951 stream).

    Only as far as it is asked for: nobody asks for anything at or after `end`, so that a bomb goes off no further.
    """

    def __init__(self, file: Readable, *, offset: int, byte_count: int) -> None:
        self._file = file
        self._file.seek(offset)
        self._unread = byte_count
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._held = b""
        self._held_at = 0
        self.end = INFLATED_BYTE_COUNT_MAX

    def load(self, position: int, byte_count: int = _READ_BYTE_COUNT) -> bytes:
        """See Window.load."""
        while True:
            index = position - self._held_at
            if index + byte_count <= len(self._held):
                break
            more = self._more()
            if not more:
                break
            if index >= len(self._held):
                self._held_at += len(self._held)
                self._held = more
            else:
                self._held = self._held[index:] + more
                self._held_at = position
        return self._held[position - self._held_at :] if position >= self._held_at else b""

    def _more(self) -> bytes:
        """The next inflated bytes; none at the end of the stream."""
        while not self._inflate.eof:
            raw = self._inflate.unconsumed_tail
            if not raw:
                raw = self._file.read(min(_INFLATE_BYTE_COUNT, self._unread))
                self._unread -= len(raw)
                if not raw:
                    raise RefusedError("the deflated data set is cut off", status=CANNOT_UNDERSTAND)
            try:
                more = self._inflate.decompress(raw, _INFLATE_BYTE_COUNT)
            except zlib.error as error:
                raise RefusedError("the deflated data set is broken", status=CANNOT_UNDERSTAND) from error
            if more:
                return more
        self.end = self._held_at + len(self._held)
        if len(self._inflate.unused_data) + self._unread > _DEFLATE_TAIL_MAX:
            raise RefusedError("bytes follow the end of the deflated data set", status=CANNOT_UNDERSTAND)
        return b""
