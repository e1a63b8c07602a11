"""Trains the demonstration network on drawn phantoms and writes demo.safetensors: python -m router.classify.train_demo

One thread, fixed seeds: some 100 seconds of drawing and 6 CPU minutes of training (7.6 CPU minutes in all on an EPYC). The phantoms come in several sizes and go through
the real preprocessing, and the operating points are set on a mixture of sizes, so that they hold whatever size an image
has. Ends with the exam of `docs/models/demo.md`: held-out phantoms as DICOM files through the whole classifier.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Before numpy and torch are imported: helper threads make small matrices slower, and results depend on their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from router.classify.demo import SIDE, WEIGHTS, DemoClassifier
from router.classify.drawing import LABELS, draw
from router.classify.network import DEMO
from router.classify.phantom import phantom_dicom
from router.classify.resize import Float32Array, resized
from router.classify.torch_network import TorchNetwork, build

SEED = 20240101
TRAINING_COUNT, CALIBRATION_COUNT, EPOCHS, BATCH = 4000, 1200, 8, 16
#: First seeds of three sets that share no phantom; tests use 3,000,000 and up.
TRAINING_FROM, CALIBRATION_FROM, EXAM_FROM = 0, 1_000_000, 2_000_000
#: Rendered sizes; from some four times the input's side on, a larger picture gives the same input.
SIDES, SIDE_SHARES = (112, 144, 192, 256, 352, 480, 640), (0.18, 0.14, 0.18, 0.18, 0.14, 0.12, 0.06)


def auc(scores: Sequence[float], truth: Sequence[bool]) -> float:
    """Area under the ROC curve, [0, 1]: the chance that a positive scores higher than a negative; ties count half."""
    positive = np.asarray([s for s, t in zip(scores, truth, strict=True) if t])
    negative = np.asarray([s for s, t in zip(scores, truth, strict=True) if not t])
    wins = (positive[:, None] > negative).sum() + 0.5 * (positive[:, None] == negative).sum()
    return float(wins / (positive.size * negative.size))


def exam(classifier: DemoClassifier, seeds: Iterable[int], **picture: Any) -> dict[str, tuple[float, float, float]]:
    """AUC, sensitivity and specificity by label on phantoms that went through DICOM bytes and the whole classifier."""
    from pydicom import dcmread

    scores: list[list[float]] = []
    truth: list[tuple[bool, ...]] = []
    for seed in seeds:
        ds = phantom_dicom(seed, **picture)
        encoded = io.BytesIO()
        ds.save_as(encoded, enforce_file_format=True)
        encoded.seek(0)
        scores.append([finding.score for finding in classifier.predict_dataset(dcmread(encoded)).findings])
        truth.append(draw(seed, 32).findings)
    found = {}
    for label, s, t in zip(LABELS, zip(*scores, strict=True), zip(*truth, strict=True), strict=True):
        present, true = np.asarray(s) >= 0.5, np.asarray(t)
        found[label] = (auc(s, t), float(present[true].mean()), float((~present[~true]).mean()))
    return found


def _pictures(first: int, count: int) -> tuple[Float32Array, Float32Array]:
    """Inputs (count, 1, SIDE, SIDE) and truth (count, labels) of phantoms in mixed sizes, quantised like 12-bit images."""
    images = np.empty((count, 1, SIDE, SIDE), np.float32)
    truth = np.empty((count, len(LABELS)), np.float32)
    sides = np.random.default_rng(first + SEED).choice(SIDES, size=count, p=SIDE_SHARES)
    for i in range(count):
        phantom = draw(first + i, int(sides[i]))
        stored = np.round(phantom.pixels * 4095).astype(np.uint16)
        images[i, 0] = resized(stored, SIDE, scale=2048 / 4095, offset=-1024)
        truth[i] = phantom.findings
    return images, truth


def _train(images: Float32Array, truth: Float32Array) -> Any:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    module = build(DEMO, len(LABELS))
    with torch.no_grad():
        module.features.conv0.weight.mul_(1 / 512)  # inputs are some hundred times larger than this start expects
    module.train()
    x, y = torch.from_numpy(images), torch.from_numpy(truth)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-3)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=6e-3, pct_start=0.15, total_steps=steps)
    for epoch in range(EPOCHS):
        order, total = torch.randperm(len(x)), 0.0
        for start in range(0, len(x) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(module(_varied(x[chosen])), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        _say(f"epoch {epoch + 1} of {EPOCHS}: loss {total / (len(x) // BATCH):.3f}, {time.process_time():.0f} CPU s")
    return module


def _varied(x: Any) -> Any:
    """Mirrored, moved, brighter or darker, noisier."""
    import torch

    if torch.rand(1) < 0.5:
        x = x.flip(3)
    dy, dx = torch.randint(-6, 7, (2,)).tolist()
    x = torch.roll(x, (dy, dx), (2, 3))
    each = (len(x), 1, 1, 1)
    noise = torch.randn_like(x) * 25 * torch.rand(each)
    return x * (1 + 0.1 * torch.randn(each)) + noise + 60 * torch.randn(each)


def _operating_point(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The sigmoid with the largest sensitivity + specificity (Youden's J), halfway to the next lower score."""
    cuts = np.unique(scores)
    j = [(scores[truth] >= cut).mean() - (scores[~truth] >= cut).mean() for cut in cuts]
    best = int(np.argmax(j))
    return float((cuts[best] + cuts[max(best - 1, 0)]) / 2)


