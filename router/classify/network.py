"""What computes the scores: torchxrayvision's networks with our weights, in ONNX Runtime or in torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal, Protocol

from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from router.classify.resize import Float32Array

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
Runtime = Literal["auto", "onnx", "torch"]
_PACKAGES: Mapping[Runtime, str] = {"onnx": "onnxruntime", "torch": "torchxrayvision"}


class Network(Protocol):
    """A trained network, ready to answer. One thread: several processes beat several threads here (measured)."""

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
    architecture: str, outputs: int, tensors: Mapping[str, NDArray[Any]], *, runtime: Runtime = "auto"
) -> Network:
    """A network from its weights.

    Raises WeightsUnavailable when `tensors` are not this architecture's, ValueError when the runtime is not installed.
    """
    if installed(runtime) == "onnx":
        from router.classify.onnx_network import OnnxNetwork

        return OnnxNetwork(architecture, outputs, tensors)
    from router.classify.torch_network import TorchNetwork

    return TorchNetwork(architecture, outputs, tensors)
