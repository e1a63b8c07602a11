"""One node to a ledger: a second one would claim tasks whose bytes lie in a spool that only the first one has.

Commands beside a node (`router queue`, `requeue`) do not occupy anything.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from router.errors import ConfigError
from router.ledger.engine import Engines

#: PostgreSQL: a node that was killed a moment ago may hold its lock until the server has noticed.
PATIENCE_S = 10.0
#: How often the connection that holds the lock is looked at.
LOOK_S = 2.0
_PAUSE_S = 0.2
#: Advisory locks are numbered for each database; this number is ours, beside the one of `migrations`.
_LOCK_KEY = 7_001_003
_HOLDER = text(
    "SELECT a.pid, a.application_name, host(a.client_addr) AS host FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = :key AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Occupancy(Protocol):
    """Held for the life of a node; the end of its process ends it, too."""

    def release(self) -> None:
        """May be called twice."""
        ...


def occupy(engines: Engines, *, lost: Callable[[str], None], patience_s: float = PATIENCE_S) -> Occupancy:
    """Makes this process the ledger's only node. Raises ConfigError when another one is.

    `lost` is called, in another thread, if another node has the ledger later (PostgreSQL, after a broken connection), with its name.
    """
    if engines.path is not None:
        return FileOccupancy(engines.path)
    return ServerOccupancy(engines.read, lost=lost, patience_s=patience_s)


class FileOccupancy:
    """A lock on a file beside the SQLite file; not on that itself, where closing it would take SQLite's own locks away."""

    def __init__(self, ledger: Path) -> None:
        path = ledger.with_name(f"{ledger.name}.lock")
        try:
            self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError([f"ledger.url: {path} cannot be made: {error.strerror}"]) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise _occupied(str(ledger), f"process {holder}") from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class ServerOccupancy:
    """A session-level advisory lock of PostgreSQL, on a connection of its own that is taken anew when it breaks."""

    def __init__(self, engine: Engine, *, lost: Callable[[str], None], patience_s: float) -> None:
        self._engine = engine
        self._lost = lost
        # The server shows it to whoever is refused; and by it we know a session of ours that the server has not missed yet.
        self._me = f"dicom-ai-router {socket.gethostname()[:20]} process {os.getpid()} {secrets.token_hex(4)}"
        self._closed = threading.Event()
        self._connection: Connection | None = self._open()
        end = time.monotonic() + patience_s
        while (holder := self._take()) is not None:
            if time.monotonic() >= end:
                self._drop()
                raise _occupied(engine.url.render_as_string(hide_password=True), holder)
            time.sleep(_PAUSE_S)
        self._thread = threading.Thread(target=self._watch, name="ledger-occupancy", daemon=True)
        self._thread.start()

    def release(self) -> None:
        self._closed.set()
        self._thread.join()
        self._drop()

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_S):
            try:
                if self._connection is not None:
                    self._connection.exec_driver_sql("SELECT 1")
                    continue
                self._connection = self._open()
                holder = self._take()
            except SQLAlchemyError:
                self._drop()  # broken, or the server is away: nobody can work, neither we nor another node
                continue
            if holder is not None:
                self._drop()
                self._lost(holder)
                return

    def _open(self) -> Connection:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()
        connection.execute(text("SELECT set_config('application_name', :me, false)"), {"me": self._me})
        # A machine that vanishes must not hold the ledger for the kernel's hours.
        for name, value in (("idle", 10), ("interval", 5), ("count", 3)):
            connection.exec_driver_sql(f"SET tcp_keepalives_{name} = {value}")
        return connection

    def _take(self) -> str | None:
        """Tries to get the lock; who has it, or None when we do."""
        assert self._connection is not None
        connection = self._connection
        while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK_KEY}).scalar_one():
            holder = connection.execute(_HOLDER, {"key": _LOCK_KEY}).first()
            if holder is None:
                continue  # it went away in between
            if holder.application_name != self._me:
                return f"{holder.application_name or 'unknown'} at {holder.host or 'this machine'}"
            # Our own former session, of which the server has not noticed yet that its connection is broken.
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": holder.pid})
            time.sleep(_PAUSE_S)
        return None

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()


def _occupied(ledger: str, holder: str) -> ConfigError:
    return ConfigError(
        [f"ledger.url: {ledger} is in use by another node ({holder}); each node needs a ledger and a spool of its own"]
    )