def main() -> None:
    """Draws, trains, sets the operating points, writes the file, and prints the exam as a table."""
    from safetensors.numpy import save_file

    module = _train(*_pictures(TRAINING_FROM, TRAINING_COUNT))
    # Half precision halves the file; batch statistics stay as they are, because variances can be larger than it holds.
    tensors = {
        name: value.numpy().astype(np.float16 if value.ndim > 1 else np.float32)
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    images, truth = _pictures(CALIBRATION_FROM, CALIBRATION_COUNT)
    stored = TorchNetwork(DEMO, len(LABELS), tensors)  # as it will be read back: rounding is part of it
    logits = np.concatenate([stored.logits(images[i : i + 50]) for i in range(0, len(images), 50)]).astype(np.float64)
    scores = 1 / (1 + np.exp(-logits))
    points = [_operating_point(scores[:, i], truth[:, i] > 0) for i in range(len(LABELS))]
    metadata = {
        "about": "DEMONSTRATION: torchxrayvision's DenseNet class trained on drawn phantoms. No clinical meaning.",
        "labels": json.dumps(LABELS),
        "op_threshs": json.dumps([round(point, 6) for point in points]),
        "input_side": str(SIDE),
        "training": json.dumps(
            {
                "seed": SEED,
                "phantoms": TRAINING_COUNT,
                "first_seed": TRAINING_FROM,
                "epochs": EPOCHS,
                "batch": BATCH,
                "calibration_phantoms": CALIBRATION_COUNT,
                "calibration_first_seed": CALIBRATION_FROM,
                "sides": SIDES,
                "side_shares": SIDE_SHARES,
            }
        ),
        "licence": "Apache-2.0",
    }
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS
    save_file(tensors, target, metadata)
    _say(f"{target.name}: {target.stat().st_size} bytes, operating points {metadata['op_threshs']}")
    if target == WEIGHTS:
        print_exam()


def print_exam(count: int = 200) -> None:
    """The table of docs/models/demo.md."""
    classifier = DemoClassifier(name="demo", settings=DemoClassifier.Settings())
    classifier.load()
    _say("| image | " + " | ".join(LABELS) + " |\n|---|" + "---|" * len(LABELS))
    pictures: list[dict[str, Any]] = [
        {"rows": 128, "columns": 128, "bits_stored": 8},
        {"rows": 224, "columns": 256, "bits_stored": 10, "photometric": "MONOCHROME1"},
        {"rows": 448, "columns": 448, "photometric": "MONOCHROME1"},
        {"rows": 1024, "columns": 900, "modality": "DX"},
        {"rows": 2022, "columns": 1800, "bits_stored": 14, "photometric": "MONOCHROME1"},
    ]
    for n, picture in enumerate(pictures):
        found = exam(classifier, range(EXAM_FROM + 1000 * n, EXAM_FROM + 1000 * n + count), **picture)
        words = f"{picture['rows']} x {picture['columns']}, {picture.get('bits_stored', 12)} bits"
        words += f", {picture.get('photometric', 'MONOCHROME2')}, {picture.get('modality', 'CR')}"
        cells = [f"{a:.3f} ({sens:.2f} / {spec:.2f})" for a, sens, spec in (found[label] for label in LABELS)]
        _say(f"| {words} | " + " | ".join(cells) + " |")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
