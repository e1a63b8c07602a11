"""Commands for weights: models list, show, fetch, import, verify."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.console import ERR, OUT, json_option, plain, progress, table_of
from router.errors import ConfigError

if TYPE_CHECKING:
    from router.classify.weights import Weights

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
    help="A folder with upstream's sample images; with --precision, with chest radiographs of yours.",
)
@click.option(
    "--precision",
    type=click.Choice(["bf16", "fp16"]),
    help="Measure how far scores move in this precision, and write the verdict beside the weights.",
)
@click.option("--runtime", type=click.Choice(["openvino", "torch"]), default="openvino", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--bound", type=float, default=0.05, show_default=True, help="How far a score may move.")
@click.option("--images-max", type=int, default=200, show_default=True, help="How many images are measured at most.")
@json_option
def models_verify(name: str, folder: Path, images: Path, precision: str | None, **how: Any) -> None:
    """Compare our outputs with those that upstream published, or those of a reduced precision with single precision.

    NAME is a classifier's name or a weights file. Exit 1 when they differ by more than they may.
    """
    from router.classify.catalogue import find_weights

    weights = find_weights(name, folder)
    sys.exit(
        0
        if (_as_published(weights, images, how) if precision is None else _reduced(weights, images, precision, how))
        else 1
    )


def _as_published(weights: Weights, images: Path, how: Mapping[str, Any]) -> bool:
    from router.classify.verify import verify

    verification = verify(weights, images)
    if how["as_json"]:
        click.echo(json.dumps({**plain(verification), "agrees": verification.agrees}, indent=2))
        return bool(verification.agrees)
    table = table_of("image", "labels", "largest difference", "at", "verdict")
    for item in verification.comparisons:
        verdict = "agrees" if item.agrees else "DIFFERS"
        table.add_row(item.image, str(item.compared), f"{item.difference_max:.2e}", item.label, verdict)
    OUT.print(table)
    for image in verification.missing_images:
        OUT.print(f"not at hand: {image}", markup=False, highlight=False)
    if verification.agrees is None:
        OUT.print("nothing could be compared", markup=False, highlight=False)
    return bool(verification.agrees)


def _reduced(weights: Weights, images: Path, precision: str, how: Mapping[str, Any]) -> bool:
    from router.classify.network import Computing, installed
    from router.classify.precision import measure, record
    from router.classify.verify import inputs_of

    try:
        installed(how["runtime"])
    except ValueError as error:
        raise ConfigError([f"--runtime {how['runtime']}: {error}"]) from None
    computing = Computing(runtime=how["runtime"], device=how["device"], precision=precision)  # type: ignore[arg-type]
    inputs = inputs_of(images, weights.side, count_max=how["images_max"])
    with progress("images", len(inputs), hidden=how["as_json"]) as advance:
        verdict = measure(weights, inputs, computing, bound=how["bound"], progress=advance)
    path = record(verdict, weights)
    if how["as_json"]:
        click.echo(json.dumps({**plain(verdict), "path": str(path)}, indent=2))
        return verdict.accepted
    OUT.print(
        f"{verdict.image_count} images, {verdict.compared} scores, {computing}: largest difference "
        f"{verdict.difference_max:.4f} ({verdict.label}), mean {verdict.difference_mean:.5f}; "
        f"{verdict.changed} findings on the other side of their operating point. Bound {verdict.bound:g}: "
        f"{'accepted' if verdict.accepted else 'REFUSED'}. {path}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return verdict.accepted
