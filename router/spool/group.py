"""One sync of a folder for all who wait for it: the names of many files become durable together.

Whoever comes while nobody syncs does it at once, so that one association alone waits for nothing. Whoever comes while a
sync runs waits for the next one, because the running one may have begun before their file had its name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True, eq=False)
class _Round:
    """One sync and those who wait for it."""

    before: _Round | None
    over: threading.Event = field(default_factory=threading.Event)
    error: OSError | None = None


class FolderSync:
    """Syncs folders, each once at a time."""

    def __init__(self, sync: Callable[[Path], None]) -> None:
        """`sync`: makes the names in a folder durable, or raises OSError."""
        self._sync = sync
        self._lock = threading.Lock()
        self._running: dict[Path, _Round] = {}
        self._next: dict[Path, _Round] = {}

    def __call__(self, folder: Path) -> None:
        """Returns after a sync of the folder that began after this call. Raises OSError when that one failed.

        A failed one is never tried again for those who waited for it: see `spool.durable`.
        """
        with self._lock:
            mine = self._next.get(folder)
            leads = mine is None
            if mine is None:
                mine = _Round(self._running.get(folder))
                if mine.before is None:
                    self._running[folder] = mine
                else:
                    self._next[folder] = mine
        if leads:
            self._lead(folder, mine)
        else:
            mine.over.wait()
        if mine.error is not None:
            # One of its own for each: a traceback that many threads add to would tell nobody anything.
            raise OSError(*mine.error.args) from mine.error

    def _lead(self, folder: Path, mine: _Round) -> None:
        if mine.before is not None:
            mine.before.over.wait()
            with self._lock:  # from here on it is too late to join
                self._running[folder] = self._next.pop(folder)
            mine.before = None
        try:
            self._sync(folder)
        except OSError as error:
            mine.error = error
        except BaseException:
            mine.error = OSError("the folder was not synced")
            raise
        finally:
            with self._lock:
                if self._running.get(folder) is mine:
                    del self._running[folder]
            mine.over.set()
