"""Commands for single files: explain, classify."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from router.cli.console import OUT, config_option, json_option
from router.settings import load


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--calling-ae-title", default="", help="As if this node had sent it.")
@config_option
@json_option
def explain(file: Path, calling_ae_title: str, config: Path, as_json: bool) -> None:
    """Which rules match a file and why, what would be classified, sent and where. Sends nothing.

    Exit code 1 when the node would refuse it.
    """
    from router.offline import explain as decide

    verdict = decide(load(config), file, calling_ae_title=calling_ae_title)
    if as_json:
        click.echo(json.dumps(verdict, indent=2))
        sys.exit(0 if verdict["taken"] else 1)
    for rule in verdict["rules"]:
        mark = "matches" if rule["matches"] else f"does not match: {rule['because']}"
        OUT.print(f"rule {rule['name']!r} {mark}", markup=False, highlight=False, soft_wrap=True)
    for line in verdict["summary"]:
        OUT.print(line, markup=False, highlight=False, soft_wrap=True)
    sys.exit(0 if verdict["taken"] else 1)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--classifier", help="Name of a classifier of the configuration; without it the built-in demo classifier."
)
@config_option
@json_option
def classify(files: Sequence[Path], classifier: str | None, config: Path, as_json: bool) -> None:
    """Findings of local files; no network, no ledger. Exit code 1 when a file has none."""
    from router.offline import classify_files

    rows = classify_files(load(config) if classifier else None, files, classifier=classifier)
    code = 1 if any("not_analysed" in row for row in rows) else 0
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        sys.exit(code)
    for row in rows:
        OUT.print(row["file"], style="bold", markup=False, highlight=False)
        if "not_analysed" in row:
            OUT.print(f"  not analysed: {row['not_analysed']['reason']}", markup=False, highlight=False, soft_wrap=True)
            continue
        prediction = row["prediction"]
        identity = prediction["classifier"]
        OUT.print(f"  {identity['algorithm']} ({identity['version']})", markup=False, highlight=False)
        if identity["demonstration"]:
            OUT.print("  DEMONSTRATION: trained on drawings, no clinical meaning", style="yellow")
        for finding in sorted(prediction["findings"], key=lambda f: -f["score"]):
            mark = "present" if finding["score"] >= finding["threshold"] else "absent"
            OUT.print(f"  {finding['score']:6.3f}  {mark:8} {finding['label']}", markup=False, highlight=False)
    sys.exit(code)
