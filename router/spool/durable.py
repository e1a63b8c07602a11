"""The one way a file becomes durable: temporary file, fsync, rename, fsync of the folder.

A file under its final name is always complete. A failed fsync is never tried again: the kernel may have dropped the
pages that it could not write, so that a second fsync would succeed and mean nothing (what PostgreSQL learnt in 2018).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from router.faults import fault_point

#: Small writes are gathered up to this; larger ones go to the disk as they are, without another copy.
_GATHERED_BYTE_COUNT = 2**18
_LARGE_BYTE_COUNT = 2**16


class Disk:
    """The calls that a durable write consists of: the seam at which a test makes each of them fail."""

    def create(self, path: Path) -> int:
        """A file descriptor for reading and writing of a file that did not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def write(self, fd: int, data: bytes | bytearray | memoryview) -> int:
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        os.fsync(fd)

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


class DurableFile:
    """A file being written under a temporary name; `commit` gives it its final name, `discard` removes every trace.

    Every method but `discard` may raise OSError; after that only `discard` does anything, and it has been called already.
    """

    def __init__(
        self,
        *,
        temporary: Path,
        final: Path | Callable[[], Path],
        disk: Disk,
        sync_folder: Callable[[Path], None] | None = None,
    ) -> None:
        """`final`: its name, or what gives it one in `commit`. `sync_folder`: the disk's, or one that many share."""
        self._temporary = temporary
        self._final = final
        self._disk = disk
        self._sync_folder = sync_folder or disk.sync_folder
        self._gathered = bytearray()
        self._fd: int | None = disk.create(temporary)
        fault_point("spool.created")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Appends."""
        fd = self._open_fd()
        if len(data) < _LARGE_BYTE_COUNT:
            self._gathered += data
            if len(self._gathered) < _GATHERED_BYTE_COUNT:
                return
            data = b""
        try:
            self._flush(fd)
            self._write_all(fd, data)
        except OSError:
            self.discard()
            raise

    def duplicate(self) -> int:
        """A file descriptor of its own on everything written so far, at the start of the file; the caller closes it."""
        fd = self._open_fd()
        try:
            self._flush(fd)
            # Not dup(): that would share the file position with the writer.
            return os.open(self._temporary, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.discard()
            raise

    def commit(self) -> None:
        """Returns once content and name are durable."""
        fd = self._open_fd()
        try:
            self._flush(fd)
            fault_point("spool.written")
            self._disk.sync(fd)
            fault_point("spool.file_synced")
            self._fd = None  # whatever close says, the descriptor is gone
            self._disk.close(fd)
            final = self._final() if callable(self._final) else self._final
            self._disk.rename(self._temporary, final)
            fault_point("spool.renamed")
        except OSError:
            self.discard()
            raise
        try:
            self._sync_folder(final.parent)
            fault_point("spool.folder_synced")
        except OSError:
            with suppress(OSError):
                self._disk.unlink(final)
            raise

    def discard(self) -> None:
        """Removes the temporary file. Raises nothing: what cannot be removed now is removed at the next start."""
        fd, self._fd = self._fd, None
        self._gathered = bytearray()
        if fd is not None:
            with suppress(OSError):
                self._disk.close(fd)
        with suppress(OSError):
            self._disk.unlink(self._temporary)

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError("the file was committed or discarded")
        return self._fd

    def _flush(self, fd: int) -> None:
        gathered, self._gathered = self._gathered, bytearray()
        self._write_all(fd, gathered)

    def _write_all(self, fd: int, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._disk.write(fd, rest) :]
