"""Commands that ask the ledger: queue, requeue, trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from router.cli.console import ERR, OUT, config_option, json_option, open_ledger, plain, table_of
from router.settings import load


@click.command()
@config_option
@json_option
def queue(config: Path, as_json: bool) -> None:
    """What is owed, by kind, target and state; failed tasks with their reasons."""
    with open_ledger(load(config)) as ledger:
        lanes, failed = ledger.queries.lanes(), ledger.queries.failed()
    if as_json:
        click.echo(
            json.dumps({"lanes": [plain(lane) for lane in lanes], "failed": [plain(t) for t in failed]}, indent=2)
        )
        return
    table = table_of("kind", "target", "ready", "in work", "retry", "failed", "done", "oldest owed came")
    for lane in lanes:
        counts = [str(lane.counts.get(state, 0)) for state in ("ready", "leased", "retry", "failed", "done")]
        oldest = "" if lane.oldest_at is None else f"{(datetime.now(UTC) - lane.oldest_at).total_seconds():.0f} s ago"
        table.add_row(lane.kind, lane.target, *counts, oldest)
    OUT.print(table)
    for task in failed:
        line = f"task {task.task_id}: {task.kind} {task.target} {task.sop_instance_uid}: {task.error}"
        OUT.print(line, markup=False, highlight=False, soft_wrap=True)
    if failed:
        OUT.print("Put them back with: router requeue --failed", markup=False, highlight=False)


@click.command()
@click.argument("tasks", nargs=-1, type=int)
@click.option("--failed", is_flag=True, help="All failed tasks.")
@click.option("--target", help="With --failed: only those of one destination or classifier.")
@config_option
def requeue(tasks: Sequence[int], failed: bool, target: str | None, config: Path) -> None:
    """Put failed tasks back: by number, or all of them."""
    if bool(tasks) == failed:
        raise click.UsageError("name task numbers, or --failed")
    with open_ledger(load(config)) as ledger:
        count = ledger.requeue(None if failed else tasks, target=target)
    OUT.print(f"{count} task(s) put back")
    sys.exit(0 if count or failed else 1)


@click.command()
@click.argument("uid")
@config_option
@json_option
def trace(uid: str, config: Path, as_json: bool) -> None:
    """The chain of custody of one SOP instance, study or result: what happened, when, where."""
    with open_ledger(load(config)) as ledger:
        entries = ledger.queries.trace(uid)
    if as_json:
        click.echo(json.dumps([plain(entry) for entry in entries], indent=2))
    elif entries:
        objects = dict.fromkeys((entry.instance_kind, entry.sop_instance_uid, entry.sha256) for entry in entries)
        for kind, sop_instance_uid, sha256 in objects:
            line = f"{kind:9} {sop_instance_uid}  SHA-256 {sha256[:16]}…"
            OUT.print(line, markup=False, highlight=False, soft_wrap=True)
        table = table_of("time (UTC)", "what", "object", "target", "try", "details")
        table.columns[0].no_wrap = True
        day = None
        for entry in entries:
            at = entry.at.strftime("%H:%M:%S.%f")[:-3]
            if day != entry.at.date():
                day = entry.at.date()
                at = f"{day}\n{at}"
            what = entry.what.replace("_", " ")
            table.add_row(at, what, entry.instance_kind, entry.target, str(entry.attempt or ""), entry.detail)
        OUT.print(table)
    else:
        ERR.print(f"The ledger knows no SOP instance or study {uid}", markup=False, highlight=False)
    sys.exit(0 if entries else 1)
