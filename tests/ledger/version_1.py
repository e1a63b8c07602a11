"""A ledger as version 1 of the schema left it: its tables, and work in every state (`version_1.json`)."""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa

from router.ledger.engine import open_engines

#: A real file that pydicom ships; its spool key in that ledger is CT_KEY.
CT_FILE = "CT_small.dcm"
CT_KEY = f"{10:028x}"
HELD_KEYS = tuple(f"{number:028x}" for number in range(10, 15))


def make(url: str) -> None:
    """Writes it into an empty database."""
    content = json.loads(Path(__file__).with_name("version_1.json").read_text(encoding="utf-8"))
    engines = open_engines(url)
    with engines.write.begin() as connection:
        for statement in content["tables"][connection.dialect.name]:
            connection.exec_driver_sql(statement)
        tables = sa.MetaData()
        tables.reflect(connection)
        for name in ("meta", "instance", "task", "outcome", "event"):
            if rows := content["rows"][name]:
                connection.execute(sa.insert(tables.tables[name]), rows)
        if connection.dialect.name == "postgresql":
            for name in ("instance", "task", "event"):
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{name}', '{name}_id'), (SELECT max({name}_id) FROM {name}))"
                )
    engines.close()
