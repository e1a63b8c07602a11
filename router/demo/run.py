"""The demo from start to table. Everything it says is checked at the destination, not taken from our own ledger."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from router.core.findings import Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import OWED, TaskKind, TaskState
from router.demo.destination import DemoDestination, find_destination
from router.demo.samples import Sample, draw
from router.ending import Ending
from router.errors import RouterError, WeightsUnavailable
from router.ledger.queries import InstanceStatus
from router.loopback import HOST, free_port
from router.settings import Settings, load
from router.web.users import FIRST_USER

_AE_TITLE = "ROUTER"
_START_S = 120.0
_WORK_S = 300.0
_MARK = ".router-demo"


@dataclass(slots=True, kw_only=True)
class Row:
    """One image's way, as the table shows it."""

    sample: Sample
    sop_instance_uid: str
    sha256: str
    responded_at: datetime | None = None
    status: InstanceStatus | None = None
    """For what was found and when it went out."""
    original_seen: bool = False
    original_identical: bool = False
    """Byte for byte."""
    original_equal: bool = False
    """Element for element: Orthanc, for one, writes the lengths of sequences its own way."""
    results: tuple[SopInstance, ...] = ()
    seen: set[str] = field(default_factory=set)
    """SOP Instance UIDs of those that the destination has."""
    refused: str = ""

    @property
    def good(self) -> bool:
        """True when the original and every result were seen at the destination."""
        return not self.refused and self.original_equal and len(self.seen) == len(self.results)

    def made(self, kind: InstanceKind, *, seen: bool = False) -> list[str]:
        """SOP Instance UIDs of its results of a kind: all, or those that were seen at the destination."""
        uids = [result.sop_instance_uid for result in self.results if result.kind is kind]
        return [uid for uid in uids if not seen or uid in self.seen]


def run(*, paths: Sequence[Path], output: Path, keep: bool, console: Console) -> int:
    """Exit code: 0 only if every original and every SR was seen at the destination."""
    output = _fresh(output)
    samples = _given(paths) if paths else draw(output / "samples")
    destination = find_destination(output / "destination", router_ae_title=_AE_TITLE)
    console.print(f"[bold]Destination[/]  {destination.description}", highlight=False, soft_wrap=True)
    destination.start()
    try:
        config = _configuration(output, destination, console)
        with _router(config, console) as port:
            rows = _send(samples, port, console)
            _follow(rows, load(config), console)
            _look(rows, destination, output)
            _show(rows, destination, console)
            _where(output, config, destination, console)
            if not keep:
                console.print("See all of it in the dashboard: router demo --keep", highlight=False)
            else:
                with Ending() as ending:
                    console.print("\nRouter, dashboard and destination go on running. Ctrl-C ends them.")
                    ending.wait()
    finally:
        destination.stop()
    bad = [row for row in rows if not row.good]
    reports, heatmaps = (
        sum(len(row.made(kind, seen=True)) for row in rows) for kind in (InstanceKind.SR, InstanceKind.HEATMAP)
    )
    console.print(
        f"\n[bold green]All {len(rows)} originals, {reports} Structured Reports and {heatmaps} heatmaps arrived.[/]"
        if not bad
        else f"\n[bold red]{len(bad)} of {len(rows)} images did not arrive completely.[/]"
    )
    return 1 if bad else 0


def _fresh(output: Path) -> Path:
    """An empty folder; what an earlier demo left is removed, anything else is left alone."""
    if output.exists() and any(output.iterdir()):
        if not (output / _MARK).exists():
            raise RouterError(f"{output} is not empty and not from an earlier demo: name another folder with --output")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / _MARK).touch()
    return output.resolve()


def _given(paths: Sequence[Path]) -> list[Sample]:
    from router.deliver.sources import Source, find

    sources = [item for item in find(paths) if isinstance(item, Source) and "!" not in item.name]
    if not sources:
        raise RouterError("no DICOM file in the given paths")
    return [Sample(path=Path(item.name), title=Path(item.name).name) for item in sources]


