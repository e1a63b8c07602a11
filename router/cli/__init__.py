"""The command line. Exit codes: 0 good, 1 the thing asked about is bad, 2 wrong use. `--json` where a machine may read it.

Only arguments and printing live here; each command calls one function of the package that knows the matter.
"""

from __future__ import annotations

import sys

import click

import router
from router.cli import conformance, explain, forget, images, ledger, node, notify, reproduce, user, weights
from router.cli.console import ERR
from router.errors import ConfigError, RouterError


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
        ERR.print("The configuration is refused:", style="bold red")
        for problem in error.problems:
            ERR.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except RouterError as error:
        ERR.print(f"{type(error).__name__}: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


for _command in (
    node.serve,
    node.demo,
    node.check,
    node.echo,
    node.send,
    node.selftest,
    ledger.queue,
    ledger.requeue,
    ledger.trace,
    notify.notify,
    forget.forget,
    explain.explain,
    images.classify,
    reproduce.reproduce,
    conformance.conformance,
    weights.models,
    user.user,
):
    cli.add_command(_command)
