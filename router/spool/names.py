"""Names made beforehand: empty files whose names are durable already, so that nobody waits for a sync of their folder.

A sync of a folder costs as much as one of a file, and an instance that is received would wait for both. Here one sync serves
many names, in a thread of its own. Whoever comes when none is left makes one and waits for its folder.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from router.spool.durable import Disk
from router.spool.group import FolderSync

#: As many as arrive while a folder is synced, and some; each keeps a file descriptor.
STOCK = 32
#: After a disk made none: whoever took one meanwhile may have asked for more before we listened again.
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class EmptyFile:
    """Nobody else's, open for reading and writing."""

    key: str
    path: Path
    fd: int


class Names:
    """Empty files under names that are durable. Any number of threads may take."""

    def __init__(
        self,
        *,
        new: Callable[[], tuple[str, Path]],
        remove: Callable[[str], None],
        disk: Disk,
        sync_folder: FolderSync,
        stock: int = STOCK,
    ) -> None:
        """`new`: a key that never was, and where its file belongs; `remove`: takes it back with its file, and raises nothing."""
        self._new = new
        self._remove_file = remove
        self._disk = disk
        self._sync_folder = sync_folder
        self._count = stock
        self._changed = threading.Condition()
        self._stock: deque[EmptyFile] = deque()
        self._closed = False
        self._thread: threading.Thread | None = None

    def take(self) -> EmptyFile:
        """The caller's from now on. Raises OSError."""
        with self._changed:
            if len(self._stock) <= self._count // 2:
                self._order()
            if self._stock:
                return self._stock.popleft()
        (made,) = self._make(1)
        return made

    def close(self) -> None:
        """Removes what nobody took."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        with self._changed:
            left, self._stock = self._stock, deque()
        for one in left:
            self._remove(one)

    def _order(self) -> None:
        """The lock is held. Only a node that receives has the thread, and it begins with the first instance."""
        if self._count and self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="spool-names", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and len(self._stock) > self._count // 2:
                    self._changed.wait()
                if self._closed:
                    return
                missing = self._count - len(self._stock)
            try:
                made = self._make(missing)
            except OSError:  # who takes the next one tries for himself, and tells his sender
                with self._changed:
                    if not self._closed:
                        self._changed.wait(_AGAIN_S)
                continue
            with self._changed:
                self._stock.extend(made)

    def _make(self, count: int) -> list[EmptyFile]:
        """Raises OSError, and leaves nothing then."""
        made: list[EmptyFile] = []
        try:
            for _ in range(count):
                key, path = self._new()
                try:
                    made.append(EmptyFile(key, path, self._disk.create(path)))
                except BaseException:
                    self._remove_file(key)
                    raise
            for folder in {one.path.parent for one in made}:
                self._sync_folder(folder)
        except BaseException:
            for one in made:
                self._remove(one)
            raise
        return made

    def _remove(self, one: EmptyFile) -> None:
        with suppress(OSError):
            os.close(one.fd)
        self._remove_file(one.key)
