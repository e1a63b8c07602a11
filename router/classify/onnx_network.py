"""A network in ONNX Runtime: half the time of torch on a processor, a sixth of its memory, and no torch. Or on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.classify.network import Computing
from router.classify.onnx_file import encode
from router.classify.onnx_graph import IMAGES, LOGITS, MAPS, graph_of
from router.classify.resize import Float32Array

_CUDA = "CUDAExecutionProvider"
_PROCESSOR = Computing(runtime="onnx")


class OnnxNetwork:
    """`network.Network` by ONNX Runtime, in single precision; on a GPU too where onnxruntime-gpu is installed.

    The graph is drawn from the tensors at every start, in less time than checking the digest of a kept one would take.
    """

    def __init__(
        self, architecture: str, outputs: int, tensors: Mapping[str, NDArray[Any]], computing: Computing = _PROCESSOR
    ) -> None:
        """Raises WeightsUnavailable when `tensors` are not this architecture's; whatever ONNX Runtime raises without a GPU."""
        import onnxruntime

        self.computing = computing
        providers: list[Any] = ["CPUExecutionProvider"]
        if computing.device == "cuda":
            if _CUDA not in onnxruntime.get_available_providers():
                raise RuntimeError("this ONNX Runtime was built without CUDA: pip install onnxruntime-gpu instead")
            # TF32 would round every factor to 10 bits: that is a reduced precision, and nobody asked for one.
            providers.insert(0, (_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}))

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        graph = graph_of(architecture, outputs, tensors)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(constant) for constant in graph.constants.values()]
        options.add_external_initializers(list(graph.constants), values)
        self._session = onnxruntime.InferenceSession(encode(graph), options, providers=providers)
        if computing.device == "cuda":
            # It goes on without the GPU, silently, when CUDA's libraries cannot be loaded.
            if self._session.get_providers()[0] != _CUDA:
                raise RuntimeError("CUDA or cuDNN cannot be loaded; ONNX Runtime took the processor")
            self.logits(np.zeros((1, 1, 64, 64), np.float32))

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
