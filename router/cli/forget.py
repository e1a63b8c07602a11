"""The command that removes a study from this node: forget."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from router.cli.console import ERR, OUT, config_option, json_option, open_ledger
from router.errors import RouterError
from router.settings import load


@click.command()
@click.option("--study", required=True, help="Study Instance UID.")
@click.option("--force", is_flag=True, help="Also when something of it is owed or has failed: that is given up.")
@config_option
@json_option
def forget(study: str, force: bool, config: Path, as_json: bool) -> None:
    """Remove everything of a study from this node: bytes, rows, findings, results. Archives keep what they have.

    The audit trail keeps who did it. Exit code 1 when there is no such study, or something came to it meanwhile.
    """
    from router.forgotten import forget_study

    settings = load(config)
    with open_ledger(settings) as ledger:
        try:
            gone = forget_study(settings, ledger, study, force=force)
        except OSError as error:
            raise RouterError(f"not forgotten, or not entirely: {error.strerror or error}; try again") from error
    if gone is None:
        ERR.print(f"The ledger knows no study {study}", markup=False, highlight=False)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(asdict(gone), indent=2))
    else:
        given_up = f"; {gone.given_up_count} task(s) given up" if gone.given_up_count else ""
        OUT.print(f"{gone.instance_count} instance(s) forgotten{given_up}", markup=False, highlight=False)
        if gone.stays:
            OUT.print("something of this study came meanwhile and is still there", markup=False, highlight=False)
    sys.exit(1 if gone.stays else 0)
