"""The parent's side of the transcode child: starts one for each instance, waits against the clock, believes little."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from router.core.ports import Delivery
from router.errors import ChildDied, TransientError, UnreadablePixels
from router.work.errand import NONSENSE, ask

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
#: A 20-megapixel radiograph takes a second or two, an ultrasound clip of 120 frames ten.
TIME_LIMIT_S = 120.0
MEMORY_BYTE_COUNT_MAX = 4 * 2**30
#: A crash may have been the want of memory of a moment.
_ATTEMPTS = 2
_ANSWER_BYTE_COUNT_MAX = 4096
_PROBLEM_LENGTH_MAX = 300


class ChildTranscoder:
    """`core.ports.Transcoder` by a child process for each instance. Any number of threads may use it at once."""

    def __init__(
        self,
        *,
        scratch: Callable[[], Path],
        command: Sequence[str] = (sys.executable, "-m", "router.transcode"),
        time_limit_s: float = TIME_LIMIT_S,
        memory_byte_count_max: int = MEMORY_BYTE_COUNT_MAX,
    ) -> None:
        """The child is started as COMMAND IN OUT TIME_LIMIT_S MEMORY_BYTE_COUNT; `scratch` names a file that does not exist."""
        self._scratch = scratch
        self._command = tuple(command)
        self._time_limit_s = time_limit_s
        self._memory_byte_count_max = memory_byte_count_max

    @contextlib.contextmanager
    def uncompressed(self, delivery: Delivery) -> Iterator[Delivery]:
        """See core.ports.Transcoder."""
        target = self._scratch()
        try:
            answer = self._answer(delivery.path, target)
            yield Delivery(
                path=target,
                instance=replace(
                    delivery.instance,
                    transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
                    digest=str(answer["digest"]),
                    byte_count=int(answer["byte_count"]),
                ),
            )
        finally:
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)

    def _answer(self, source: Path, target: Path) -> dict[str, Any]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self._ask(source, target)
            except ChildDied as error:
                with contextlib.suppress(OSError):
                    target.unlink(missing_ok=True)
                if attempt == _ATTEMPTS:
                    raise UnreadablePixels(f"{error}, {_ATTEMPTS} times") from error
                continue
            if answer.get("no_room"):
                raise TransientError("there is no room in the spool folder for its uncompressed form")
            if problem := answer.get("problem"):
                raise UnreadablePixels(str(problem)[:_PROBLEM_LENGTH_MAX])
            return answer
        raise AssertionError("unreachable")

    def _ask(self, source: Path, target: Path) -> dict[str, Any]:
        """Raises ChildDied, and then it is dead and reaped."""
        limits = [f"{self._time_limit_s:g}", str(self._memory_byte_count_max)]
        text = ask([*self._command, str(source), str(target), *limits], self._time_limit_s, _ANSWER_BYTE_COUNT_MAX)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not ({"problem", "no_room"} & answer.keys() or _complete(answer)):
            raise ChildDied(NONSENSE)
        return answer


def _complete(answer: dict[str, Any]) -> bool:
    return isinstance(answer.get("digest"), str) and isinstance(answer.get("byte_count"), int)
