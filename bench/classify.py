"""Classifying one chest radiograph: torchxrayvision's own pipeline beside ours, and what a classify process costs to start.

    python -m bench.classify [ROUNDS]

One thread each, processor time, interleaved, medians. The weights are random (time and memory do not depend on them), scaled
so that scores lie as far apart as a trained network's. Nothing is asserted: machines differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

# Before numpy and torch are imported: helper threads would be counted too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import onnxruntime
import pydicom
import torch
from rich.console import Console
from rich.table import Table

from router.classify.network import DENSENET, Computing
from router.classify.pixels import to_input
from router.classify.precision import measure, record
from router.classify.published import PUBLISHED
from router.classify.torch_network import build
from router.classify.weights import from_file
from router.classify.xrv import XrvClassifier
from router.core.instance import SopInstance
from router.node import child_argument
from router.observe.log import configure
from router.settings import ClassifierSettings, parse
from router.work.analyst import ChildAnalyst
from tests.samples import pydicom_file

WEIGHTS = PUBLISHED["densenet121-res224-all"]
#: A chest radiograph, PA, 1955 x 1841 pixels of 15 bits, MONOCHROME1, 7.2 MB uncompressed.
IMAGE = "RG1_UNCR.dcm"
STARTS = 5


def weights_file(folder: Path, path: Path) -> Path:
    """DenseNet-121 with random weights whose outputs for an image lie around the operating points, as safetensors."""
    from safetensors.numpy import save_file

    torch.manual_seed(3)
    module = build(DENSENET, len(WEIGHTS.labels)).eval()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.2)
        module.features.conv0.weight.mul_(1 / 512)
        module.classifier.bias.zero_()
        logits = module(torch.from_numpy(to_input(read(path), WEIGHTS.side))[None])
        module.classifier.weight.mul_(1.5 / logits.std())
        module.classifier.bias.copy_(torch.logit(torch.tensor(WEIGHTS.op_threshs)))
    tensors = {name: value.numpy() for name, value in module.state_dict().items()}
    metadata = {
        "name": WEIGHTS.name,
        "architecture": DENSENET,
        "input_side": str(WEIGHTS.side),
        "labels": json.dumps(WEIGHTS.labels),
        "op_threshs": json.dumps(WEIGHTS.op_threshs),
    }
    save_file(tensors, folder / "weights.safetensors", metadata)
    return folder / "weights.safetensors"


def upstream(weights: Path) -> Callable[[Path], list[float]]:
    """File -> scores by torchxrayvision's functions, as its documentation strings them together."""
    import torchxrayvision as xrv
    from safetensors.torch import load_file

    module = build(DENSENET, len(WEIGHTS.labels))
    module.load_state_dict(load_file(weights))
    module.eval()
    crop, resize = xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(WEIGHTS.side)
    points = torch.tensor(WEIGHTS.op_threshs)

    def scores(path: Path) -> list[float]:
        x = resize(crop(xrv.utils.read_xray_dcm(path)[None]))
        with torch.inference_mode():
            raw = torch.sigmoid(module(torch.from_numpy(x)[None]))
            return list(xrv.models.op_norm(raw, points)[0].tolist())

    return scores


def classifier(weights: Path, runtime: str, precision: str = "fp32") -> XrvClassifier:
    """Ours, loaded."""
    options = {"weights": str(weights), "runtime": runtime, "device": "cpu", "precision": precision}
    made = XrvClassifier(name="cxr", settings=XrvClassifier.Settings.model_validate(options))
    made.load()
    return made


def accept(weights: Path, path: Path) -> None:
    """The verdict without which bfloat16 is refused, measured on one image with ten kinds of noise."""
    prepared = to_input(read(path), WEIGHTS.side)
    random = np.random.default_rng(5)
    noisy = [prepared + 20 * random.standard_normal(prepared.shape).astype(np.float32) for _ in range(10)]
    computing = Computing(runtime="openvino", device="cpu", precision="bf16")
    found = from_file(weights)
    record(measure(found, noisy, computing, bound=0.1), found)


def read(path: Path) -> pydicom.Dataset:
    """As the classify child reads."""
    return pydicom.dcmread(path, force=True, defer_size="1 MB")


