"""A site's own weights: a network of one of upstream's architectures with a card that says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from router.classify.network import DENSENET
from router.classify.torch_network import build

LABELS = ("Effusion", "Mass", "Rib notching")


def card(**changes: Any) -> str:
    """A card as TOML; a key with None is left out."""
    facts: dict[str, Any] = {
        "name": "chest-2026-03",
        "version": "7",
        "manufacturer": "A hospital",
        "architecture": "densenet121",
        "input_side": 64,
        "trained_on": ["Ours: 1,000 images"],
        "operating_points": "Youden's J on 100 images",
        "limits": ["Adults only."],
        "licence": "internal",
        **changes,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items() if value is not None and key != "labels"]
    for label in facts.get(
        "labels", ({"name": "Effusion", "threshold": 0.3}, {"name": "Mass"}, {"name": LABELS[2], "threshold": 0.5})
    ):
        lines += ["[[labels]]", *(f"{key} = {json.dumps(value)}" for key, value in label.items())]
    return "\n".join(lines)


def network() -> Any:
    """An untrained DenseNet-121 with three outputs."""
    import torch

    torch.manual_seed(9)
    made = build(DENSENET, len(LABELS)).eval()
    made.features.conv0.weight.data /= 512  # so that outputs lie where sigmoids differ, as a trained network's do
    return made


def write(folder: Path, **changes: Any) -> Path:
    """NAME.safetensors and NAME.toml; the former's path."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "chest.safetensors"
    save_file(network().state_dict(), path)
    path.with_suffix(".toml").write_text(card(**changes))
    return path
