"""Instances, plans, clocks and a PostgreSQL server for tests of the ledger and of what works on it."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from router.core.instance import InstanceKind, SopInstance
from router.core.rules import ClassifyOrder, Plan
from tests import peers

CT = "1.2.840.10008.5.1.4.1.1.2"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
EXPLICIT = "1.2.840.10008.1.2.1"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)

_keys = itertools.count(1)


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            return self._now

    def forward(self, seconds: float) -> None:
        with self._lock:
            self._now += timedelta(seconds=seconds)


def instance(
    uid: str = "1.2.3", *, data: bytes | None = None, kind: InstanceKind = InstanceKind.ORIGINAL, **more: object
):
    """A SOP instance; other `data`, other bytes. Each call has a spool key of its own."""
    data = data if data is not None else uid.encode()
    values: dict[str, object] = {
        "sop_instance_uid": uid,
        "sop_class_uid": CT if kind is InstanceKind.ORIGINAL else SR,
        "study_instance_uid": "1.2",
        "series_instance_uid": "1.2.1",
        "transfer_syntax_uid": EXPLICIT,
        "digest": hashlib.sha256(data).hexdigest(),
        "byte_count": len(data),
        "spool_key": f"{next(_keys):028x}",
        "received_at": START,
        "kind": kind,
        "calling_ae_title": "CR_ROOM1",
        "called_ae_title": "ROUTER",
        "peer_host": "10.1.2.3",
        "header": {"Modality": "CR", "PatientID": "P\\1"},
    }
    return SopInstance(**{**values, **more})  # type: ignore[arg-type]


def plan(*, classify: tuple[str, ...] = (), deliver: tuple[str, ...] = ("pacs",)) -> Plan:
    """What one rule asks for."""
    orders = tuple(ClassifyOrder(classifier=name, results=("sr",), results_to=("pacs",)) for name in classify)
    return Plan(rules=("everything",), classify=orders, deliver=deliver)


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[str]:
    """The URL of a PostgreSQL server's maintenance database, with a place for the database name: PGURL, or one of our own.

    `durable`: ours syncs what it commits, as in production. As root the server runs as user postgres, because it refuses root. Raises ProgramMissing.
    """
    if url := os.environ.get("PGURL"):
        yield url
        return
    initdb, server = peers.program("initdb"), peers.program("postgres")
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        command = [str(initdb), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", user=user)
        # In tests fsync is off: what is tested is the ledger; that PostgreSQL keeps what it commits, its own tests show.
        synced = "on" if durable else "off"
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", f"fsync={synced}"]
        process = subprocess.Popen(
            [str(server), "-D", str(data), *options],
            cwd="/",
            user=user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"postgresql://postgres@/{{database}}?host={folder}"
        try:
            peers.wait_until(lambda: (folder / ".s.PGSQL.5432").exists() and _answers(url), 30, "PostgreSQL")
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(20)


def _answers(url: str) -> bool:
    import psycopg

    try:
        with psycopg.connect(url.format(database="postgres"), connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


@contextmanager
def database(url: str) -> Iterator[str]:
    """A new, empty database on a server; its URL."""
    import psycopg

    name = f"ledger_{uuid.uuid4().hex}"
    with psycopg.connect(url.format(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        yield url.format(database=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]
