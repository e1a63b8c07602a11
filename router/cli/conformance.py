"""The command that writes the DICOM conformance statement: conformance."""

from __future__ import annotations

from pathlib import Path

import click

from router.cli.console import ERR, config_option
from router.settings import load


@click.command()
@config_option
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of standard output."
)
def conformance(config: Path, output: Path | None) -> None:
    """Write the DICOM conformance statement (PS3.2) of a node with this configuration, in Markdown."""
    from router.conformance.statement import statement

    text = statement(load(config))
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    ERR.print(f"written to {output}", markup=False, highlight=False)
