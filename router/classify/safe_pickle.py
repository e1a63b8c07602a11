"""Tensors out of a file that torch.save wrote, without executing what is in it. Numpy only.

A pickle may name any function of any module and have it called; `torch.load(weights_only=False)`, which upstream uses, is
therefore the right to run code. Here every name is looked up in a short list of what weights need, classes of network layers
become inert stand-ins, and anything else is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from router.errors import WeightsUnavailable

#: torch's own mark at the start of files written before version 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
#: Larger than any weights this router knows; a zip archive may not unpack to more.
BYTE_COUNT_MAX = 2 * 2**30
_DEPTH_MAX = 64

_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "BoolStorage": "|b1",
    "ByteStorage": "|u1",
}

Tensors = dict[str, NDArray[Any]]


def read_tensors(path: Path) -> Tensors:
    """The tensors of a weights file by name: a state dictionary's, or those of a whole pickled network.

    Raises WeightsUnavailable when the file is no such file, is damaged, or names anything that weights do not need.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as file:
            return _read_legacy(file)
    except WeightsUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - a malformed pickle raises whatever it likes
        raise WeightsUnavailable(f"{path.name}: not a weights file ({type(error).__name__})") from None


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: np.dtype[Any]
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _View:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Inert:
    """Stands for an object of a class that is never imported; keeps its attributes and does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("builtins", "__builtin__") and name == "set":
            return set
        if module == "torch._utils":
            known: dict[str, Callable[..., Any]] = {
                "_rebuild_tensor_v2": _rebuilt,
                "_rebuild_tensor": _rebuilt,
                "_rebuild_parameter": _parameter,
            }
            if name in known:
                return known[name]
        if module == "torch" and name in _STORAGES:
            return name
        if module.startswith(("torch.nn.modules.", "torchvision.models.")) or module == "torchxrayvision.models":
            return type("Inert", (_Inert,), {})
        raise WeightsUnavailable(
            f"the file names {module}.{name}, which weights do not need; nothing of it was executed"
        )

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # old files carry the source of their classes; only the class is asked for
            return pid[1]
        _, kind, key, _, count = pid[:5]
        return _Storage(np.dtype(_STORAGES[kind]), str(key), int(count))


def _rebuilt(storage: object, offset: object, size: Any, stride: Any, *_: object) -> _View:
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor without storage")
    return _View(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))  # type: ignore[call-overload]


def _parameter(tensor: Any, *_: object) -> Any:
    return tensor


def _read_zip(path: Path) -> Tensors:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > BYTE_COUNT_MAX:
            raise WeightsUnavailable(f"{path.name}: unpacks to more than {BYTE_COUNT_MAX} bytes")
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise WeightsUnavailable(f"{path.name}: not a file of torch.save")
        prefix = pickles[0].removesuffix("data.pkl")
        found = _Reader(io.BytesIO(archive.read(pickles[0]))).load()
        return _tensors(found, lambda storage: archive.read(f"{prefix}data/{storage.key}"))


def _read_legacy(file: BinaryIO) -> Tensors:
    if _Reader(file).load() != _LEGACY_MAGIC:
        raise WeightsUnavailable("not a file of torch.save")
    _Reader(file).load()  # protocol version
    _Reader(file).load()  # sizes of C types where it was written
    found = _Reader(file).load()
    views = _views(found)
    item_sizes = {view.storage.key: view.storage.dtype.itemsize for view in views.values()}
    storages: dict[str, bytes] = {}
    for key in _Reader(file).load():
        count = int.from_bytes(file.read(8), "little")
        if str(key) not in item_sizes:
            raise WeightsUnavailable("a storage that no tensor uses: its size is unknown")
        storages[str(key)] = _exactly(file, count * item_sizes[str(key)])
    return _tensors(found, lambda storage: storages[storage.key])


def _exactly(file: BinaryIO, byte_count: int) -> bytes:
    if byte_count > BYTE_COUNT_MAX:
        raise WeightsUnavailable("a storage is larger than any weights")
    data = file.read(byte_count)
    if len(data) != byte_count:
        raise WeightsUnavailable("the file ends too early")
    return data


def _views(found: Any) -> dict[str, _View]:
    """Tensors by name. A whole network keeps them where torch.nn.Module does: _parameters, _buffers, _modules."""
    if isinstance(found, Mapping):
        return {str(name): value for name, value in found.items() if isinstance(value, _View)}
    views: dict[str, _View] = {}
    open_modules = [("", found, 0)]
    while open_modules:
        prefix, module, depth = open_modules.pop()
        if depth > _DEPTH_MAX or not isinstance(module, _Inert):
            raise WeightsUnavailable("not a network")
        for group in ("_parameters", "_buffers"):
            for name, value in module.__dict__.get(group, {}).items():
                if isinstance(value, _View):
                    views[f"{prefix}{name}"] = value
        open_modules += [
            (f"{prefix}{name}.", part, depth + 1)
            for name, part in module.__dict__.get("_modules", {}).items()
            if part is not None
        ]
    return views


def _tensors(found: Any, data: Callable[[_Storage], bytes]) -> Tensors:
    tensors = {name: _array(view, data(view.storage)) for name, view in _views(found).items()}
    if not tensors:
        raise WeightsUnavailable("the file holds no tensors")
    return tensors


def _array(view: _View, data: bytes) -> NDArray[Any]:
    flat = np.frombuffer(data, view.storage.dtype)
    if len(view.size) != len(view.stride) or view.offset < 0 or min((*view.size, *view.stride), default=0) < 0:
        raise WeightsUnavailable("a tensor has an impossible shape")
    count = math.prod(view.size)
    last = view.offset + sum((n - 1) * step for n, step in zip(view.size, view.stride, strict=True))
    if count and (count > flat.size or last >= flat.size):
        raise WeightsUnavailable("a tensor reaches outside its storage")
    if not count:
        return np.zeros(view.size, flat.dtype)
    steps = tuple(step * flat.itemsize for step in view.stride)
    return np.lib.stride_tricks.as_strided(flat[view.offset :], view.size, steps).copy()
