"""Tensors in safetensors files, which can hold nothing else; and files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from router.classify.safe_pickle import Tensors
from router.errors import WeightsUnavailable


def read_safetensors(path: Path) -> Tensors:
    """A safetensors file's tensors by name. Raises WeightsUnavailable."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


def read_metadata(path: Path) -> Mapping[str, str]:
    """What a safetensors file says of itself. Raises WeightsUnavailable."""
    with _opened(path) as file:
        return file.metadata() or {}


def write_safetensors(target: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Raises OSError."""
    from safetensors.numpy import save

    write_whole(target, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata))


def write_whole(target: Path, data: bytes) -> None:
    """Whole or not at all, also when the power goes. Raises OSError."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise WeightsUnavailable(f"{path}: not a safetensors file ({type(error).__name__})") from None
