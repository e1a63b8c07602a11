"""Connections to the database behind `ledger.url`, with the settings that durability needs."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from router.errors import ConfigError
from router.ledger.mounts import network_file_system

#: Another process of ours (an operator's command) may hold the write lock this long.
BUSY_TIMEOUT_S = 30
#: Patients' data is among the parameters, and an error's text may be printed.
_DISCREET = {"hide_parameters": True}
#: IMMEDIATE: the write lock is taken at the start, where waiting for it is possible, and not in the middle.
_BEGIN = "BEGIN IMMEDIATE"
#: RETURNING came with 3.35 (2021-03-12).
SQLITE_VERSION_MIN = (3, 35, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """One engine that writes, one that only reads; the same database."""

    url: URL
    write: Engine
    read: Engine

    @property
    def sqlite(self) -> bool:
        """Else it is PostgreSQL."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path | None:
        """Of the SQLite file."""
        return Path(self.url.database) if self.sqlite and self.url.database else None

    def close(self) -> None:
        """Closes every connection."""
        self.write.dispose()
        self.read.dispose()


def open_engines(url_text: str) -> Engines:
    """Engines for `ledger.url`; the folder of a SQLite file is made. Raises ConfigError."""
    try:
        url = make_url(url_text)
    except (ArgumentError, ValueError) as error:
        raise ConfigError([f"ledger.url: not a database URL: {url_text!r}"]) from error
    match url.get_backend_name():
        case "sqlite":
            return _sqlite(url)
        case "postgresql":
            return _postgresql(url)
        case other:
            raise ConfigError([f"ledger.url: {other!r} is not supported; use sqlite:///PATH or postgresql://HOST/NAME"])


def _sqlite(url: URL) -> Engines:
    if not url.database or url.database == ":memory:":
        raise ConfigError(["ledger.url: a ledger in memory would lose what it acknowledged; write sqlite:///PATH"])
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise ConfigError([f"ledger.url: SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed"])
    path = Path(url.database)
    if system := network_file_system(path):
        raise ConfigError(
            [
                f"ledger.url: {path} lies on a network file system ({system}), where SQLite loses data:"
                " put it on a disk of this machine, or use postgresql://HOST/NAME"
            ]
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # It will hold patient data: for this user only. SQLite gives its side files the same mode.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise ConfigError([f"ledger.url: {path} cannot be created: {error.strerror}"]) from error
    arguments: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}, **_DISCREET}
    write = create_engine(url, pool_size=1, max_overflow=1, **arguments)
    read = create_engine(url, pool_size=4, max_overflow=64, **arguments)
    event.listen(write, "connect", _pragmas_of_writer)
    event.listen(read, "connect", _pragmas_of_reader)
    event.listen(write, "begin", _begin_to_write)
    event.listen(read, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return Engines(url=url, write=write, read=read)


def write_transaction(connection: Connection) -> AbstractContextManager[Any]:
    """One transaction of a connection of `Engines.write`; raises DBAPIError where it cannot be begun or committed."""
    return _Direct(connection) if connection.dialect.name == "sqlite" else connection.begin()


class _Direct:
    """A transaction of SQLite by its driver alone: SQLAlchemy's bookkeeping would cost more than the statements."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        driver: Any = self._connection.connection.driver_connection
        try:
            driver.execute(_BEGIN)
        except sqlite3.Error as error:
            raise DBAPIError.instance(_BEGIN, None, error, sqlite3.Error) from error

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is not None:
                self._roll_back()
            elif self._connection.in_transaction():  # SQLAlchemy was asked, too, and noted one
                self._connection.commit()
            else:
                self._connection.dialect.do_commit(self._connection.connection)
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                raise DBAPIError.instance("COMMIT", None, error, sqlite3.Error) from error
            raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction():
            self._connection.rollback()
        self._connection.dialect.do_rollback(self._connection.connection)


def _begin_to_write(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:  # else `_Direct` has begun
        connection.exec_driver_sql(_BEGIN)


def _pragmas_of_writer(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 must not begin transactions by itself
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=4000"):
        connection.execute(f"PRAGMA {pragma}")


def _pragmas_of_reader(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON")


def _postgresql(url: URL) -> Engines:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            ["ledger.url: PostgreSQL needs psycopg: pip install 'dicom-ai-router[postgresql]'"]
        ) from error
    url = url.set(drivername="postgresql+psycopg")
    options = "-c synchronous_commit=on -c idle_in_transaction_session_timeout=60000"
    options += (
        " -c max_parallel_workers_per_gather=0"  # counting a large ledger must not take every core from receiving
    )
    # A server that vanishes without a word must not hold the one writer, and with it every C-STORE, for the kernel's hours.
    alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30000}
    arguments: dict[str, Any] = {
        "pool_pre_ping": True,
        "connect_args": {"connect_timeout": 10, "options": options, **alive},
        **_DISCREET,
    }
    return Engines(
        url=url,
        write=create_engine(url, pool_size=1, max_overflow=1, **arguments),
        read=create_engine(url, pool_size=4, max_overflow=64, **arguments),
    )


def unusable(engines: Engines, error: DBAPIError) -> ConfigError:
    """What to tell the operator when the database does not open; never a password."""
    shown = engines.url.render_as_string(hide_password=True)
    why = str(error.orig).strip().splitlines()[0] if error.orig is not None else type(error).__name__
    hint = (
        "; the file is damaged or is no ledger: move it aside together with its -wal and -shm files, or restore a copy"
        if engines.sqlite and isinstance(error.orig, sqlite3.DatabaseError) and not _is_operational(error)
        else ""
    )
    return ConfigError([f"ledger.url: {shown} cannot be used: {why}{hint}"])


def _is_operational(error: DBAPIError) -> bool:
    return isinstance(error.orig, sqlite3.OperationalError)


def check(connection: Connection) -> str | None:
    """What SQLite's own quick check finds wrong with its file, or None."""
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    return None if found == "ok" else str(found)
