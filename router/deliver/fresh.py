"""Files that this process received a short while ago: what was hashed on its way in need not be hashed again on its way out."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from router.core.ports import FileMark

#: Some 2 MB; of more, the oldest are hashed again.
COUNT_MAX = 4096


class FreshFiles:
    """How spool files looked when they had just been received. Any number of threads."""

    def __init__(self, *, for_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`for_s`: so long a file counts as fresh, in seconds."""
        self._for_s = for_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._marks: OrderedDict[str, tuple[FileMark, float]] = OrderedDict()
        """Spool key -> its mark, and until when by `monotonic`; the oldest first."""

    def note(self, spool_key: str, status: os.stat_result) -> None:
        """`status`: of the file when it had become durable with what this process had hashed."""
        if not self._for_s:
            return
        with self._lock:
            self._marks[spool_key] = mark_of(status), self._monotonic() + self._for_s
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


def mark_of(status: os.stat_result) -> FileMark:
    """By what `stat` says of a file."""
    return FileMark(
        device=status.st_dev,
        inode=status.st_ino,
        byte_count=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )
