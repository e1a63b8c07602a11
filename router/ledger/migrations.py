"""The schema's version, checked whenever a ledger is opened: a newer one is refused, an older one is brought up by steps.

A step is a function that changes a ledger of version n into one of version n + 1; steps are never edited once released.
All steps run in one transaction, so that an upgrade happens whole or not at all. A SQLite ledger is copied beside itself
first: there is no way back by steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select, update

from router.errors import ConfigError
from router.ledger.keepsake import keep_copy
from router.ledger.schema import METADATA, meta
from router.ledger.versions import to_version_2, to_version_3

VERSION = 3
STEPS: Mapping[int, Callable[[Connection], None]] = {1: to_version_2, 2: to_version_3}
"""Version n -> the step to version n + 1."""
_LOCK_KEY = 7_001_002


def migrate(
    connection: Connection, *, version: int = VERSION, steps: Mapping[int, Callable[[Connection], None]] = STEPS
) -> int:
    """Makes the tables, or brings them to `version`; returns the version found (0: the database was empty).

    Raises ConfigError for a database that is newer than this program, that is no ledger, or that cannot be copied.
    """
    if connection.dialect.name == "postgresql":  # two nodes that start at once
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
    tables = set(inspect(connection).get_table_names())
    if not tables:
        METADATA.create_all(connection)
        connection.execute(insert(meta).values(name="version", value=str(version)))
        return 0
    if meta.name not in tables:
        raise ConfigError(
            ["ledger.url: this database holds other tables and no ledger; give the ledger one of its own"]
        )
    found = int(connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar_one())
    if found > version:
        raise ConfigError(
            [f"ledger.url: this ledger has version {found}, this program knows {version}: install the newer router"]
        )
    if found < version and connection.dialect.name == "sqlite":
        keep_copy(Path(str(connection.engine.url.database)), version=found)
    for step in range(found, version):
        steps[step](connection)
    if found < version:
        connection.execute(update(meta).where(meta.c.name == "version").values(value=str(version)))
    return found
