"""The files of the audit trail: one message a line, only ever appended to, a new file when one is large or old enough."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_PATTERN = "audit-*.log"


class AuditFolder:
    """Files whose names begin with the time of their first message. Several processes may append to the same one.

    What has a name is never renamed, so that nobody appends to a file that another has put away. Folder and files are for
    this user only.
    """

    def __init__(
        self,
        path: Path,
        *,
        byte_count_max: int,
        age_max_s: float,
        retention_s: float,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._byte_count_max = byte_count_max
        self._age_max_s = age_max_s
        self._retention_s = retention_s
        self._now_s = now_s
        self._torn = False

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.path.glob(_PATTERN))

    def prepare(self) -> None:
        """Makes the folder. Raises OSError, also when nothing can be written there."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        self._forget()

    def append(self, lines: Sequence[bytes]) -> None:
        """Returns once they are durable. Raises OSError; then they may or may not be there, and never half a line with another."""
        data = b"".join(line + b"\n" for line in lines)
        fd, new = self._open()
        try:
            if self._torn:  # the last append broke off within a line
                data = b"\n" + data
            self._torn = True
            while data:
                data = data[os.write(fd, data) :]
            self._torn = False
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._forget()

    def _open(self) -> tuple[int, bool]:
        """A descriptor to append to, and whether its file is new."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        files = self.files()
        if files:
            newest = files[-1]
            with suppress(FileNotFoundError, PermissionError):  # gone, or of a command that another user ran
                age_s = self._now_s() - _begun_s(newest)
                if newest.stat().st_size < self._byte_count_max and age_s < self._age_max_s:
                    return os.open(newest, flags, 0o600), False
        begun = datetime.fromtimestamp(self._now_s(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._torn = False
        return os.open(self.path / f"audit-{begun}-{os.getpid()}.log", flags, 0o600), True

    def _forget(self) -> None:
        """Removes files in which nothing was written for the retention time; never the newest."""
        for path in self.files()[:-1]:
            with suppress(OSError):
                if self._now_s() - path.stat().st_mtime > self._retention_s:
                    path.unlink()


def _begun_s(path: Path) -> float:
    """When its first message was written, by its name; long ago for a name that is not ours."""
    try:
        return datetime.strptime(path.name.split("-")[1], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, IndexError):
        return 0.0
