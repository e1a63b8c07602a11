"""A copy of a SQLite ledger as it was before an upgrade, beside it, for whoever has to go back to the older program."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from router.errors import ConfigError


def keepsake_path(path: Path, version: int) -> Path:
    """Where the copy of version `version` lies."""
    return path.with_name(f"{path.name}.version-{version}")


def keep_copy(path: Path, *, version: int) -> Path:
    """Copies what is committed in the ledger, durably, and returns where to; one of an earlier attempt is replaced.

    Raises ConfigError when it cannot: then the ledger must not be changed.
    """
    target = keepsake_path(path, version)
    part = target.with_name(f"{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        # It holds patient data: for this user only, from its first byte.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        # SQLite's own backup: a copy of the file would lack what is still in the write-ahead log.
        uri = f"file:{_quoted(path)}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
        _sync(part)
        part.rename(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            [f"ledger.url: {path} has to be upgraded, and cannot be copied to {target} before that: {why}"]
        ) from error
    return target


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
