"""The spool on a local disk: `objects/xx/` for instances, `incoming/` for what nobody keeps.

A file has its name before it has its bytes, and whether it is whole the ledger alone knows: one that no row names was never
acknowledged. Keys are ours: milliseconds since 1970 and 64 random bits, in hexadecimal. Nothing that a peer sent is ever part
of a path.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from router.errors import ConfigError, SpoolDamaged
from router.faults import fault_point
from router.spool.durable import Appending, Disk
from router.spool.group import FolderSync
from router.spool.names import STOCK, EmptyFile, Names

_KEY = re.compile(r"[0-9a-f]{28}")
#: A key that was made so long before its file was whole does not tell the file's age.
_LATE_S = 60.0
#: Longer than any row is on its way.
_FORGOTTEN_S = 86400.0


class FileSpoolWriter:
    """See core.ports.SpoolWriter. Another thread may discard it while one writes: the descriptor may be another file's then."""

    def __init__(
        self,
        file: EmptyFile,
        *,
        disk: Disk,
        finished: Callable[[str, os.stat_result], None],
        remove: Callable[[str], None],
    ) -> None:
        self._file = file
        self._disk = disk
        self._finished = finished
        self._remove = remove
        self._appending = Appending(file.fd, disk)
        self._open = True
        self._lock = threading.RLock()
        fault_point("spool.created")

    def write(self, *parts: bytes | bytearray | memoryview) -> None:
        """Appends. Raises OSError."""
        with self._lock:
            self._needs_open()
            try:
                self._appending.write(*parts)
            except OSError:
                self.discard()
                raise

    def reader(self) -> FileSpoolReader:
        """What has been written so far, from its first byte; until `commit` or `discard`. Raises OSError."""
        with self._lock:
            self._needs_open()
            try:
                self._appending.flush()
            except OSError:
                self.discard()
                raise
        return FileSpoolReader(self)

    def bytes_at(self, position: int, byte_count: int) -> bytes:
        """As many of them as are written out. Raises OSError."""
        with self._lock:
            self._needs_open()
            return os.pread(self._file.fd, byte_count, position)

    def commit(self) -> str:
        """The spool key, once the bytes are durable; its name was before. Raises OSError."""
        with self._lock:
            self._needs_open()
            try:
                self._appending.flush()
                fault_point("spool.written")
                self._disk.sync(self._file.fd)
                fault_point("spool.file_synced")
                status = os.fstat(self._file.fd)
                self._open = False  # whatever close says, the descriptor is gone
                self._disk.close(self._file.fd)
            except OSError:
                self.discard()
                self._remove(self._file.key)
                raise
        self._finished(self._file.key, status)
        return self._file.key

    def discard(self) -> None:
        """Removes every trace of what is not committed; may be called twice. Raises nothing."""
        with self._lock:
            if self._open:
                self._open = False
                with suppress(OSError):
                    self._disk.close(self._file.fd)
                self._remove(self._file.key)

    def _needs_open(self) -> None:
        if not self._open:
            raise ValueError("the file was committed or discarded")


class FileSpoolReader:
    """`core.ports.Readable` by its writer's descriptor: to open the file once more costs as much as to read its header."""

    def __init__(self, writer: FileSpoolWriter) -> None:
        self._writer = writer
        self._position = 0

    def seek(self, position: int, /) -> int:
        """From the beginning of the file."""
        self._position = position
        return position

    def read(self, byte_count: int, /) -> bytes:
        """Fewer at the end. Raises OSError."""
        data = self._writer.bytes_at(self._position, byte_count)
        self._position += len(data)
        return data


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
    return Path(f"{objects}/{key[6:8]}/{key}")  # quicker than two joins, and asked for each instance


