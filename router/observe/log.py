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
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from router.observe.events import EVENTS

_LOGGER = logging.getLogger("router")
_LOGGER.addHandler(logging.NullHandler())  # a command that does not configure a log writes none
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


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "event": record.getMessage()}
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            # Only where it happened: the text of a third-party exception may quote an element's value.
            line["exception"] = record.exc_info[0].__name__
            line["where"] = _where(record.exc_info[2])
            if isinstance(record.exc_info[1], OSError) and record.exc_info[1].strerror:
                line["problem"] = record.exc_info[1].strerror
        return json.dumps(line, default=str, ensure_ascii=False)


def _where(traceback: Any) -> list[str]:
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames[-6:]


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Sends our events to `stream` (standard error) as JSON lines and keeps third-party loggers off it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonLine())
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(level.upper())
    _LOGGER.propagate = False
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
    _LOGGER.log(level, event, extra={"fields": fields}, exc_info=exc_info)
