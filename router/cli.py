"""The command line. Exit codes: 0 good, 1 the thing asked about is bad, 2 wrong use. `--json` where a machine may read it.

Only arguments and printing live here; each command calls one function of the package that knows the matter.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

import router
from router.errors import ConfigError, RouterError
from router.settings import Settings, load

_OUT = Console()
_ERR = Console(stderr=True)

_config = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("config/router.toml"),
    show_default=True,
    help="The configuration file.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of a table.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(router.__version__, prog_name="router")
def cli() -> None:
    """A DICOM node that never loses an image, classifies chest radiographs and delivers Structured Reports.

    Not a medical device.
    """


def main() -> None:
    """Entry point: our own errors become one clear line and exit code 1, never a traceback."""
    try:
        cli()
    except ConfigError as error:
        _ERR.print("The configuration is refused:", style="bold red")
        for problem in error.problems:
            _ERR.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except RouterError as error:
        _ERR.print(f"{type(error).__name__}: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


# ---- the node


@cli.command()
@_config
def serve(config: Path) -> None:
    """Run the node until SIGTERM (drains; a second one stops at once)."""
    from router.node import serve as run

    sys.exit(run(load(config)))


@cli.command()
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

    sys.exit(run(paths=paths, output=output, keep=keep, console=_OUT))


@cli.command()
@_config
@click.option("--echo", "with_echo", is_flag=True, help="Also C-ECHO every destination.")
def check(config: Path, with_echo: bool) -> None:
    """Validate the configuration file; with --echo ask every destination whether it is there."""
    settings = load(config)
    _OUT.print(f"{config}: configuration is valid", markup=False, highlight=False)
    table = _table("what", "name", "kind", "details")
    for name, classifier in settings.classifiers.items():
        table.add_row("classifier", name, classifier.type, _options(classifier.options))
    for name, destination in settings.destinations.items():
        table.add_row("destination", name, destination.type, _options(destination.options))
    for rule in settings.rules:
        parts = {"classify": rule.classify, "deliver": rule.deliver, "results": rule.results}
        table.add_row("rule", rule.name, "", "; ".join(f"{k} {', '.join(v)}" for k, v in parts.items() if v))
    _OUT.print(table)
    if with_echo:
        failures = [name for name in settings.destinations if not _echo_one(settings, name)]
        sys.exit(1 if failures else 0)


@cli.command()
@click.argument("destination", metavar="NAME|AET@HOST:PORT")
@_config
def echo(destination: str, config: Path) -> None:
    """C-ECHO a destination of the configuration, or any node, with a diagnosis when it fails."""
    settings = _settings_for(destination, config)
    sys.exit(0 if _echo_one(settings, destination) else 1)


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--to", "destination", required=True, metavar="NAME|AET@HOST:PORT", help="Where to send to.")
@_config
@_json
def send(paths: Sequence[Path], destination: str, config: Path, as_json: bool) -> None:
    """Send files, folders and zip archives by C-STORE, untouched and without unpacking archives to disk."""
    from router.deliver.send import send as send_all
    from router.deliver.sources import NotDicom, Source, find

    address = _address(_settings_for(destination, config), destination)
    found = list(find(paths))
    sources = [item for item in found if isinstance(item, Source)]
    skipped = [item for item in found if isinstance(item, NotDicom)]
    rows: list[dict[str, Any]] = [{"name": item.name, "status": "skipped", "note": item.reason} for item in skipped]
    with _progress("sending", len(sources), hidden=as_json) as advance:
        for sent in send_all(address, sources):
            rows.append({"name": sent.source.name, "status": sent.status, "note": sent.note})
            advance()
    failed = [row for row in rows if row["status"] == "failed"]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            if row["status"] != "sent" or row["note"]:
                _OUT.print(
                    f"{row['status']}: {row['name']}: {row['note']}", markup=False, highlight=False, soft_wrap=True
                )
        table = _table("status", "instances")
        for status in ("sent", "failed", "skipped"):
            table.add_row(status, str(sum(row["status"] == status for row in rows)))
        _OUT.print(table)
    sys.exit(1 if failed or not sources else 0)


@cli.command()
@click.option("--chaos", is_flag=True, help="Kill it, slow it, fill its disk, send it everything twice.")
def selftest(chaos: bool) -> None:
    """Start a node and a destination of its own on free loopback ports; with --chaos also see what holds when things go wrong."""
    from router.selftest.run import run

    sys.exit(run(chaos=chaos, console=_OUT))


# ---- what the ledger knows


@cli.command()
@_config
@_json
def queue(config: Path, as_json: bool) -> None:
    """What is owed, by kind, target and state; failed tasks with their reasons."""
    with _ledger(load(config)) as ledger:
        lanes, failed = ledger.queries.lanes(), ledger.queries.failed()
    if as_json:
        click.echo(
            json.dumps({"lanes": [_plain(lane) for lane in lanes], "failed": [_plain(t) for t in failed]}, indent=2)
        )
        return
    table = _table("kind", "target", "ready", "in work", "retry", "failed", "done", "oldest owed came")
    for lane in lanes:
        counts = [str(lane.counts.get(state, 0)) for state in ("ready", "leased", "retry", "failed", "done")]
        oldest = "" if lane.oldest_at is None else f"{(datetime.now(UTC) - lane.oldest_at).total_seconds():.0f} s ago"
        table.add_row(lane.kind, lane.target, *counts, oldest)
    _OUT.print(table)
    for task in failed:
        line = f"task {task.task_id}: {task.kind} {task.target} {task.sop_instance_uid}: {task.error}"
        _OUT.print(line, markup=False, highlight=False, soft_wrap=True)
    if failed:
        _OUT.print("Put them back with: router requeue --failed", markup=False, highlight=False)


@cli.command()
@click.argument("tasks", nargs=-1, type=int)
@click.option("--failed", is_flag=True, help="All failed tasks.")
@click.option("--target", help="With --failed: only those of one destination or classifier.")
@_config
def requeue(tasks: Sequence[int], failed: bool, target: str | None, config: Path) -> None:
    """Put failed tasks back: by number, or all of them."""
    if bool(tasks) == failed:
        raise click.UsageError("name task numbers, or --failed")
    with _ledger(load(config)) as ledger:
        count = ledger.requeue(None if failed else tasks, target=target)
    _OUT.print(f"{count} task(s) put back")
    sys.exit(0 if count or failed else 1)


@cli.command()
@click.argument("uid")
@_config
@_json
def trace(uid: str, config: Path, as_json: bool) -> None:
    """The chain of custody of one SOP instance, study or result: what happened, when, where."""
    with _ledger(load(config)) as ledger:
        entries = ledger.queries.trace(uid)
    if as_json:
        click.echo(json.dumps([_plain(entry) for entry in entries], indent=2))
    elif entries:
        objects = dict.fromkeys((entry.instance_kind, entry.sop_instance_uid, entry.sha256) for entry in entries)
        for kind, sop_instance_uid, sha256 in objects:
            line = f"{kind:9} {sop_instance_uid}  SHA-256 {sha256[:16]}…"
            _OUT.print(line, markup=False, highlight=False, soft_wrap=True)
        table = _table("time (UTC)", "what", "object", "target", "try", "details")
        table.columns[0].no_wrap = True
        day = None
        for entry in entries:
            at = entry.at.strftime("%H:%M:%S.%f")[:-3]
            if day != entry.at.date():
                day = entry.at.date()
                at = f"{day}\n{at}"
            what = entry.what.replace("_", " ")
            table.add_row(at, what, entry.instance_kind, entry.target, str(entry.attempt or ""), entry.detail)
        _OUT.print(table)
    else:
        _ERR.print(f"The ledger knows no SOP instance or study {uid}", markup=False, highlight=False)
    sys.exit(0 if entries else 1)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--calling-ae-title", default="", help="As if this node had sent it.")
@_config
@_json
def explain(file: Path, calling_ae_title: str, config: Path, as_json: bool) -> None:
    """Which rules match a file and why, what would be classified, sent and where. Sends nothing."""
    from router.offline import explain as decide

    verdict = decide(load(config), file, calling_ae_title=calling_ae_title)
    if as_json:
        click.echo(json.dumps(verdict, indent=2))
        return
    for rule in verdict["rules"]:
        mark = "matches" if rule["matches"] else f"does not match: {rule['because']}"
        _OUT.print(f"rule {rule['name']!r} {mark}", markup=False, highlight=False, soft_wrap=True)
    for line in verdict["summary"]:
        _OUT.print(line, markup=False, highlight=False, soft_wrap=True)


# ---- classifiers


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--classifier", help="Name of a classifier of the configuration; without it the built-in demo classifier."
)
@_config
@_json
def classify(files: Sequence[Path], classifier: str | None, config: Path, as_json: bool) -> None:
    """Findings of local files; no network, no ledger."""
    from router.offline import classify_files

    rows = classify_files(load(config) if classifier else None, files, classifier=classifier)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        _OUT.print(row["file"], style="bold", markup=False, highlight=False)
        if "not_analysed" in row:
            _OUT.print(
                f"  not analysed: {row['not_analysed']['reason']}", markup=False, highlight=False, soft_wrap=True
            )
            continue
        prediction = row["prediction"]
        identity = prediction["classifier"]
        _OUT.print(f"  {identity['algorithm']} ({identity['version']})", markup=False, highlight=False)
        if identity["demonstration"]:
            _OUT.print("  DEMONSTRATION: trained on drawings, no clinical meaning", style="yellow")
        for finding in sorted(prediction["findings"], key=lambda f: -f["score"]):
            mark = "present" if finding["score"] >= finding["threshold"] else "absent"
            _OUT.print(f"  {finding['score']:6.3f}  {mark:8} {finding['label']}", markup=False, highlight=False)


_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/weights"),
    show_default=True,
    help="Where weights are kept: the setting `folder` of a classifier.",
)


@cli.group()
def models() -> None:
    """Weights of TorchXRayVision's classifiers: list, fetch, verify, import."""