def _configuration(output: Path, destination: DemoDestination, console: Console) -> Path:
    """Writes the router's configuration file, as a person would write it for this destination."""
    classifier = _classifier(console)
    config = output / "router.toml"
    config.write_text(
        f"""# Written by `router demo`. The annotated one is config/router.toml.
[node]
ae_title = "{_AE_TITLE}"
host = "{HOST}"
port = {free_port()}

[spool]
path = {json.dumps(str(output / "spool"))}
free_byte_count_min = "256 MiB"

[ledger]
url = {json.dumps(f"sqlite:///{output / 'ledger.db'}")}

[web]
host = "{HOST}"
port = {free_port()}
users_file = {json.dumps(str(output / "users.json"))}

[audit]
folder = {json.dumps(str(output / "audit"))}

[classifiers.cxr]
{classifier}

[destinations.pacs]
type = "dicom"
ae_title = "{destination.ae_title}"
host = "{HOST}"
port = {destination.port}

[[rules]]
name = "chest radiographs"
when = {{ Modality = ["CR", "DX"], BodyPartExamined = ["CHEST", "THORAX", ""] }}
classify = ["cxr"]
deliver = ["pacs"]
results = ["sr", "heatmap"]
results_to = ["pacs"]

[[rules]]
name = "everything"
when = {{}}
deliver = ["pacs"]
""",
        encoding="utf-8",
    )
    return config


def _classifier(console: Console) -> str:
    """TorchXRayVision when its weights are here already, else the demo classifier: the demo downloads nothing."""
    from router.classify.xrv import XrvClassifier

    weights = "densenet121-res224-all"
    try:
        XrvClassifier(name="cxr", settings=XrvClassifier.Settings(weights=weights, fetch=False)).check()
    except WeightsUnavailable:
        console.print(
            "[bold]Classifier[/]   built-in [yellow]DEMONSTRATION[/]: trained on drawings, [yellow]no clinical meaning[/]\n"
            "             (TorchXRayVision's weights are not here;\n"
            f"             router models fetch {weights} gets them)",
            highlight=False,
        )
        return 'type = "demo"'
    console.print(f"[bold]Classifier[/]   TorchXRayVision {weights}")
    return f'type = "xrv"\nweights = "{weights}"'


@contextlib.contextmanager
def _router(config: Path, console: Console) -> Iterator[int]:
    """`router serve` as a process of its own; gives its DICOM port once /health/ready says yes."""
    settings = load(config)
    log = config.parent / "router.log"
    password = secrets.token_urlsafe(12)
    with log.open("wb") as stream, console.status("starting the router and its classifier"):
        process = subprocess.Popen(
            [sys.executable, "-m", "router", "serve", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=config.parent,
            env={**os.environ, "ROUTER_PASSWORD": password},
        )
        _await_ready(process, settings.web.port, log)
    console.print(
        f"[bold]Router[/]       {_AE_TITLE} at {HOST}:{settings.node.port}\n"
        f"[bold]Dashboard[/]    http://{HOST}:{settings.web.port}/ (user {FIRST_USER}, password {password})\n",
        highlight=False,
        soft_wrap=True,
    )
    try:
        yield settings.node.port
    finally:
        process.terminate()
        try:
            process.wait(30)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: at once
            process.kill()
            process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), opener.open(f"http://{HOST}:{port}/health/ready", timeout=2) as answer:
            if all(json.load(answer)["classifiers"].values()):  # so that the times shown are those of a node at work
                return
        time.sleep(0.1)
    process.kill()
    process.wait()
    raise RouterError(f"the router did not get ready; its log is {log}:\n{log.read_text(errors='replace')[-2000:]}")


