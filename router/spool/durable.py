"""How a file becomes durable where nothing else says whether it is whole: temporary file, sync, rename, sync of the folder.

A file under its final name is always complete. (In the spool the ledger says so: see `spool.files`.) A failed sync is never tried again: the kernel may have dropped the
pages that it could not write, so that a second fsync would succeed and mean nothing (what PostgreSQL learnt in 2018).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: Small writes are gathered up to this; larger ones go to the disk as they are, without another copy.
_GATHERED_BYTE_COUNT = 2**18
_LARGE_BYTE_COUNT = 2**16
#: The system takes 1024 at once; copying as many small ones costs less than telling where each lies.
_PARTS_MAX = 64
#: The disk begins with so many bytes while more of them arrive: then the sync at the end has little left to wait for.
_BEGUN_BYTE_COUNT = 2**18
_PAGE_BYTE_COUNT = 2**12


class Disk:
    """The calls that a durable write consists of: the seam at which a test makes each of them fail."""

    def create(self, path: Path) -> int:
        """A file descriptor for reading and writing of a file that did not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def write(self, fd: int, parts: Sequence[bytes | bytearray | memoryview]) -> int:
        """One after the other; how many bytes of them were written."""
        return os.writev(fd, parts)

    def begin_sync(self, fd: int, begin: int, end: int) -> None:
        """Lets the system begin to write these bytes, and waits for nothing; what fails, the sync tells.

        POSIX_FADV_DONTNEED is Linux's way to say so that Python has: it starts the writing, and drops only what is written.
        """
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(fd, begin, end - begin, os.POSIX_FADV_DONTNEED)

    def sync(self, fd: int) -> None:
        """Content and length; times may be forgotten."""
        os.fdatasync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def sync_folder(self, path: Path) -> None:
        """Makes names in a folder durable: without it a rename may be forgotten, on ext4 too (seen: 99 of 501)."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)


class Appending:
    """Appends to a file descriptor. Small writes are gathered, so that not each of them is a call of the system."""

    def __init__(self, fd: int, disk: Disk) -> None:
        self._fd = fd
        self._disk = disk
        self._gathered = bytearray()
        self._written_byte_count = 0
        self._begun_byte_count = 0

    def write(self, *parts: bytes | bytearray | memoryview) -> None:
        """Raises OSError."""
        if len(parts) > _PARTS_MAX or sum(map(len, parts)) < _LARGE_BYTE_COUNT:
            for part in parts:
                self._gathered += part
            if len(self._gathered) >= _GATHERED_BYTE_COUNT:
                self.flush()
        else:
            gathered, self._gathered = self._gathered, bytearray()
            self._write_all([gathered, *parts])

    def flush(self) -> None:
        """Everything is the system's. Raises OSError."""
        if self._gathered:
            gathered, self._gathered = self._gathered, bytearray()
            self._write_all([gathered])

    def _write_all(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        byte_count = sum(map(len, parts))
        while (written := self._disk.write(self._fd, parts)) < byte_count:
            parts = _after(parts, written)
            byte_count -= written
            self._written_byte_count += written
        self._written_byte_count += written
        whole = self._written_byte_count // _PAGE_BYTE_COUNT * _PAGE_BYTE_COUNT  # the last page may still be written to
        if whole - self._begun_byte_count >= _BEGUN_BYTE_COUNT:
            self._disk.begin_sync(self._fd, self._begun_byte_count, whole)
            self._begun_byte_count = whole


def _after(parts: Sequence[bytes | bytearray | memoryview], byte_count: int) -> list[memoryview]:
    """What is left of the parts behind so many bytes."""
    rest = []
    for part in parts:
        if byte_count < len(part):
            rest.append(memoryview(part)[byte_count:])
        byte_count = max(0, byte_count - len(part))
    return rest


class DurableFile:
    """A file being written under a temporary name; `commit` gives it its final name, `discard` removes every trace.

    Every method but `discard` may raise OSError; after that only `discard` does anything, and it has been called already.
    """

    def __init__(self, *, temporary: Path, final: Path, disk: Disk) -> None:
        self._temporary = temporary
        self._final = final
        self._disk = disk
        self._fd: int | None = disk.create(temporary)
        self._appending = Appending(self._fd, disk)

    def write(self, *parts: bytes | bytearray | memoryview) -> None:
        """Appends."""
        self._open_fd()
        try:
            self._appending.write(*parts)
        except OSError:
            self.discard()
            raise

    def commit(self) -> None:
        """Returns once content and name are durable."""
        fd = self._open_fd()
        try:
            self._appending.flush()
            self._disk.sync(fd)
            self._fd = None  # whatever close says, the descriptor is gone
            self._disk.close(fd)
            self._disk.rename(self._temporary, self._final)
        except OSError:
            self.discard()
            raise
        try:
            self._disk.sync_folder(self._final.parent)
        except OSError:
            with suppress(OSError):
                self._disk.unlink(self._final)
            raise

    def discard(self) -> None:
        """Removes the temporary file. Raises nothing: what cannot be removed now is left behind."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                self._disk.close(fd)
        with suppress(OSError):
            self._disk.unlink(self._temporary)

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError("the file was committed or discarded")
        return self._fd