def cpu_ms(work: Callable[[], Any]) -> float:
    """Processor time of one call, of all threads."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1000


def image_table(path: Path, weights: Path, rounds: int) -> tuple[Table, float]:
    """Milliseconds from file to scores, and the largest difference of a score."""
    theirs = upstream(weights)
    ours = {runtime: classifier(weights, runtime) for runtime in ("onnx", "torch")}
    accept(weights, path)
    ours["bf16"] = classifier(weights, "openvino", "bf16")
    network, _ = ours["onnx"]._ready()
    reduced, _ = ours["bf16"]._ready()
    prepared = to_input(read(path), WEIGHTS.side)[None]
    ways: dict[str, Callable[[], Any]] = {
        "torchxrayvision's own pipeline": lambda: theirs(path),
        "router, runtime torch": lambda: ours["torch"].predict_dataset(read(path)),
        "router, runtime onnx": lambda: ours["onnx"].predict_dataset(read(path)),
        "  of it: read, decode, crop, resize": lambda: to_input(read(path), WEIGHTS.side),
        "  of it: network": lambda: network.logits(prepared),
        "router, OpenVINO in bfloat16": lambda: ours["bf16"].predict_dataset(read(path)),
        "  of it: network in bfloat16": lambda: reduced.logits(prepared),
    }
    expected = theirs(path)
    found = [finding.score for finding in ours["onnx"].predict_dataset(read(path)).findings]
    difference = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    for work in ways.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(cpu_ms(work))
    table = Table("file to 18 scores, one thread", "CPU ms, median", "least", "theirs / ours")
    first = median(next(iter(times.values())))
    for name, values in times.items():
        ratio = "" if name.startswith(" ") else f"{first / median(values):.2f}"
        table.add_row(name, f"{median(values):.1f}", f"{min(values):.1f}", ratio)
    return table, difference


def settings_of(weights: Path, runtime: str) -> ClassifierSettings:
    """[classifiers.cxr]"""
    kind = {"type": "demo"} if runtime == "demo" else {"type": "xrv", "weights": str(weights), "runtime": runtime}
    return parse({"classifiers": {"cxr": kind}}).classifiers["cxr"]


def child(settings: ClassifierSettings) -> ChildAnalyst:
    """The node's own keeper of a classify process."""
    command = [sys.executable, "-m", "router.child"]
    return ChildAnalyst(command=command, arguments=[child_argument(settings)], time_limit_s=120)


def instance_of(path: Path) -> SopInstance:
    """What the child must know of an image."""
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    return SopInstance(
        sop_instance_uid=ds.SOPInstanceUID,
        sop_class_uid=ds.SOPClassUID,
        study_instance_uid=ds.StudyInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        digest="0" * 64,
        byte_count=path.stat().st_size,
        spool_key="bench",
        received_at=datetime.now(UTC),
    )


def of_process(pid: int, *keys: str) -> list[float]:
    """MiB of keys of /proc/PID/status, then the seconds of processor time that it has used."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return [*(int(status[key].split()[0]) / 1024 for key in keys), sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")]


def start_table(path: Path, weights: Path) -> Table:
    """What it costs until a classify process is ready, and its memory before and after five images with their SRs."""
    kinds = {"xrv, runtime onnx": "onnx", "xrv, runtime torch": "torch", "demo, runtime onnx": "demo"}
    image = instance_of(path)
    measured: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for _ in range(STARTS):
        for name, runtime in kinds.items():
            with contextlib.closing(child(settings_of(weights, runtime))) as analyst:
                begun = time.perf_counter()
                analyst.start()
                ready_s = time.perf_counter() - begun
                pid = analyst._child.pid  # type: ignore[union-attr]
                rss, peak, cpu_s = of_process(pid, "VmRSS", "VmHWM")
                for _ in range(5):
                    analyst.analyse("cxr", image, path, ("sr",))
                measured[name].append([ready_s, cpu_s, rss, peak, *of_process(pid, "VmHWM")[:1]])
    table = Table("classify process", "ready after s", "CPU s", "MiB", "peak MiB", "peak after 5 images with SR")
    for name, runs in measured.items():
        ready_s, cpu_s, rss, peak, later = (median(values) for values in zip(*runs, strict=True))
        table.add_row(name, f"{ready_s:.2f}", f"{cpu_s:.2f}", f"{rss:.0f}", f"{peak:.0f}", f"{later:.0f}")
    return table


def process_table(path: Path, weights: Path, counts: Sequence[int], images: int = 40) -> Table:
    """Images per second, SR included, by 1 and by several processes."""
    table = Table("processes", "images/s, SR included")
    image = instance_of(path)
    for count in counts:
        with contextlib.ExitStack() as stack:
            analysts = [
                stack.enter_context(contextlib.closing(child(settings_of(weights, "onnx")))) for _ in range(count)
            ]
            for analyst in analysts:
                analyst.start()
                analyst.analyse("cxr", image, path, ("sr",))
            pool = stack.enter_context(ThreadPoolExecutor(count))
            shares = [range(n, images, count) for n in range(count)]

            def work(analyst: ChildAnalyst, share: range) -> None:
                for n in share:
                    each = replace(image, sop_instance_uid=f"{image.sop_instance_uid}.{n}")
                    analyst.analyse("cxr", each, path, ("sr",))

            begun = time.perf_counter()
            list(pool.map(work, analysts, shares))
            table.add_row(str(count), f"{images / (time.perf_counter() - begun):.1f}")
    return table


def main(rounds: int) -> None:
    """Prints three tables."""
    configure("error")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console = Console(width=110)
    versions = f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {versions}")
    with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
        path = Path(pydicom_file(IMAGE))
        weights = weights_file(Path(folder), path)
        with contextlib.redirect_stdout(sys.stderr):  # where torchxrayvision prints its warnings does not matter
            table, difference = image_table(path, weights, rounds)
        console.print(table)
        console.print(f"largest difference of a score: {difference:.1e}; {rounds} rounds")
        console.print(start_table(path, weights))
        console.print(process_table(path, weights, (1, 2, 1, 2)))
        console.print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
