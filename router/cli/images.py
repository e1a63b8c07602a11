"""The command for the findings of single files: classify."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from router.cli.console import OUT, config_option, json_option
from router.settings import load


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
