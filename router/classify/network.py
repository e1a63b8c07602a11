"""What computes the scores: torchxrayvision's networks with our weights, in ONNX Runtime or in torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from router.classify.resize import Float32Array
from router.errors import ConfigError, WeightsUnavailable
from router.observe.log import emit

#: The demonstration network: torchxrayvision's DenseNet class, some 84,000 parameters instead of 7 million.
DEMO = "densenet-demo"
DENSENET = "densenet121"
RESNET = "resnet50"

#: Layers of each block.
BLOCKS: Mapping[str, tuple[int, ...]] = {DEMO: (3, 4, 6, 4), DENSENET: (6, 12, 24, 16), RESNET: (3, 4, 6, 3)}

#: Where the first cell of a class activation map looks, in pixels of the input: the middle of its receptive field. Every
#: convolution and pool of a ResNet keeps its first output over its first input; the average pools of a DenseNet's
#: transitions lie between two. Stretching the map over the image instead shifts a ResNet's by half a cell.
FIRST_CELL: Mapping[str, float] = {DEMO: 14.0, DENSENET: 14.0, RESNET: 0.0}
#: From cell to cell: five halvings.
CELL_STEP = 32.0

#: "onnx" is ONNX Runtime; "auto" is that when it is installed, else torch.
Runtime = Literal["auto", "onnx", "openvino", "torch"]
_PACKAGES: Mapping[Runtime, str] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torchxrayvision"}
#: "auto" is a GPU where there is one that a runtime at hand can use, else the processor.
Device = Literal["auto", "cpu", "cuda"]
#: Of the numbers that are multiplied. Everything but "fp32" changes scores, and needs a verdict (`precision`).
Precision = Literal["fp32", "bf16", "fp16"]
#: What can compute in which reduced precision, on a processor and on a GPU.
_REDUCED: Mapping[tuple[Runtime, Device], tuple[Precision, ...]] = {
    ("openvino", "cpu"): ("bf16", "fp16"),
    ("torch", "cpu"): ("bf16",),
    ("torch", "cuda"): ("bf16", "fp16"),
}
#: Images of one forward pass on a GPU. On a processor one: several at once cost as much for each, or more (measured).
GPU_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Computing:
    """What a network runs on."""

    runtime: Runtime = "auto"
    device: Device = "cpu"
    precision: Precision = "fp32"

    def __str__(self) -> str:
        return f"{self.runtime} on {self.device} in {self.precision}"


class Network(Protocol):
    """A trained network, ready to answer. One thread: several processes beat several threads here (measured)."""

    @property
    def computing(self) -> Computing:
        """What it runs on; no "auto"."""
        ...

    def logits(self, images: Float32Array) -> Float32Array:
        """(count, 1, side, side) -> (count, outputs): outputs before the sigmoid, float32."""
        ...

    def logits_and_maps(self, images: Float32Array) -> tuple[Float32Array, Float32Array]:
        """The same, and where they come from: class activation maps (count, outputs, rows, columns), float32.

        Of the same forward pass, at no cost. The mean of a map is its logit but for the classifier's bias.
        Source: Zhou et al., CVPR 2016.
        """
        ...


def installed(runtime: Runtime) -> Runtime:
    """What computes on this machine: `runtime`, or what "auto" stands for. Raises ValueError when it is not installed."""
    candidates: tuple[Runtime, ...] = ("onnx", "torch") if runtime == "auto" else (runtime,)
    for candidate in candidates:
        if find_spec(_PACKAGES[candidate]) is not None:
            return candidate
    raise ValueError(f"needs {' or '.join(_PACKAGES[candidate] for candidate in candidates)}, which is not installed")


def _usable(runtime: Runtime) -> Runtime:
    installed(runtime)
    return runtime


#: A setting: refused where it could not be used.
UsableRuntime = Annotated[Runtime, AfterValidator(_usable), Field(validate_default=True)]


def open_network(
    architecture: str, outputs: int, tensors: Mapping[str, NDArray[Any]], computing: Computing | None = None
) -> Network:
    """A network from its weights. With device "auto" a GPU that cannot be used costs one line in the log, and the processor does.

    Raises WeightsUnavailable when `tensors` are not this architecture's, ValueError when the runtime is not installed,
    ConfigError when device "cuda" or the precision cannot be had.
    """
    wanted = computing or Computing()
    problems = []
    if wanted.device == "cuda" or (wanted.device == "auto" and gpu_present()):
        for candidate in _with_gpu(wanted.runtime):
            try:
                return _opened(architecture, outputs, tensors, replace(wanted, runtime=candidate, device="cuda"))
            except WeightsUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - drivers and runtimes raise whatever they like
                problems.append(f"{candidate}: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")
        told = "; ".join(problems) or f"runtime {wanted.runtime} has no use for one"
        if wanted.device == "cuda":
            raise ConfigError([f'device: "cuda" cannot be had: {told}'])
        emit("classify.gpu_unusable", level=logging.WARNING, reason=told)
    return _opened(architecture, outputs, tensors, replace(wanted, runtime=installed(wanted.runtime), device="cpu"))


def gpu_present() -> bool:
    """True where the kernel shows an NVIDIA GPU. Asked before anything large is imported for its sake."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def _with_gpu(runtime: Runtime) -> Iterator[Runtime]:
    known: tuple[Runtime, ...] = ("onnx", "torch")
    for candidate in known:
        if runtime in ("auto", candidate) and find_spec(_PACKAGES[candidate]) is not None:
            yield candidate


def _opened(architecture: str, outputs: int, tensors: Mapping[str, NDArray[Any]], computing: Computing) -> Network:
    if computing.precision != "fp32" and computing.precision not in reduced(computing.runtime, computing.device):
        raise ConfigError([f"precision: {computing} is nothing this router can compute"])
    if computing.runtime == "onnx":
        from router.classify.onnx_network import OnnxNetwork

        return OnnxNetwork(architecture, outputs, tensors, computing)
    if computing.runtime == "openvino":
        from router.classify.openvino_network import OpenVinoNetwork

        return OpenVinoNetwork(architecture, outputs, tensors, computing)
    from router.classify.torch_network import TorchNetwork

    return TorchNetwork(architecture, outputs, tensors, computing)


def reduced(runtime: Runtime, device: Device) -> tuple[Precision, ...]:
    """The reduced precisions that a runtime offers on a device."""
    return _REDUCED.get((runtime, device), ())