@models.command("list")
@_folder
@_json
def models_list(folder: Path, as_json: bool) -> None:
    """The weights the router knows, and which of them are here."""
    from router.classify.verify import list_weights

    listed = list_weights(folder)
    if as_json:
        click.echo(json.dumps([_plain(item) for item in listed], indent=2))
        return
    table = _table("name", "labels", "here", "SHA-256", "known from")
    for item in listed:
        here = f"no: {item.problem}" if item.problem else "yes" if item.here else "no"
        table.add_row(item.name, str(len(item.labels)), here, item.sha256[:16], item.trust)
    _OUT.print(table)


@models.command("fetch")
@click.argument("name")
@_folder
@click.option("--mirror", default="", help="An http(s) address under which upstream's files lie.")
@click.option("--sha256", default="", help="Of the file as published, when you know better than the router.")
def models_fetch(name: str, folder: Path, mirror: str, sha256: str) -> None:
    """Download weights, check their SHA-256, convert them once to safetensors."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from router.classify.verify import fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_ERR) as bars:
        bar = bars.add_task(name, total=None)
        weights = fetch(
            name,
            folder,
            mirror=mirror,
            sha256=sha256,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    _OUT.print(
        f"{weights.path}: SHA-256 {weights.sha256} ({weights.trust})", markup=False, highlight=False, soft_wrap=True
    )


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_folder
@click.option("--name", default="", help="Which weights it holds, when neither file name nor digest says.")
@click.option("--sha256", default="", help="Of the file, as told by whoever you have it from.")
def models_import(file: Path, folder: Path, name: str, sha256: str) -> None:
    """Take in a weights file that somebody brought: for machines without internet."""
    from router.classify.verify import import_file

    weights = import_file(file, folder, name=name, sha256=sha256)
    _OUT.print(f"{weights.path}: {weights.name} ({weights.trust})", markup=False, highlight=False, soft_wrap=True)


@models.command("verify")
@click.argument("name")
@_folder
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="A folder with upstream's sample images.",
)
def models_verify(name: str, folder: Path, images: Path) -> None:
    """Compare our outputs with those that upstream published for its sample images."""
    from router.classify.verify import published, verify
    from router.classify.weights import WeightsFolder

    weights = WeightsFolder(folder).obtain(published(name), may_fetch=False)
    verification = verify(weights, images)
    table = _table("image", "labels", "largest difference", "at", "verdict")
    for item in verification.comparisons:
        verdict = "agrees" if item.agrees else "DIFFERS"
        table.add_row(item.image, str(item.compared), f"{item.difference_max:.2e}", item.label, verdict)
    _OUT.print(table)
    for image in verification.missing_images:
        _OUT.print(f"not at hand: {image}", markup=False, highlight=False)
    sys.exit(0 if verification.agrees else 1)


# ---- shared by the commands


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
    from router.deliver.address import echo as echo_destination

    try:
        echo_destination(settings, destination)
    except RouterError as error:
        _OUT.print(f"{destination}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return False
    _OUT.print(f"{destination}: answers", style="green", markup=False, highlight=False)
    return True


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _options(options: Any) -> str:
    return "" if options is None else ", ".join(f"{k}={v}" for k, v in options.model_dump().items() if v is not None)


@contextmanager
def _ledger(settings: Settings) -> Iterator[Any]:
    from router.node import open_ledger

    ledger = open_ledger(settings, create=False)
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def _progress(what: str, total: int, *, hidden: bool) -> Iterator[Callable[[], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_ERR, disable=hidden) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON-able values; times in ISO 8601."""
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in asdict(value).items()}
