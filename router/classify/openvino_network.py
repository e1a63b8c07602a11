"""A network in OpenVINO: on processors that multiply in bfloat16 (AMX, AVX512-BF16) several times as fast as in single precision."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.classify.network import Computing
from router.classify.onnx_file import encode
from router.classify.onnx_graph import IMAGES, LOGITS, MAPS, graph_of
from router.classify.resize import Float32Array

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoNetwork:
    """`network.Network` by OpenVINO on the processor, one thread."""

    def __init__(
        self, architecture: str, outputs: int, tensors: Mapping[str, NDArray[Any]], computing: Computing
    ) -> None:
        """Raises WeightsUnavailable when `tensors` are not this architecture's."""
        # Its package imports one that can report its use to its makers. A hospital's node reports to nobody.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        self.computing = computing
        core = openvino.Core()
        model = core.read_model(encode(graph_of(architecture, outputs, tensors), contained=True))
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[computing.precision],
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()

    def logits(self, images: Float32Array) -> Float32Array:
        """(count, 1, side, side) -> (count, outputs): outputs before the sigmoid, float32."""
        return self.logits_and_maps(images)[0]

    def logits_and_maps(self, images: Float32Array) -> tuple[Float32Array, Float32Array]:
        """As `network.Network` says."""
        found = self._request.infer({IMAGES: np.ascontiguousarray(images, np.float32)})
        return np.array(found[LOGITS], np.float32), np.array(found[MAPS], np.float32)