class FileSpool:
    """See core.ports.Spool. Holds a lock on its folder until `close`.

    Raises ConfigError when the folder cannot be used or another node uses it.
    """

    def __init__(
        self,
        path: Path,
        *,
        disk: Disk | None = None,
        now_s: Callable[[], float] | None = None,
        names_stock: int = STOCK,
        committed: Callable[[str, os.stat_result], None] = lambda _key, _status: None,
    ) -> None:
        """`committed`: told of each key whose bytes have become durable, and what its file looked like then."""
        self._committed = committed
        self._incoming = path / "incoming"
        self._objects = path / "objects"
        self._root = path
        self._disk = disk or Disk()
        # Keys of files that no row of the ledger can name yet, and of those that had such a key for long: when they were whole.
        self._unfinished: set[str] = set()
        self._late_s: dict[str, float] = {}  # the oldest first
        self._late_lock = threading.Lock()
        self._names = Names(
            new=self._new_name,
            remove=self._take_back,
            disk=self._disk,
            sync_folder=FolderSync(self._disk.sync_folder),
            stock=names_stock,
        )
        # Setting the clock must not make a file old whose row is on its way: its age is what has passed here.
        started_s = time.time() - time.monotonic()
        self._now_s = now_s or (lambda: started_s + time.monotonic())
        self._started_s = self._now_s()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)  # patients' images; one that is there keeps its mode
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
        return FileSpoolWriter(self._names.take(), disk=self._disk, finished=self._finished, remove=self._take_back)

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
        """The key of every instance and its age in seconds, oldest first within a folder; for the janitor, which looks for orphans."""
        for path in self._found():
            yield path.name, max(0.0, self._now_s() - self._since_s(path))

    def remove_unused(self) -> int:
        """Removes empty files that an earlier process made beforehand and left; returns how many. Raises OSError."""
        count = 0
        for path in self._found():
            with suppress(FileNotFoundError):  # a duplicate, which has gone since the folder was read
                if not path.stat().st_size:
                    self._disk.unlink(path)
                    count += 1
        return count

    def close(self) -> None:
        """Releases the lock; another node may take the folder."""
        self._names.close()
        fd, self._lock_fd = self._lock_fd, None
        if fd is not None:
            os.close(fd)

    def _found(self) -> Iterator[Path]:
        """Every file that may be an instance."""
        for folder in sorted(self._objects.iterdir()):
            if not folder.is_dir():
                continue
            for name in sorted(entry.name for entry in folder.iterdir()):
                if _KEY.fullmatch(name) and name not in self._unfinished:
                    yield folder / name

    def _since_s(self, path: Path) -> float:
        """When it was whole. An earlier process may have died while its row was on its way, and had the key for hours before."""
        since_s = self._late_s.get(path.name, int(path.name[:12], 16) / 1000)
        if since_s < self._started_s:
            with suppress(FileNotFoundError):
                since_s = max(since_s, path.stat().st_mtime)
        return since_s

    def _new_name(self) -> tuple[str, Path]:
        key = f"{int(self._now_s() * 1000) & (2**48 - 1):012x}{secrets.token_hex(8)}"
        self._unfinished.add(key)  # before there is a file, so that nobody takes it for an orphan
        return key, self._place(key)

    def _finished(self, key: str, status: os.stat_result) -> None:
        """Its row is on its way now, and its age tells the janitor for how long: the key may be hours old."""
        now_s = self._now_s()
        if now_s - int(key[:12], 16) / 1000 > _LATE_S:
            with self._late_lock:
                self._late_s[key] = now_s
                while now_s - self._late_s[oldest := next(iter(self._late_s))] > _FORGOTTEN_S:
                    del self._late_s[oldest]
        self._unfinished.discard(key)
        self._committed(key, status)

    def _take_back(self, key: str) -> None:
        with suppress(OSError):
            self._disk.unlink(self._place(key))
        self._unfinished.discard(key)

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
        """Folders exist and are durable; what an earlier process made for nobody to keep goes."""
        self._incoming.mkdir(exist_ok=True)
        self._objects.mkdir(exist_ok=True)
        for number in range(256):
            (self._objects / f"{number:02x}").mkdir(exist_ok=True)
        for stale in self._incoming.iterdir():
            with suppress(OSError):
                self._disk.unlink(stale)
        self._disk.sync_folder(self._objects)
        self._disk.sync_folder(self._root)
