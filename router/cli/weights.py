"""Commands for weights: models list, show, fetch, import, verify."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from router.cli.console import ERR, OUT, json_option, plain, table_of

_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/weights"),
    show_default=True,
    help="Where weights are kept: the setting `folder` of a classifier.",
)


@click.group()
def models() -> None:
    """Classifiers and their weights: list, show, fetch, verify, import."""


@models.command("list")
@_folder
@json_option
def models_list(folder: Path, as_json: bool) -> None:
    """The classifiers the router knows, what they were trained on, and which of their weights are here."""
    from router.classify.catalogue import list_weights

    listed = list_weights(folder)
    if as_json:
        click.echo(json.dumps([plain(item) for item in listed], indent=2))
        return
    table = table_of("name", "labels", "trained on", "here", "SHA-256")
    table.columns[0].no_wrap = table.columns[-1].no_wrap = True
    for item in listed:
        here = f"no: {item.problem}" if item.problem else f"yes, {item.trust}" if item.here else "no"
        data = ", ".join(line.partition(":")[0] for line in item.card.trained_on)
        table.add_row(item.name, str(len(item.labels)), data, here, item.sha256[:8] or "not known")
    OUT.print(table)
    OUT.print("Operating points, limits, licence, literature: router models show NAME", highlight=False)


@models.command("show")
@click.argument("name")
@_folder
@json_option
def models_show(name: str, folder: Path, as_json: bool) -> None:
    """The model card of a classifier, by its name or by the path of a weights file."""
    from router.classify.card import markdown
    from router.classify.catalogue import find_card

    card = find_card(name, folder)
    click.echo(json.dumps(card.to_json(), indent=2) if as_json else markdown(card), nl=as_json)


@models.command("fetch")
@click.argument("name")
@_folder
@click.option("--mirror", default="", help="An http(s) address under which upstream's files lie.")
@click.option("--sha256", default="", help="Of the file as published, when you know better than the router.")
def models_fetch(name: str, folder: Path, mirror: str, sha256: str) -> None:
    """Download weights, check their SHA-256, convert them once to safetensors."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from router.classify.catalogue import fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=ERR) as bars:
        bar = bars.add_task(name, total=None)
        weights = fetch(
            name,
            folder,
            mirror=mirror,
            sha256=sha256,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    OUT.print(
        f"{weights.path}: SHA-256 {weights.sha256} ({weights.trust})", markup=False, highlight=False, soft_wrap=True
    )


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_folder
@click.option("--name", default="", help="Which weights it holds, when neither file name nor digest says.")
@click.option(
    "--card",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Of a site's own weights: what they are (docs/models/own.md). By default FILE's name with the ending .toml.",
)
@click.option("--sha256", default="", help="Of the file, as told by whoever you have it from.")
def models_import(file: Path, folder: Path, name: str, card: Path | None, sha256: str) -> None:
    """Take in a weights file that somebody brought: for machines without internet."""
    from router.classify.catalogue import import_file

    weights = import_file(file, folder, name=name, card=card, sha256=sha256)
    OUT.print(f"{weights.path}: {weights.name} ({weights.trust})", markup=False, highlight=False, soft_wrap=True)


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
    from router.classify.catalogue import find_weights
    from router.classify.verify import verify

    weights = find_weights(name, folder)
    verification = verify(weights, images)
    table = table_of("image", "labels", "largest difference", "at", "verdict")
    for item in verification.comparisons:
        verdict = "agrees" if item.agrees else "DIFFERS"
        table.add_row(item.image, str(item.compared), f"{item.difference_max:.2e}", item.label, verdict)
    OUT.print(table)
    for image in verification.missing_images:
        OUT.print(f"not at hand: {image}", markup=False, highlight=False)
    sys.exit(0 if verification.agrees else 1)
