"""The command for notifications: notify."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from router.cli.console import ERR, OUT, config_option, json_option, open_ledger, table_of
from router.errors import ConfigError, NeverTold, NotTold
from router.settings import Settings, load


@click.command()
@click.option("--test", "test", metavar="NAME", help="Send a test message to one [notify.NAME], at once and once.")
@config_option
@json_option
def notify(test: str | None, config: Path, as_json: bool) -> None:
    """Who is told of what, and what became of the last messages; with --test try one of them out."""
    settings = load(config)
    if test is not None:
        sys.exit(_try_out(settings, test, as_json=as_json))
    from router.notify.message import headline

    with open_ledger(settings) as ledger:
        newest = ledger.notices.newest(limit=20)
    if as_json:
        told = {"notify": [*listed(settings)], "newest": [_plain(status) for status in newest]}
        click.echo(json.dumps(told, indent=2))
        return
    OUT.print(table_of_channels(settings))
    table = table_of("created", "name", "what", "state", "tries", "reason")
    for status in newest:
        at = status.notice.created_at.isoformat(timespec="seconds")
        table.add_row(at, status.target, headline(status.notice), status.state, str(status.attempts), status.error)
    OUT.print(table)


def listed(settings: Settings) -> Sequence[dict[str, Any]]:
    """Each [notify.NAME]: where it leads to, and what it tells. No secret, no address that may be one."""
    if not settings.notify:
        return []
    from router.notifying import where_of

    return [
        {"name": name, "where": where_of(settings, name), "tells": table.topics()}
        for name, table in settings.notify.items()
    ]


def table_of_channels(settings: Settings) -> Any:
    """The same for people."""
    table = table_of("notify", "where", "tells of")
    for one in listed(settings):
        table.add_row(one["name"], one["where"], "; ".join(one["tells"]))
    return table


def _try_out(settings: Settings, name: str, *, as_json: bool) -> int:
    from router.notifying import send_test

    if name not in settings.notify:
        raise ConfigError([f"--test: there is no [notify.{name}]; there: {', '.join(settings.notify) or 'none'}"])
    problem, note = "", ""
    try:
        note = send_test(settings, name)
    except (NotTold, NeverTold) as error:
        problem = "; ".join([str(error), *getattr(error, "__notes__", [])])
    if as_json:
        click.echo(json.dumps({"notify": name, "sent": not problem, "problem": problem, "note": note}, indent=2))
    elif problem:
        ERR.print(f"{name}: {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
    else:
        said = f"; {note}" if note else ""
        OUT.print(f"{name}: a test message was taken{said}", style="green", markup=False, highlight=False)
    return 1 if problem or note else 0


def _plain(status: Any) -> dict[str, Any]:
    return {
        "created_at": status.notice.created_at.isoformat(),
        "notify": status.target,
        "event": status.notice.event.value,
        "about": status.notice.subject,
        "count": status.notice.fact_count,
        "state": status.state.value,
        "attempts": status.attempts,
        "error": status.error,
        "note": status.note,
    }
