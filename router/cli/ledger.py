"""Commands that ask the ledger: queue, requeue, trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from router.audit import events
from router.cli.console import ERR, OUT, audit, audit_look, config_option, json_option, open_ledger, plain, table_of
from router.core.digest import parsed
from router.core.lifecycle import TaskKind, TaskState
from router.errors import RouterError
from router.settings import Settings, load


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
        counts = [str(lane.counts.get(TaskState(state), 0)) for state in ("ready", "leased", "retry", "failed", "done")]
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
@click.option("--kind", type=click.Choice([kind.value for kind in TaskKind]), help="With --failed: only this work.")
@click.option("--target", help="With --failed: only those of one destination or classifier.")
@config_option
@json_option
def requeue(
    *, tasks: Sequence[int], failed: bool, kind: str | None, target: str | None, config: Path, as_json: bool
) -> None:
    """Put failed tasks back: by number (also those that wait for another try), or all of them."""
    if bool(tasks) == failed or (tasks and (kind or target)):
        raise click.UsageError("name task numbers, or --failed with or without --kind and --target")
    settings = load(config)
    with open_ledger(settings) as ledger:
        targets = sorted({lane.target for lane in ledger.queries.lanes()})
        if target is not None and target not in targets:
            raise RouterError(f"nothing was ever owed to {target!r}; there: {', '.join(targets) or 'nobody'}")
        if tasks:
            what, expected = f"tasks {', '.join(map(str, tasks))}", ledger.search.failed_count(task_ids=tasks)
        else:
            what = " ".join(filter(None, ("all failed:", kind, target))) if kind or target else "all failed"
            expected = ledger.search.failed_count(kind=kind or "", target=target or "")
        audit(settings, partial(events.requeued, what=what, count=expected))
        count = ledger.requeue(set(tasks) or None, kind=TaskKind(kind) if kind else None, target=target)
    asked = len(set(tasks)) if tasks else count
    if as_json:
        click.echo(json.dumps({"put_back": count, "asked_for": asked}, indent=2))
    else:
        others = "" if count == asked else f"; {asked - count} neither failed nor waiting for another try, or unknown"
        OUT.print(f"{count} task(s) put back{others}", markup=False, highlight=False)
    sys.exit(0 if count == asked else 1)


@click.command()
@click.argument("uid")
@config_option
@json_option
@click.option(
    "--fhir", "as_fhir", is_flag=True, help="Print its reports as a FHIR R4 Bundle instead; holds patient data."
)
def trace(uid: str, config: Path, as_json: bool, as_fhir: bool) -> None:
    """The chain of custody of one SOP instance, study or result: what happened, when, where."""
    if as_json and as_fhir:
        raise click.UsageError("--json or --fhir, not both")
    settings = load(config)
    if as_fhir:
        sys.exit(_tell(settings, uid))
    with open_ledger(settings) as ledger:
        entries = ledger.queries.trace(uid)
        if entries:
            audit_look(settings, ledger, uid)
    if as_json:
        click.echo(json.dumps([plain(entry) for entry in entries], indent=2))
    elif entries:
        objects = dict.fromkeys((entry.instance_kind, entry.sop_instance_uid, entry.digest) for entry in entries)
        for kind, sop_instance_uid, digest in objects:
            line = f"{kind:9} {sop_instance_uid}  {parsed(digest).short}"
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


def _tell(settings: Settings, uid: str) -> int:
    """Prints a FHIR Bundle; the exit code: 1 when something is not in it."""
    from router.reported import as_fhir

    with open_ledger(settings) as ledger:
        told = as_fhir(settings, ledger.queries, uid)
        audit_look(settings, ledger, uid)
    if told.bundle is not None:
        click.echo(json.dumps(told.bundle, indent=2, ensure_ascii=False))
    for line in told.missing:
        ERR.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if told.missing else 0