def _send(samples: Sequence[Sample], port: int, console: Console) -> list[Row]:
    """Sends the samples as a modality would, noting when each C-STORE response came."""
    from router.deliver.association import Address
    from router.deliver.send import send
    from router.deliver.sources import Source, find

    address = Address(ae_title=_AE_TITLE, host=HOST, port=port, calling_ae_title="DEMO_CR")
    by_name = {str(sample.path): sample for sample in samples}
    sources = [item for item in find(sample.path for sample in samples) if isinstance(item, Source)]
    rows = []
    with _progress(console) as progress:
        bar = progress.add_task("sent by C-STORE", total=len(sources))
        for sent in send(address, sources):
            rows.append(
                Row(
                    sample=by_name[sent.source.name],
                    sop_instance_uid=sent.source.sop_instance_uid,
                    sha256=_data_set_sha256(by_name[sent.source.name].path.read_bytes()),
                    responded_at=sent.responded_at,
                    refused="" if sent.status == "sent" else sent.note,
                )
            )
            progress.advance(bar)
    return rows


def _follow(rows: Sequence[Row], settings: Settings, console: Console) -> None:
    """Watches the ledger until nothing is owed any more, or a task has failed for good."""
    from router.node import open_ledger

    ledger = open_ledger(settings, create=False)
    waiting = [row for row in rows if not row.refused]
    deadline = time.monotonic() + _WORK_S
    try:
        with _progress(console) as progress:
            originals = progress.add_task("originals delivered", total=len(waiting))
            looked = progress.add_task("looked at by the classifier", total=None)
            reports = progress.add_task("results delivered", total=None)
            while time.monotonic() < deadline:
                for row in waiting:
                    row.status = ledger.queries.instance_status(row.sop_instance_uid)
                statuses = [row.status for row in waiting if row.status is not None]
                classified = [s for s in statuses if any(t.kind is TaskKind.CLASSIFY for t in s.tasks)]
                results = [result for s in statuses for result in s.results]
                progress.update(originals, completed=sum(_delivered_at(s) is not None for s in statuses))
                progress.update(looked, completed=sum(bool(s.outcomes) for s in classified), total=len(classified))
                progress.update(
                    reports, completed=sum(_delivered_at(r) is not None for r in results), total=len(results)
                )
                if len(statuses) == len(waiting) and not any(_owed(s) for s in statuses):
                    return
                time.sleep(0.05)
    finally:
        ledger.close()


def _owed(status: InstanceStatus) -> bool:
    """True while anything is owed for the instance or for what was made from it."""
    return any(task.state in OWED for task in status.tasks) or any(_owed(result) for result in status.results)


def _delivered_at(status: InstanceStatus) -> datetime | None:
    """When the last destination had it; None while one has not."""
    times = [task.settled_at if task.state is TaskState.DONE else None for task in status.deliveries]
    return max((at for at in times if at is not None), default=None) if None not in times else None


def _look(rows: Sequence[Row], destination: DemoDestination, output: Path) -> None:
    """Asks the destination for every original and every result, compares bytes, and keeps the results as files."""
    folder = output / "reports"
    folder.mkdir()
    for row in rows:
        row.results = tuple(result.instance for result in row.status.results) if row.status else ()
        original = destination.received(row.sop_instance_uid)
        row.original_seen = original is not None
        if original is not None:
            row.original_identical = _data_set_sha256(original) == row.sha256
            row.original_equal = row.original_identical or _equal(original, row.sample.path)
        for result in row.results:
            file = destination.received(result.sop_instance_uid)
            if file is not None:
                row.seen.add(result.sop_instance_uid)
                (folder / f"{row.sample.path.stem}.{result.kind}.dcm").write_bytes(file)
                if result.kind is InstanceKind.HEATMAP:
                    (folder / f"{row.sample.path.stem}.heatmap.jpg").write_bytes(_picture(file))


def _picture(file: bytes) -> bytes:
    """What a heatmap's file shows, for whoever has no DICOM viewer at hand."""
    import pydicom
    from pydicom.encaps import generate_frames

    return bytes(next(generate_frames(pydicom.dcmread(io.BytesIO(file)).PixelData, number_of_frames=1)))


def _data_set_sha256(file: bytes) -> str:
    from pydicom.filereader import _read_file_meta_info, read_preamble

    stream = io.BytesIO(file)
    read_preamble(stream, force=False)
    _read_file_meta_info(stream)
    return hashlib.sha256(file[stream.tell() :]).hexdigest()


