"""Pictures of instances, each made by a child process that may die over it (`router.show`). Nothing is decoded here.

This process passes on bytes that it never looks into: the browser unpacks them.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from router.errors import ChildDied
from router.settings import ViewerSettings
from router.web.kept import Kept
from router.work.errand import NONSENSE, ask

#: Longest side of a picture in full resolution, in pixels: browsers on phones have no larger canvas.
FULL_SIDE = 4096
#: In colours and full resolution a picture has 48 MiB.
_ANSWER_BYTE_COUNT_MAX = 64 * 2**20
_HEAD_BYTE_COUNT_MAX = 4096
_PROBLEM_LENGTH_MAX = 300
#: Made at once: each takes a core, which reception needs more.
_AT_ONCE = 2
#: Each of them holds one of the threads that make pages.
_WAITERS_MAX = 6
_WAIT_S = 20.0
_KEPT_MAX = 32


class NoPicture(Exception):
    """There is none; the text is for people."""


class Darkroom:
    """Asks the child, and keeps what it said for a while."""

    def __init__(
        self, settings: ViewerSettings, *, command: Sequence[str] = (sys.executable, "-m", "router.show")
    ) -> None:
        """The child is started as COMMAND IN FRAME SIDE HOW TIME_LIMIT_S MEMORY_BYTE_COUNT."""
        self._settings = settings
        self._command = tuple(command)
        self._kept: Kept[bytes] = Kept(byte_count_max=settings.cache_byte_count_max, count_max=_KEPT_MAX)
        self._line = Line()

    def numbers(self, path: Path, frame: int, *, full: bool = False) -> bytes:
        """What `viewer.js` reads: see `classify.film.Film.encoded`; compressed by gzip. Raises NoPicture."""
        return self._made(path, frame, FULL_SIDE if full else self._settings.side_max, "numbers")

    def png(
        self, path: Path, frame: int, *, window: tuple[float, float] | None = None, inverted: bool = False
    ) -> bytes:
        """The picture as its header asks, or by another window (centre, width). Raises NoPicture."""
        how: dict[str, object] = {"inverted": inverted}
        if window is not None:
            how |= {"centre": window[0], "width": window[1]}
        return self._made(path, frame, self._settings.side_max, json.dumps(how))

    def _made(self, path: Path, frame: int, side: int, how: str) -> bytes:
        if (found := self._kept.get(path, (frame, side, how))) is not None:
            return found
        with self._line.place():
            made = self._ask(path, frame, side, how)
        self._kept.put(path, (frame, side, how), made, len(made))
        return made

    def _ask(self, path: Path, frame: int, side: int, how: str) -> bytes:
        limits = [f"{self._settings.time_limit_s:g}", str(self._settings.memory_byte_count_max)]
        command = [*self._command, str(path), str(frame), str(side), how, *limits]
        try:
            answer = ask(command, self._settings.time_limit_s, _ANSWER_BYTE_COUNT_MAX)
        except ChildDied as error:
            raise NoPicture(f"{error}. Its archive may have a viewer that can show it.") from error
        head, _, body = answer.partition(b"\n")
        try:
            said = json.loads(head) if len(head) <= _HEAD_BYTE_COUNT_MAX else None
        except ValueError:
            said = None
        if isinstance(said, dict) and isinstance(said.get("problem"), str):
            raise NoPicture(said["problem"][:_PROBLEM_LENGTH_MAX])
        if not isinstance(said, dict) or said.get("byte_count") != len(body) or not body:
            raise NoPicture(NONSENSE)
        return body


class Line:
    """So many at once, some wait, and the rest are asked to come again."""

    def __init__(self, *, at_once: int = _AT_ONCE, waiters_max: int = _WAITERS_MAX, wait_s: float = _WAIT_S) -> None:
        self._at_work = threading.BoundedSemaphore(at_once)
        self._all = threading.BoundedSemaphore(at_once + waiters_max)
        self._wait_s = wait_s

    @contextmanager
    def place(self) -> Iterator[None]:
        """While it is held, others may have to wait. Raises NoPicture."""
        if not self._all.acquire(blocking=False):
            raise NoPicture("too many pictures are being made at this moment: try again in a few seconds")
        try:
            if not self._at_work.acquire(timeout=self._wait_s):
                raise NoPicture("other pictures take long to be made: try again in a few seconds")
            try:
                yield
            finally:
                self._at_work.release()
        finally:
            self._all.release()
