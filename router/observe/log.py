"""JSON lines with stable event names. Fields carry UIDs, AE titles, counts and reasons; never patient data.

Third-party loggers (pynetdicom, pydicom) are kept away: at DEBUG they log values of elements and user identity.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from router.observe.events import EVENTS

#: Told of each event, written or not. The classify child, which counts nothing, has none.
_WITNESSES: list[Callable[[str, Mapping[str, object]], None]] = []
_SILENCED = (
    "pynetdicom",
    "pydicom",
    "highdicom",
    "PIL",
    "uvicorn",
    "sqlalchemy",
    "matplotlib",
    "skimage",
    "opentelemetry",
    "urllib3",
)


_ENCODER = json.JSONEncoder(default=str, ensure_ascii=False)


class _Sink:
    """Where lines go: not by way of `logging`, which would cost each received instance more than its header does."""

    def __init__(self, stream: TextIO, level: int) -> None:
        self.level = level
        self._stream = stream
        # The garbage collector may come by while a line is written, and what a finaliser raises is a line of its own.
        self._lock = threading.RLock()

    def write(self, line: str) -> None:
        """One line, whole."""
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


_sink: _Sink | None = None
"""None: a command that does not configure a log writes none."""


def _line(event: str, level: int, fields: Mapping[str, object], error: BaseException | None) -> str:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {"at": at, "level": logging.getLevelName(level).lower(), "event": event, **fields}
    if error is not None:
        # Only where it happened: the text of a third-party exception may quote an element's value.
        line["exception"] = type(error).__name__
        line["where"] = _where(error.__traceback__)
        if isinstance(error, OSError) and error.strerror:
            line["problem"] = error.strerror
    try:
        return _ENCODER.encode(line)
    except (TypeError, ValueError):  # a fault of ours; what happened is worth more than its fields
        return _ENCODER.encode({"at": at, "level": line["level"], "event": event, "unwritable": sorted(fields)})


def _where(traceback: Any) -> list[str]:
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames[-6:]


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Sends our events to `stream` (standard error) as JSON lines and keeps third-party loggers off it."""
    global _sink  # noqa: PLW0603 - one process, one log
    _sink = _Sink(stream or sys.stderr, logging.getLevelNamesMapping()[level.upper()])
    for name in _SILENCED:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False


def log_uncaught() -> None:
    """From now on an exception that nobody catches is an event of ours: Python would print its text, and with it what it quotes."""

    def process(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
        else:
            emit("program.failed", level=logging.ERROR, exc_info=error)

    def thread(failed: threading.ExceptHookArgs) -> None:
        emit("program.failed", level=logging.ERROR, exc_info=failed.exc_value or False)

    def unraisable(failed: sys.UnraisableHookArgs) -> None:
        emit("program.failed", level=logging.ERROR, exc_info=failed.exc_value or False)

    sys.excepthook, threading.excepthook, sys.unraisablehook = process, thread, unraisable
    warnings.simplefilter("ignore")  # libraries quote values in them


def also_tell(witness: Callable[[str, Mapping[str, object]], None]) -> None:
    """From now on `witness` is called with the name and the fields of each event; it must be quick, and raise nothing."""
    _WITNESSES.append(witness)


def emit(event: str, /, *, level: int = logging.INFO, exc_info: bool | BaseException = False, **fields: Any) -> None:
    """Logs one event of `EVENTS` with its fields. Raises KeyError for a name that is not in the table."""
    if event not in EVENTS:
        raise KeyError(event)
    for witness in _WITNESSES:
        witness(event, fields)
    sink = _sink
    if sink is not None and level >= sink.level:
        error = sys.exc_info()[1] if exc_info is True else exc_info or None
        # A disk that is full, a pipe that nobody reads, no standard error at all: a log must not cost an image.
        with suppress(Exception):
            sink.write(_line(event, level, fields, error))
