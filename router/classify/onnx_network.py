"""A network in ONNX Runtime: half the time of torch on a processor, a sixth of its memory, and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.classify.onnx_file import encode
from router.classify.onnx_graph import IMAGES, LOGITS, MAPS, graph_of
from router.classify.resize import Float32Array


class OnnxNetwork:
    """`network.Network` by ONNX Runtime, in single precision on the processor.

    The graph is drawn from the tensors at every start, in less time than checking the digest of a kept one would take.
    """

    def __init__(self, architecture: str, outputs: int, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Raises WeightsUnavailable when `tensors` are not this architecture's."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        graph = graph_of(architecture, outputs, tensors)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(constant) for constant in graph.constants.values()]
        options.add_external_initializers(list(graph.constants), values)
        self._session = onnxruntime.InferenceSession(encode(graph), options, providers=["CPUExecutionProvider"])

    def logits(self, images: Float32Array) -> Float32Array:
        """(count, 1, side, side) -> (count, outputs): outputs before the sigmoid, float32."""
        (logits,) = self._session.run([LOGITS], {IMAGES: _float32(images)})
        return np.asarray(logits, np.float32)

    def logits_and_maps(self, images: Float32Array) -> tuple[Float32Array, Float32Array]:
        """As `network.Network` says."""
        logits, maps = self._session.run([LOGITS, MAPS], {IMAGES: _float32(images)})
        return np.asarray(logits, np.float32), np.asarray(maps, np.float32)


def _float32(images: Float32Array) -> Float32Array:
    return np.ascontiguousarray(images, np.float32)
