"""The spool on a local disk: `incoming/` for what is being written, `objects/xx/` for what is durable.

Keys are ours: milliseconds since 1970 and 64 random bits, in hexadecimal. Nothing that a peer sent is ever part of a path.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from router.errors import ConfigError, SpoolDamaged
from router.spool.durable import Disk, DurableFile
from router.spool.group import FolderSync

_KEY = re.compile(r"[0-9a-f]{28}")


class FileSpoolWriter:
    """See core.ports.SpoolWriter."""

    def __init__(
        self,
        *,
        temporary: Path,
        new_key: Callable[[], str],
        place: Callable[[str], Path],
        disk: Disk,
        sync_folder: Callable[[Path], None],
    ) -> None:
        self._new_key = new_key
        self._place = place
        self._key = ""
        self._file = DurableFile(temporary=temporary, final=self._final, disk=disk, sync_folder=sync_folder)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Appends. Raises OSError."""
        self._file.write(data)

    def reader(self) -> BinaryIO:
        """What has been written so far, from its first byte; the caller closes it. Raises OSError."""
        return os.fdopen(self._file.duplicate(), "rb", buffering=0)

    def commit(self) -> str:
        """The spool key, once file and folder are synced. Raises OSError."""
        self._file.commit()
        return self._key

    def discard(self) -> None:
        """Removes every trace of what is not committed; may be called twice."""
        self._file.discard()

    def _final(self) -> Path:
        # Only now: its age tells the janitor how long its row may still be on the way, and to receive it may take hours.
        self._key = self._new_key()
        return self._place(self._key)


def spooled_path(root: Path, spool_key: str) -> Path:
    """Where a spool key's file lies, for a command that only reads beside the node: no lock is taken.

    Raises SpoolDamaged for a key that is not ours or a file that is gone.
    """
    place = _place(root / "objects", spool_key)
    try:
        there = stat.S_ISREG(place.stat().st_mode)
    except FileNotFoundError:
        there = False
    except OSError as error:
        raise SpoolDamaged(f"spool file {spool_key} cannot be read: {error.strerror}") from error
    if not there:
        raise SpoolDamaged(f"spool file {spool_key} is gone")
    return place


def delete_spooled(root: Path, spool_keys: Iterable[str]) -> None:
    """Removes files for good, for a command beside the node; those that are gone already are no error. Raises OSError."""
    places = [_place(root / "objects", key) for key in spool_keys]
    for place in places:
        place.unlink(missing_ok=True)
    for folder in sorted({place.parent for place in places}):
        if folder.is_dir():
            Disk().sync_folder(folder)


def _place(objects: Path, key: str) -> Path:
    if not _KEY.fullmatch(key):
        raise SpoolDamaged("not a spool key")
    # The folder changes every 65 s: what is committed together lies together, so that one folder sync can serve all,
    # and over the hours files still spread evenly.
    return objects / key[6:8] / key


class FileSpool:
    """See core.ports.Spool. Holds a lock on its folder until `close`.

    Raises ConfigError when the folder cannot be used or another node uses it.
    """

    def __init__(self, path: Path, *, disk: Disk | None = None, now_s: Callable[[], float] | None = None) -> None:
        self._incoming = path / "incoming"
        self._objects = path / "objects"
        self._root = path
        self._disk = disk or Disk()
        self._sync_folder = FolderSync(self._disk.sync_folder)
        # Setting the clock must not make a file old whose row is on its way: its age is what has passed here.
        started_s = time.time() - time.monotonic()
        self._now_s = now_s or (lambda: started_s + time.monotonic())
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock_fd: int | None = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError([f"spool.path: {path} cannot be used: {error.strerror}"]) from error
        try:
            self._take_lock()
            self._prepare()
        except OSError as error:
            self.close()
            raise ConfigError([f"spool.path: {path} cannot be used: {error.strerror}"]) from error
        except ConfigError:
            self.close()
            raise

    def writer(self) -> FileSpoolWriter:
        """A new instance on its way to the disk. Raises OSError."""
        return FileSpoolWriter(
            temporary=self._incoming / secrets.token_hex(14),
            new_key=self._new_key,
            place=self._place,
            disk=self._disk,
            sync_folder=self._sync_folder,
        )

    def put(self, data: bytes) -> str:
        """The key of a whole DICOM file, once it is durable. Raises OSError."""
        writer = self.writer()
        writer.write(data)
        return writer.commit()

    def path(self, spool_key: str) -> Path:
        """Of a DICOM file. Raises SpoolDamaged for a key that is not ours or a file that is gone."""
        return spooled_path(self._root, spool_key)

    def delete(self, spool_key: str) -> None:
        """Frees the bytes; a file that is gone already is no error. Raises OSError, SpoolDamaged for a foreign key."""
        self._disk.unlink(self._place(spool_key))

    def scratch(self) -> Path:
        """Where a file may be made that nobody keeps: its maker removes it, or else our next start."""
        return self._incoming / f"scratch-{secrets.token_hex(8)}"

    def free_byte_count(self) -> int:
        """Of the file system, as far as this user may fill it. Raises OSError."""
        free = os.statvfs(self._root)
        return free.f_bavail * free.f_frsize

    def keys(self) -> Iterator[tuple[str, float]]:
        """Every key and its age in seconds, oldest first within a folder; for the janitor, which looks for orphans."""
        for folder in sorted(self._objects.iterdir()):
            if not folder.is_dir():
                continue
            for name in sorted(entry.name for entry in folder.iterdir()):
                if _KEY.fullmatch(name):
                    yield name, max(0.0, self._now_s() - int(name[:12], 16) / 1000)

    def close(self) -> None:
        """Releases the lock; another node may take the folder."""
        fd, self._lock_fd = self._lock_fd, None
        if fd is not None:
            os.close(fd)

    def _new_key(self) -> str:
        return f"{int(self._now_s() * 1000) & (2**48 - 1):012x}{secrets.token_hex(8)}"

    def _place(self, key: str) -> Path:
        return _place(self._objects, key)

    def _take_lock(self) -> None:
        assert self._lock_fd is not None
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._lock_fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            told = (
                f"{self._root} is in use by another node (process {holder}); each node needs a spool folder of its own"
            )
            raise ConfigError([f"spool.path: {told}"]) from error
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)

    def _prepare(self) -> None:
        """Folders exist and are durable; what an earlier process left half-written was never acknowledged and goes."""
        self._incoming.mkdir(exist_ok=True)
        self._objects.mkdir(exist_ok=True)
        for number in range(256):
            (self._objects / f"{number:02x}").mkdir(exist_ok=True)
        for stale in self._incoming.iterdir():
            with suppress(OSError):
                self._disk.unlink(stale)
        self._disk.sync_folder(self._objects)
        self._disk.sync_folder(self._root)
