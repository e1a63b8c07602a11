"""Files that this process received a short while ago: what was hashed on its way in need not be hashed again on its way out."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from router.core.instance import SopInstance
from router.core.ports import FileMark, Ledger, Receipt
from router.core.rules import Plan
from router.errors import SpoolDamaged

#: Some 2 MB; of more, the oldest are hashed again.
COUNT_MAX = 4096


class FreshFiles:
    """How spool files looked when they had just been received. Any number of threads."""

    def __init__(
        self, path_of: Callable[[str], Path], *, for_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`path_of`: of a spool key; may raise SpoolDamaged. `for_s`: so long a file counts as fresh, in seconds."""
        self._path_of = path_of
        self._for_s = for_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._marks: OrderedDict[str, tuple[FileMark, float]] = OrderedDict()
        """Spool key -> its mark, and until when by `monotonic`; the oldest first."""

    def note(self, spool_key: str) -> None:
        """The file holds what this process was sent, and has its final name."""
        if not self._for_s:
            return
        with suppress(OSError, SpoolDamaged):  # whoever sends it will see that it cannot be read
            mark = mark_of(self._path_of(spool_key).stat())
            with self._lock:
                self._marks[spool_key] = mark, self._monotonic() + self._for_s
                if len(self._marks) > COUNT_MAX:
                    self._marks.popitem(last=False)

    def mark(self, spool_key: str) -> FileMark | None:
        """None when the file is not fresh, or no longer."""
        with self._lock:
            mark, until = self._marks.get(spool_key, (None, 0.0))
            if mark is not None and self._monotonic() >= until:
                del self._marks[spool_key]
                return None
            return mark


class FreshlyAccepted:
    """A ledger as reception has it: the file of what it is about to accept is noted, before anybody can claim its delivery."""

    def __init__(self, ledger: Ledger, fresh: FreshFiles) -> None:
        self._ledger = ledger
        self._fresh = fresh

    def accept(self, instance: SopInstance, plan: Plan) -> Receipt:
        """See core.ports.Ledger."""
        self._fresh.note(instance.spool_key)
        return self._ledger.accept(instance, plan)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


def mark_of(status: os.stat_result) -> FileMark:
    """By what `stat` says of a file."""
    return FileMark(
        device=status.st_dev,
        inode=status.st_ino,
        byte_count=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )
