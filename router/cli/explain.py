"""The command that says what the rules do with a file or with what came before, and what edited rules would: explain."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.console import ERR, OUT, audit, config_option, json_option, open_ledger, table_of
from router.core.admission import valid_uid
from router.settings import Settings, load

if TYPE_CHECKING:
    from router.trial import Trial, Tried

_SIGNS = {"+": "new", "-": "no more", "=": "as now"}
_UID_IMAGES_MAX = 1000


@click.command()
@click.argument("what", metavar="[FILE|UID]", required=False)
@click.option("--last", type=click.IntRange(1, 100_000), help="The instances that came last, so many, instead of one.")
@click.option(
    "--rules",
    "rules_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file with edited [[rules]] (and default_deliver): show what would change with them.",
)
@click.option("--calling-ae-title", default="", help="As if this node had sent it.")
@config_option
@json_option
def explain(
    *, what: str | None, last: int | None, rules_file: Path | None, calling_ae_title: str, config: Path, as_json: bool
) -> None:
    """Which rules match and why, what would be classified, sent and where; with --rules also what would change.

    Of a FILE, of what came before (SOP or Study Instance UID, or --last). Sends and writes nothing. Exit code 1 when
    the node would refuse it.
    """
    if (what is None) == (last is None):
        raise click.UsageError("name a file or a UID, or --last")
    file = Path(what) if what is not None and Path(what).is_file() else None
    if what is not None and file is None and not valid_uid(what):
        raise click.UsageError(f"{what}: no such file, and not a UID")
    settings = load(config)
    edited = _edited(settings, rules_file) if rules_file else None
    if file is not None:
        from router.offline import explain as explain_file

        tried = explain_file(settings, file, calling_ae_title=calling_ae_title, edited=edited)
        _tell_one(tried, file=file, with_edited=edited is not None, as_json=as_json)
        sys.exit(0 if tried.comparison.edited.plan.taken else 1)
    trial = _past(settings, what or "", last=last or _UID_IMAGES_MAX, calling_ae_title=calling_ae_title, edited=edited)
    if not trial.tried:
        ERR.print(
            f"The ledger knows no original with the UID {what}" if what else "Nothing has come in yet",
            markup=False,
            highlight=False,
        )
        sys.exit(1)
    _tell_past(trial, with_edited=edited is not None, as_json=as_json)
    sys.exit(0 if all(one.comparison.edited.plan.taken for one in trial.tried) else 1)


def _past(settings: Settings, uid: str, *, last: int, calling_ae_title: str, edited: Settings | None) -> Trial:
    from router.audit.events import seen_of, viewed
    from router.offline import explain_past

    with open_ledger(settings) as ledger:
        trial = explain_past(settings, ledger, uid=uid, last=last, calling_ae_title=calling_ae_title, edited=edited)
    if trial.tried:
        audit(settings, partial(viewed, seen=seen_of(one.instance for one in trial.tried)))
    return trial


def _edited(settings: Settings, path: Path) -> Settings:
    """Prints what is wrong with the rules, each with its line, and ends."""
    from router.settings.editing import EditRefused, edited

    try:
        return edited(settings, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: cannot be read") from error
    except EditRefused as error:
        ERR.print("The edited rules are refused:", style="bold red")
        for problem in error.found:
            where = f"{path}:{problem.line}" if problem.line else str(path)
            ERR.print(f"  {where}: {problem.text}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def _tell_one(tried: Tried, *, file: Path, with_edited: bool, as_json: bool) -> None:
    from router.offline import explained

    if as_json:
        click.echo(json.dumps({"file": str(file), **explained(tried, with_edited=with_edited)}, indent=2))
        return
    for rules, title in ((tried.comparison.now, "rule"), (tried.comparison.edited, "edited rule"))[: 1 + with_edited]:
        table = table_of(title, "matches", "because")
        for rule in rules.rules:
            table.add_row(rule.name, "yes" if rule.matches else "no", rule.because)
        OUT.print(table)
    if with_edited:
        _print_lines([f"{line.sign} {_SIGNS[line.sign]:7}  {line.what}" for line in tried.comparison.lines])
        _print_lines([] if tried.comparison.changes else ["Nothing would change."])
    else:
        _print_lines(tried.comparison.now.deeds)


def _tell_past(trial: Trial, *, with_edited: bool, as_json: bool) -> None:
    from router.offline import explained

    count = len(trial.tried)
    if as_json:
        told: dict[str, Any] = {"instances": [explained(one, with_edited=with_edited) for one in trial.tried]}
        if with_edited:
            told["changed_count"] = len(trial.changed)
        click.echo(json.dumps(told, indent=2))
        return
    shown = trial.changed if with_edited else trial.tried
    if shown:
        table = table_of("SOP Instance UID", "", "what", "by the rules")
        for one in shown:
            signs = [f"{line.sign} {_SIGNS[line.sign]}" if with_edited else "" for line in one.comparison.lines]
            now, edited = (", ".join(part.plan.rules) or "none" for part in (one.comparison.now, one.comparison.edited))
            table.add_row(
                one.instance.sop_instance_uid,
                "\n".join(signs),
                "\n".join(line.what for line in one.comparison.lines),
                now if now == edited else f"{now} → {edited}",
            )
        OUT.print(table)
    if with_edited:
        verb = (
            f"{len(trial.changed)} of {count} would be handled differently" if trial.changed else "Nothing would change"
        )
        _print_lines([f"{verb}; {count} compared."])
    for names in sorted({one.unknown for one in trial.tried if one.unknown}):
        _print_lines([f"Not known of some, taken as absent (not kept, and the bytes are freed): {', '.join(names)}"])


def _print_lines(lines: Any) -> None:
    for line in lines:
        OUT.print(line, markup=False, highlight=False, soft_wrap=True)
