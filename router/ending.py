"""Waits for SIGTERM or SIGINT, whichever thread of the process the kernel gives them to."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Ending:
    """While it is entered, the first of these signals ends `wait`; a second one ends the process at once. Main thread only.

    Python runs a handler in the main thread, but only once that is awake, and a signal that another thread received, or that came just
    before the main thread fell asleep on a lock, wakes nobody: a node once ignored SIGTERM so. What the interpreter
    writes into a socket when a signal comes (`signal.set_wakeup_fd`) is never too early and in no wrong thread.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._handlers: dict[signal.Signals, Any] = {}
        self._fd = -1
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)

    def wait(self) -> None:
        """Returns once one of the signals has come, also if that was before."""
        self._asked.wait()

    def __enter__(self) -> Self:
        self._fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        # Without a handler of Python's nothing would be written.
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            with suppress(TypeError):  # None: it was not installed from Python
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd)
        self._write.close()
        self._thread.join()
        self._read.close()

    def _listen(self) -> None:
        while numbers := self._read.recv(1):
            if numbers[0] not in _SIGNALS:
                continue  # another signal that has a handler
            if self._asked.is_set():
                os._exit(1)  # everything durable is durable, nothing else matters
            self._asked.set()