def _equal(file: bytes, sample: Path) -> bool:
    import pydicom

    return bool(pydicom.dcmread(io.BytesIO(file)) == pydicom.dcmread(sample))


def _show(rows: Sequence[Row], destination: DemoDestination, console: Console) -> None:
    table = Table(title="What happened to each image", title_justify="left", box=box.SIMPLE_HEAD, leading=1)
    table.add_column("image\nSR SOP Instance UID", overflow="fold", min_width=22)
    table.add_column("top findings\n(score)", no_wrap=True)
    table.add_column(f"seen at\n{destination.ae_title}", no_wrap=True)
    table.add_column("original\nafter", justify="right", no_wrap=True)
    table.add_column("SR\nafter", justify="right", no_wrap=True)
    demonstration = False
    for row in rows:
        found, demo = _findings(row)
        demonstration = demonstration or demo
        reports = [r for r in row.status.results if r.instance.kind is InstanceKind.SR] if row.status else []
        table.add_row(
            "\n".join((row.sample.title, *(f"[dim]{uid}[/]" for uid in row.made(InstanceKind.SR)))),
            found,
            _arrival(row),
            _after(row, _delivered_at(row.status) if row.status else None),
            _after(row, max((at for at in map(_delivered_at, reports) if at), default=None)),
        )
    console.print(table)
    console.print("after: from the C-STORE response to the sender until the destination's own response.", style="dim")
    if any(row.original_equal and not row.original_identical for row in rows):
        told = (
            "¹ the same elements; the destination writes sequences its own way (the router sent the bytes it received)"
        )
        console.print(told, style="dim")
    if demonstration:
        console.print(
            "Findings by the DEMONSTRATION network, trained on drawings: no clinical meaning.", style="yellow"
        )


def _findings(row: Row) -> tuple[str, bool]:
    if row.refused:
        return f"[red]refused: {row.refused}[/]", False
    lines, demonstration = [], False
    for outcome in row.status.outcomes.values() if row.status else ():
        if isinstance(outcome, Prediction):
            demonstration = demonstration or outcome.classifier.demonstration
            lines += [f"{'[bold]' if f.present else '[dim]'}{f.label} {f.score:.2f}[/]" for f in outcome.top(3)]
        else:
            lines.append(f"not analysed: {outcome.reason}")
    return "\n".join(lines) or "[dim]no rule asks for it[/]", demonstration


def _arrival(row: Row) -> str:
    if not row.original_seen:
        return "[red]not seen[/]"
    lines = ["identical" if row.original_identical else "equal¹" if row.original_equal else "[red]altered[/]"]
    # No wider than «identical»: in 80 columns the times need the rest.
    for kind, name, said in ((InstanceKind.SR, "SR", "+ 1 SR"), (InstanceKind.HEATMAP, "heatmap", "+ heatmap")):
        made, seen = row.made(kind), row.made(kind, seen=True)
        if made:
            lines.append(said if len(seen) == len(made) else f"[red]{name} not seen[/]")
    return "\n".join(lines)


def _after(row: Row, at: datetime | None) -> str:
    if at is None or row.responded_at is None:
        return "–"
    return f"{max(0.0, (at - row.responded_at).total_seconds()) * 1000:.0f} ms"


def _where(output: Path, config: Path, destination: DemoDestination, console: Console) -> None:
    base = Path(os.path.relpath(output))
    console.print(
        f"\nEverything lies in {base}{os.sep}: router.toml, ledger.db, spool, reports, router.log", highlight=False
    )
    for what, command in (
        ("Look at a report:", f"dsrdump {base / 'reports'}{os.sep}*.sr.dcm"),
        ("Look at heatmaps:", f"{base / 'reports'}{os.sep}*.heatmap.jpg"),
        ("What happened to an image:", f"router trace UID --config {os.path.relpath(config)}"),
    ):
        console.print(f"{what:27}{command}", markup=False, highlight=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:>28}"), BarColumn(bar_width=30), MofNCompleteColumn())
    return Progress(*columns, console=console)
