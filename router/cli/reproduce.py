"""The command that computes a report again."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from router.cli.console import OUT, audit_look, config_option, json_option, open_ledger, table_of
from router.settings import load


@click.command()
@click.argument("report")
@click.argument("original", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@config_option
@json_option
def reproduce(report: str, original: Path | None, config: Path, as_json: bool) -> None:
    """Computes a report again from its original image and compares every finding and every byte.

    REPORT is its SOP Instance UID or a file; ORIGINAL a file of the image, where the spool does not hold it any more.
    Exit code 0 only when it reproduces, byte for byte. Nothing is sent and nothing written.
    """
    from router.reproduce import reproduce as compute

    settings = load(config)
    result = compute(settings, report, original)
    if not Path(report).exists():  # it is the node's, and not a file that somebody has
        with open_ledger(settings) as ledger:
            audit_look(settings, ledger, report)
    if as_json:
        click.echo(json.dumps({**asdict(result), "reproduces": result.reproduces}, indent=2))
        sys.exit(0 if result.reproduces else 1)
    for line in (
        f"report    {result.sop_instance_uid}",
        f"original  {result.original_uid}",
        f"computed  {result.algorithm}, weights SHA-256 {result.weights_sha256[:16]}…, by {result.classifier or 'nobody'}",
    ):
        OUT.print(line, markup=False, highlight=False, soft_wrap=True)
    if result.findings:
        table = table_of("finding", "report", "computed", "")
        for pair in result.findings:
            said, computed = (f"{one.score_percent:.2f} %" if one else "-" for one in (pair.said, pair.computed))
            table.add_row(pair.label, said, computed, "same" if pair.same else "DIFFERS")
        OUT.print(table)
    for line in result.differences or ["It reproduces: every finding, and every byte of the document."]:
        OUT.print(line, markup=False, highlight=False, soft_wrap=True)
    sys.exit(0 if result.reproduces else 1)
