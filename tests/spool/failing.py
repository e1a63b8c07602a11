"""A disk on which one call fails."""

from __future__ import annotations

import errno
from pathlib import Path

from router.spool.durable import Disk


class FailingDisk(Disk):
    """Writes down every call; the one named `fails` raises OSError instead of doing anything, each time."""

    def __init__(self, fails: str = "", number: int = errno.EIO) -> None:
        self.calls: list[str] = []
        self.fails = fails
        self._number = number

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise OSError(self._number, "made to fail")

    def create(self, path: Path) -> int:
        self._call("create")
        return super().create(path)

    def write(self, fd, parts) -> int:
        self._call("write")
        return super().write(fd, parts)

    def sync(self, fd: int) -> None:
        self._call("sync")
        super().sync(fd)

    def close(self, fd: int) -> None:
        super().close(fd)  # the system closes it and then reports the error
        self._call("close")

    def rename(self, source: Path, target: Path) -> None:
        self._call("rename")
        super().rename(source, target)

    def sync_folder(self, path: Path) -> None:
        self._call("sync_folder")
        super().sync_folder(path)

    def unlink(self, path: Path) -> None:
        self._call("unlink")
        super().unlink(path)
