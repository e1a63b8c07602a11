"""One question to a child that is started for it and decodes: against the clock, with an answer of bounded length."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence

from router.errors import ChildDied

#: What ChildDied says of an answer that is none.
NONSENSE = "its decoder gave an answer that makes no sense"


def ask(command: Sequence[str], time_limit_s: float, byte_count_max: int) -> bytes:
    """What it writes to standard output until it ends with exit code 0.

    Raises ChildDied when it ends otherwise, takes too long or answers more; then it is dead and reaped.
    """
    try:
        process = subprocess.Popen(
            command,
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

    watchdog = threading.Timer(time_limit_s, expire)
    watchdog.daemon = True
    watchdog.start()
    assert process.stdout is not None
    try:
        with process.stdout:
            answer = process.stdout.read(byte_count_max + 1)
        code = process.wait()
    finally:
        watchdog.cancel()
        watchdog.join()
        _kill_group(process)
        process.wait()
    if too_late.is_set() or code == -signal.SIGALRM:
        raise ChildDied(f"decoding it took longer than {time_limit_s:g} s")
    if code:
        raise ChildDied(f"its decoder {_ended(code)}")
    if len(answer) > byte_count_max:
        raise ChildDied(NONSENSE)
    return answer


def _ended(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    return f"crashed ({signal.Signals(-code).name})" if -code in signal.valid_signals() else f"crashed ({-code})"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The group also when its leader is gone: what that has started must not live on.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
