"""torchxrayvision's networks as ONNX graphs, straight from their tensors: the same function in fewer operations.

Three rewritings, all exact but for rounding (scores move by some 0.00001):
- batch normalisation behind a convolution becomes part of its weights;
- in a DenseNet's transitions the average pool comes before the 1 x 1 convolution instead of after it: both are linear, and the
  convolution then has a quarter of the pixels to look at;
- the classifier is applied at every place before averaging and not after: so the class activation maps, whose mean is the
  output but for the bias, are an output too, for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.classify.network import BLOCKS, RESNET
from router.classify.onnx_file import Attribute, Graph, Node
from router.classify.resize import Float32Array
from router.errors import WeightsUnavailable

#: Names of the graph's input (count, 1, side, side) and outputs (count, labels) and (count, labels, rows, columns).
IMAGES, LOGITS, MAPS = "images", "logits", "maps"
#: torch.nn.BatchNorm2d's.
_EPSILON = 1e-5


def graph_of(architecture: str, outputs: int, tensors: Mapping[str, NDArray[Any]]) -> Graph:
    """The graph of a trained network, for images of any number and size.

    Raises WeightsUnavailable when `tensors` are not this architecture's, all of them and no others.
    """
    sketch = _Sketch(architecture, tensors)
    if architecture == RESNET:
        features, head = _resnet(sketch, BLOCKS[architecture]), "fc"
    else:
        features, head = _densenet(sketch, BLOCKS[architecture]), "classifier"
    weight, bias = sketch.take(f"{head}.weight"), sketch.take(f"{head}.bias")
    if weight.shape[0] != outputs or bias.shape != (outputs,):
        raise sketch.refused(f"{weight.shape[0]} outputs for {outputs} labels")
    sketch.conv(features, weight[:, :, None, None], output=MAPS)
    mean = sketch.apply("Flatten", sketch.apply("GlobalAveragePool", MAPS), axis=1)
    sketch.add(LOGITS, "Add", mean, sketch.constant(bias))
    sketch.finish(outputs)
    return sketch.graph


class _Sketch:
    """A graph in the making. Values go by name; every tensor that is taken is remembered."""

    def __init__(self, architecture: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.graph = Graph(name=architecture, inputs={IMAGES: ("count", 1, "side", "side")})
        self._tensors = {name: value for name, value in tensors.items() if _plays_a_part(name)}
        self._channels = {IMAGES: 1}

    def refused(self, why: str) -> WeightsUnavailable:
        return WeightsUnavailable(f"the weights are not those of a {self.graph.name}: {why}")

    def take(self, name: str) -> Float32Array:
        """A tensor of the weights; once only."""
        try:
            return np.asarray(self._tensors.pop(name), np.float32)
        except KeyError:
            raise self.refused(f"no tensor {name}") from None

    def constant(self, values: Float32Array) -> str:
        name = f"constant{len(self.graph.constants)}"
        self.graph.constants[name] = np.ascontiguousarray(values)
        return name

    def add(self, output: str, operator: str, *inputs: str, **attributes: Attribute) -> str:
        self.graph.nodes.append(Node(operator, inputs, output, attributes))
        self._channels[output] = self._channels.get(inputs[0], 0)
        return output

    def apply(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        return self.add(f"value{len(self.graph.nodes)}", operator, *inputs, **attributes)

    def conv(
        self,
        value: str,
        weight: Float32Array,
        bias: Float32Array | None = None,
        *,
        stride: int = 1,
        output: str = "",
    ) -> str:
        """A convolution that keeps the size (but for the stride)."""
        if weight.ndim != 4 or weight.shape[1] != self._channels[value] or weight.shape[2] != weight.shape[3]:
            raise self.refused(f"a convolution of shape {weight.shape} behind {self._channels[value]} channels")
        size = weight.shape[2]
        constants = [self.constant(weight)] if bias is None else [self.constant(weight), self.constant(bias)]
        output = self.add(
            output or f"value{len(self.graph.nodes)}",
            "Conv",
            value,
            *constants,
            kernel_shape=(size, size),
            pads=(size // 2,) * 4,
            strides=(stride, stride),
        )
        self._channels[output] = weight.shape[0]
        return output

    def conv_norm(self, value: str, conv: str, norm: str, *, stride: int = 1) -> str:
        """A convolution and the normalisation behind it, as one."""
        weight = self.take(f"{conv}.weight")
        scale, shift = self._norm(norm, weight.shape[0])
        return self.conv(value, weight * scale[:, None, None, None], shift, stride=stride)

    def norm_relu(self, value: str, norm: str) -> str:
        """A normalisation that no convolution can take over, and what is above zero of it."""
        scale, shift = self._norm(norm, self._channels[value])
        # With mean 0 and variance 1 - epsilon it multiplies and adds, and nothing else.
        mean, variance = np.zeros_like(scale), np.full_like(scale, 1 - _EPSILON)
        constants = [self.constant(values) for values in (scale, shift, mean, variance)]
        return self.relu(self.apply("BatchNormalization", value, *constants, epsilon=_EPSILON))

    def relu(self, value: str) -> str:
        return self.apply("Relu", value)

    def joined(self, *values: str) -> str:
        output = self.apply("Concat", *values, axis=1)
        self._channels[output] = sum(self._channels[value] for value in values)
        return output

    def finish(self, outputs: int) -> None:
        if self._tensors:
            raise self.refused(f"{len(self._tensors)} tensors too many, such as {min(self._tensors)}")
        self.graph.outputs = {LOGITS: ("count", outputs), MAPS: ("count", outputs, "rows", "columns")}

    def _norm(self, name: str, channels: int) -> tuple[Float32Array, Float32Array]:
        """What it multiplies by and adds."""
        weight, bias, mean, variance = (
            self.take(f"{name}.{part}").astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        if any(part.shape != (channels,) for part in (weight, bias, mean, variance)):
            raise self.refused(f"{name} does not fit {channels} channels")
        scale = weight / np.sqrt(variance + _EPSILON)
        return scale.astype(np.float32), (bias - mean * scale).astype(np.float32)


def _densenet(sketch: _Sketch, blocks: tuple[int, ...]) -> str:
    """Source: torchvision.models.densenet, of which torchxrayvision.models.DenseNet is a copy."""
    value = sketch.relu(sketch.conv_norm(IMAGES, "features.conv0", "features.norm0", stride=2))
    value = _max_pool(sketch, value)
    for number, layers in enumerate(blocks, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{number}.denselayer{layer}"
            new = sketch.norm_relu(value, f"{name}.norm1")
            new = sketch.relu(sketch.conv_norm(new, f"{name}.conv1", f"{name}.norm2"))
            value = sketch.joined(value, sketch.conv(new, sketch.take(f"{name}.conv2.weight")))
        if number < len(blocks):
            name = f"features.transition{number}"
            value = sketch.norm_relu(value, f"{name}.norm")
            value = sketch.apply("AveragePool", value, kernel_shape=(2, 2), strides=(2, 2))
            value = sketch.conv(value, sketch.take(f"{name}.conv.weight"))
    return sketch.norm_relu(value, "features.norm5")


def _resnet(sketch: _Sketch, blocks: tuple[int, ...]) -> str:
    """Source: torchvision.models.resnet (Bottleneck, whose stride is in the middle convolution)."""
    value = _max_pool(sketch, sketch.relu(sketch.conv_norm(IMAGES, "conv1", "bn1", stride=2)))
    for number, layers in enumerate(blocks, 1):
        for layer in range(layers):
            name = f"layer{number}.{layer}"
            stride = 2 if number > 1 and layer == 0 else 1
            new = sketch.relu(sketch.conv_norm(value, f"{name}.conv1", f"{name}.bn1"))
            new = sketch.relu(sketch.conv_norm(new, f"{name}.conv2", f"{name}.bn2", stride=stride))
            new = sketch.conv_norm(new, f"{name}.conv3", f"{name}.bn3")
            if layer == 0:
                value = sketch.conv_norm(value, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
            value = sketch.relu(sketch.apply("Add", new, value))
    return value


def _max_pool(sketch: _Sketch, value: str) -> str:
    return sketch.apply("MaxPool", value, kernel_shape=(3, 3), pads=(1, 1, 1, 1), strides=(2, 2))


def _plays_a_part(name: str) -> bool:
    """Counters of batches do not, and thresholds come from the table of operating points."""
    return not name.endswith("num_batches_tracked") and name != "op_threshs"
