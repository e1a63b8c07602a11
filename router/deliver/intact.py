"""The spooled bytes, checked against what was received: nobody gets the whole of an instance that is not what came in.

A file that this process received a short while ago, and that nobody has touched since, is not read twice for that: its digest
was computed while it came in.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

from router.core.digest import parsed
from router.core.ports import Delivery
from router.deliver.fragments import Stream
from router.deliver.fresh import mark_of
from router.errors import SpoolDamaged, TransientError

_CHUNK_BYTE_COUNT = 2**20
#: A shorter data set is read and checked as a whole.
_WHOLE_BYTE_COUNT_MAX = 2**20
_NOT_OF_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@contextmanager
def intact(delivery: Delivery) -> Iterator[io.FileIO]:
    """The delivery's file, open at the first byte of its data set, after it was found to be what was received.

    Raises SpoolDamaged; TransientError when this process can open no more files. A disk that changes bits is rare; a changed image in an archive is for ever.
    """
    with _opened(delivery) as file:
        if _untouched(file, delivery):
            yield file
            return
        offset = file.tell()
        checked, buffer = _Checked(file, delivery), memoryview(bytearray(_CHUNK_BYTE_COUNT))
        while checked.readinto(buffer):
            pass
        file.seek(offset)
        yield file


@contextmanager
def intact_to_its_end(delivery: Delivery) -> Iterator[Stream]:
    """The data set as a stream that is read once and in order; the end of it is given out only when all was found right.

    So a long one can be on its way to a peer while it is checked: what lacks its end is no instance to anybody. A short one
    is checked before. Raises SpoolDamaged, here or when it is read; TransientError when this process can open no more files.
    """
    with _opened(delivery) as file:
        if _untouched(file, delivery):
            yield file
            return
        checked = _Checked(file, delivery)
        if delivery.instance.byte_count > _WHOLE_BYTE_COUNT_MAX:
            yield checked
        else:
            yield io.BytesIO(checked.read_all())


@contextmanager
def _opened(delivery: Delivery) -> Iterator[io.FileIO]:
    """The file, at the first byte of its data set."""
    instance = delivery.instance
    try:
        file = delivery.path.open("rb", buffering=0)
    except OSError as error:
        if error.errno in _NOT_OF_THE_FILE:
            raise TransientError(f"no spool file can be opened now: {error.strerror}") from error
        raise SpoolDamaged(f"spool file {instance.spool_key} cannot be read: {error.strerror}") from error
    with file:
        offset = file.seek(0, io.SEEK_END) - instance.byte_count
        if offset < 0:
            raise SpoolDamaged(f"spool file {instance.spool_key} is shorter than what was received")
        file.seek(offset)
        yield file


def _untouched(file: io.FileIO, delivery: Delivery) -> bool:
    return delivery.received_as is not None and mark_of(os.fstat(file.fileno())) == delivery.received_as


class _Checked:
    """Reads a data set to its end, and keeps the last bytes back until the digest of all of it is right."""

    def __init__(self, file: io.FileIO, delivery: Delivery) -> None:
        self._file = file
        self._instance = delivery.instance
        self._left = delivery.instance.byte_count
        self._digest = parsed(delivery.instance.digest)
        self._hasher = self._digest.hasher()

    def readinto(self, buffer: memoryview, /) -> int:
        """Raises SpoolDamaged."""
        some = buffer[: self._left]
        if not some:
            return 0
        key = self._instance.spool_key
        try:
            count = self._file.readinto(some)
        except OSError as error:
            raise SpoolDamaged(f"spool file {key} cannot be read: {error.strerror}") from error
        if not count:
            raise SpoolDamaged(f"spool file {key} is shorter than what was received")
        self._hasher.update(some[:count])
        self._left -= count
        if not self._left and self._hasher.text() != self._instance.digest:
            raise SpoolDamaged(f"spool file {key} is not what was received: its {self._digest.name} differs")
        return count

    def read_all(self) -> bytearray:
        """What is left. Raises SpoolDamaged."""
        data = bytearray(self._left)
        view = memoryview(data)
        while count := self.readinto(view):
            view = view[count:]
        return data
