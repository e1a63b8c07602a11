"""The parent's side of the transcode child: starts one for each instance, waits against the clock, believes little."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from router.core.ports import Delivery
from router.errors import ChildDied, TransientError, UnreadablePixels

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
                    sha256=str(answer["sha256"]),
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
        try:
            process = subprocess.Popen(
                [*self._command, str(source), str(target), *limits],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,  # a group of its own, so that whatever it starts dies with it
            )
        except OSError as error:
            raise ChildDied(f"its decoder cannot be started ({error.strerror})") from error
        too_late = threading.Event()

        def expire() -> None:
            too_late.set()
            _kill_group(process)

        watchdog = threading.Timer(self._time_limit_s, expire)
        watchdog.daemon = True
        watchdog.start()
        assert process.stdout is not None
        try:
            with process.stdout:
                text = process.stdout.read(_ANSWER_BYTE_COUNT_MAX)
            code = process.wait()
        finally:
            watchdog.cancel()
            watchdog.join()
            _kill_group(process)
            process.wait()
        if too_late.is_set() or code == -signal.SIGALRM:
            raise ChildDied(f"decoding it took longer than {self._time_limit_s:g} s")
        try:
            answer = json.loads(text) if code == 0 else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not ({"problem", "no_room"} & answer.keys() or _complete(answer)):
            raise ChildDied(f"its decoder {_ended(code)}")
        return answer


def _complete(answer: dict[str, Any]) -> bool:
    return isinstance(answer.get("sha256"), str) and isinstance(answer.get("byte_count"), int)


def _ended(code: int) -> str:
    if code == 0:
        return "gave an answer that makes no sense"
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})" if -code in signal.valid_signals() else f"crashed ({-code})"
    return f"ended with exit code {code}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The group also when its leader is gone: what that has started must not live on.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
