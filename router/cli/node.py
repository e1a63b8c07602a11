"""Commands that run a node or speak with one: serve, demo, check, echo, send, selftest."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from router.cli.console import OUT, config_option, json_option, progress, table_of
from router.cli.notify import listed, table_of_channels
from router.errors import ConfigError, RouterError
from router.settings import Settings, load


@click.command()
@config_option
def serve(config: Path) -> None:
    """Run the node until SIGTERM (drains; a second one stops at once)."""
    from router.node import serve as run

    sys.exit(run(load(config)))


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--keep", is_flag=True, help="Leave router and destination running until Ctrl-C.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for everything the demo writes; emptied of an earlier demo first.",
)
def demo(paths: Sequence[Path], keep: bool, output: Path) -> None:
    """Start a router and a destination here, send sample radiographs (or PATHS), show what arrives."""
    from router.demo.run import run

    sys.exit(run(paths=paths, output=output, keep=keep, console=OUT))


@click.command()
@config_option
@click.option("--echo", "with_echo", is_flag=True, help="Also C-ECHO every destination.")
@json_option
def check(config: Path, with_echo: bool, as_json: bool) -> None:
    """Validate the configuration file; with --echo ask every destination whether it is there."""
    if as_json:
        sys.exit(_check_for_machines(config, with_echo=with_echo))
    settings = load(config)
    _check_notify(settings)
    OUT.print(f"{config}: configuration is valid", markup=False, highlight=False)
    table = table_of("what", "name", "kind", "details")
    for name, classifier in settings.classifiers.items():
        table.add_row("classifier", name, classifier.type, _options(classifier.options))
    for name, destination in settings.destinations.items():
        table.add_row("destination", name, destination.type, _options(destination.options))
    for rule in settings.rules:
        parts = {"classify": rule.classify, "deliver": rule.deliver, "results": rule.results}
        table.add_row("rule", rule.name, "", "; ".join(f"{k} {', '.join(v)}" for k, v in parts.items() if v))
    OUT.print(table)
    if settings.notify:
        OUT.print(table_of_channels(settings))
    if with_echo:
        failures = [name for name in settings.destinations if not _echo_one(settings, name)]
        sys.exit(1 if failures else 0)


def _check_notify(settings: Settings) -> None:
    """Raises ConfigError for secrets that are not there; the parts that know are loaded only when there is something to ask."""
    if settings.notify:
        from router.notifying import check as check_all

        check_all(settings)


def _check_for_machines(config: Path, *, with_echo: bool) -> int:
    """Prints what `check` found as JSON, problems of the file too; the exit code."""
    found: dict[str, Any] = {"config": str(config), "valid": True, "problems": []}
    echoes: dict[str, str] = {}
    try:
        settings = load(config)
        _check_notify(settings)
    except ConfigError as error:
        found |= {"valid": False, "problems": list(error.problems)}
    else:
        for kind, tables in (("classifiers", settings.classifiers), ("destinations", settings.destinations)):
            found[kind] = {name: table.model_dump(mode="json") for name, table in tables.items()}
        found["notify"] = listed(settings)
        found["rules"] = [rule.model_dump(mode="json") for rule in settings.rules]
        if with_echo:
            echoes = {name: _echo_problem(settings, name) for name in settings.destinations}
            found["echo"] = {name: {"answers": not why, "problem": why} for name, why in echoes.items()}
    click.echo(json.dumps(found, indent=2))
    return 0 if found["valid"] and not any(echoes.values()) else 1


@click.command()
@click.argument("destination", metavar="NAME|AET@HOST:PORT")
@config_option
@json_option
def echo(destination: str, config: Path, as_json: bool) -> None:
    """C-ECHO a destination of the configuration, or any node, with a diagnosis when it fails."""
    settings = _settings_for(destination, config)
    if as_json:
        why = _echo_problem(settings, destination)
        click.echo(json.dumps({"destination": destination, "answers": not why, "problem": why}, indent=2))
        sys.exit(1 if why else 0)
    sys.exit(0 if _echo_one(settings, destination) else 1)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--to", "destination", required=True, metavar="NAME|AET@HOST:PORT", help="Where to send to.")
@config_option
@json_option
def send(paths: Sequence[Path], destination: str, config: Path, as_json: bool) -> None:
    """Send files, folders and zip archives by C-STORE, untouched and without unpacking archives to disk."""
    from router.deliver.send import send as send_all
    from router.deliver.sources import NotDicom, Source, find

    address = _address(_settings_for(destination, config), destination)
    found = list(find(paths))
    sources = [item for item in found if isinstance(item, Source)]
    skipped = [item for item in found if isinstance(item, NotDicom)]
    rows: list[dict[str, Any]] = [{"name": item.name, "status": "skipped", "note": item.reason} for item in skipped]
    with progress("sending", len(sources), hidden=as_json) as advance:
        for sent in send_all(address, sources):
            rows.append({"name": sent.source.name, "status": sent.status, "note": sent.note})
            advance()
    failed = [row for row in rows if row["status"] == "failed"]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            if row["status"] != "sent" or row["note"]:
                OUT.print(
                    f"{row['status']}: {row['name']}: {row['note']}", markup=False, highlight=False, soft_wrap=True
                )
        table = table_of("status", "instances")
        for status in ("sent", "failed", "skipped"):
            table.add_row(status, str(sum(row["status"] == status for row in rows)))
        OUT.print(table)
    sys.exit(1 if failed or not sources else 0)


@click.command()
@click.option("--chaos", is_flag=True, help="Kill it, slow it, fill its disk, send it everything twice.")
def selftest(chaos: bool) -> None:
    """Start a node and a destination of its own on free loopback ports; with --chaos also see what holds when things go wrong."""
    from router.selftest.run import run

    sys.exit(run(chaos=chaos, console=OUT))


def _settings_for(destination: str, config: Path) -> Settings:
    """The configuration; for AET@HOST:PORT a missing file is no problem."""
    if "@" in destination and not config.exists():
        return Settings()
    return load(config)


def _address(settings: Settings, destination: str) -> Any:
    """Where a name of the configuration, or AET@HOST:PORT, leads to. Raises ConfigError."""
    from router.deliver.address import address_of

    return address_of(settings, destination)


def _echo_one(settings: Settings, destination: str) -> bool:
    if why := _echo_problem(settings, destination):
        OUT.print(f"{destination}: {why}", style="red", markup=False, highlight=False, soft_wrap=True)
        return False
    OUT.print(f"{destination}: answers", style="green", markup=False, highlight=False)
    return True


def _echo_problem(settings: Settings, destination: str) -> str:
    """The diagnosis; empty when it answers. Raises ConfigError for a destination that is not known."""
    from router.deliver.address import echo as echo_destination

    try:
        echo_destination(settings, destination)
    except ConfigError:
        raise
    except RouterError as error:
        return str(error) or type(error).__name__
    return ""


def _options(options: Any) -> str:
    return "" if options is None else ", ".join(f"{k}={v}" for k, v in options.model_dump().items() if v is not None)
