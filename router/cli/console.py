"""What the commands share: options, tables, progress, the ledger to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from router.errors import RouterError
from router.settings import Settings

if TYPE_CHECKING:
    from router.audit.events import Node, Person
    from router.audit.message import AuditMessage
    from router.ledger.store import SqlLedger

OUT = Console()
ERR = Console(stderr=True)

config_option = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("config/router.toml"),
    show_default=True,
    help="The configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of a table.")


def table_of(*columns: str) -> Table:
    """A table for people, whose long values fold."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@contextmanager
def open_ledger(settings: Settings) -> Iterator[SqlLedger]:
    """The ledger of a node that has run before. Raises ConfigError."""
    from router.node import open_ledger as open_of_node

    ledger = open_of_node(settings, create=False)
    try:
        yield ledger
    finally:
        ledger.close()


def audit(settings: Settings, *messages: Callable[[Node, Person], AuditMessage]) -> None:
    """Before something of patients is shown or done. Raises RouterError: then neither happens, as in the pages."""
    from router.audit.by_command import record

    try:
        record(settings, *messages)
    except OSError as error:
        why = error.strerror or str(error)
        raise RouterError(f"the audit trail cannot be written ({why}), so nothing is shown and nothing done") from error


def audit_look(settings: Settings, ledger: SqlLedger, uid: str) -> None:
    """The same, of a look at what the ledger has behind a SOP or Study Instance UID; nothing where it has nothing."""
    from router.audit.events import Seen, viewed
    from router.ledger.search import Criteria

    seen = [
        Seen(
            study_instance_uid=row.study_instance_uid, patient_id=row.patient_id, accession_number=row.accession_number
        )
        for row in ledger.search.studies(Criteria(uid=uid), limit=20)
    ]
    if seen:
        audit(settings, partial(viewed, seen=seen))


@contextmanager
def progress(what: str, total: int, *, hidden: bool) -> Iterator[Callable[[], None]]:
    """A bar on standard error; call what it gives after each of `total`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=ERR, disable=hidden) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON-able values; times in ISO 8601."""
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in asdict(value).items()}
