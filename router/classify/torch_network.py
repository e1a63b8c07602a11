"""torchxrayvision's own networks with our weights in them: the reference, and the way where ONNX Runtime is not installed."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.classify.network import BLOCKS, DEMO, DENSENET, RESNET, Computing
from router.classify.resize import Float32Array
from router.errors import WeightsUnavailable

_PROCESSOR = Computing(runtime="torch")
_DEMO_SHAPE = {"growth_rate": 12, "block_config": BLOCKS[DEMO], "num_init_features": 24, "bn_size": 2}


def build(architecture: str, outputs: int) -> Any:
    """An untrained torch module of one of the architectures above."""
    import torch

    with warnings.catch_warnings():  # importing it silences every warning of the process
        import torchxrayvision
    if architecture == DENSENET:
        return torchxrayvision.models.DenseNet(num_classes=outputs)
    if architecture == DEMO:
        return torchxrayvision.models.DenseNet(num_classes=outputs, **_DEMO_SHAPE)
    if architecture == RESNET:
        import torchvision  # type: ignore[import-untyped]

        network = torchvision.models.resnet50(num_classes=outputs, weights=None)
        network.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        return network
    raise ValueError(f"no architecture {architecture!r}")


class TorchNetwork:
    """`network.Network` by torch, on the processor or on a GPU, without gradients."""

    def __init__(
        self, architecture: str, outputs: int, tensors: Mapping[str, NDArray[Any]], computing: Computing = _PROCESSOR
    ) -> None:
        """Raises WeightsUnavailable when `tensors` are not this architecture's; whatever torch raises without a GPU."""
        import torch

        self.computing = computing
        torch.set_num_threads(1)
        # TF32 would round every factor to 10 bits: that is a reduced precision, and nobody asked for one.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        with torch.device("meta"):  # without inventing weights that are replaced at once
            self._module = build(architecture, outputs)
        state = {
            name: torch.from_numpy(np.array(value, np.float32 if value.dtype.kind == "f" else value.dtype))
            for name, value in tensors.items()
        }
        _complete(self._module, state)
        try:
            self._module.load_state_dict(state, strict=True, assign=True)
        except RuntimeError as error:
            raise WeightsUnavailable(f"the weights are not those of a {architecture}: {_first_line(error)}") from None
        self._module.eval()
        if computing.device == "cuda":
            self._module.to(device="cuda", memory_format=torch.channels_last)
            self.logits(np.zeros((1, 1, 64, 64), np.float32))

    @property
    def module(self) -> Any:
        """The torch module."""
        return self._module

    def logits(self, images: Float32Array) -> Float32Array:
        """(count, 1, side, side) -> (count, outputs): outputs before the sigmoid, float32."""
        return self.logits_and_maps(images)[0]

    def logits_and_maps(self, images: Float32Array) -> tuple[Float32Array, Float32Array]:
        """As `network.Network` says; the logits are what the module itself returns."""
        import torch

        kept: list[Any] = []
        body, head = _ends(self._module)
        hook = body.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        try:
            with torch.inference_mode(), self._arithmetic():
                logits = self._module(torch.from_numpy(np.ascontiguousarray(images)).to(self.computing.device))
                # A DenseNet's last activation comes behind its features; a ResNet's is among them, and stays as it is.
                maps = torch.einsum("kc,nchw->nkhw", head.weight, torch.relu(kept[0]))
        finally:
            hook.remove()
        return logits.float().cpu().numpy(), maps.float().cpu().numpy()

    def _arithmetic(self) -> Any:
        import torch

        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        precision, device = self.computing.precision, self.computing.device
        if precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device, dtype=kinds[precision])


def _ends(module: Any) -> tuple[Any, Any]:
    """What gives the last features, and the linear layer that their means go into."""
    return (module.layer4, module.fc) if hasattr(module, "fc") else (module.features, module.classifier)


def _complete(module: Any, state: dict[str, Any]) -> None:
    """Batch counters play no part in inference; files of old torch versions and our own do not have them."""
    import torch

    for name in module.state_dict():
        if name.endswith("num_batches_tracked") and name not in state:
            state[name] = torch.zeros((), dtype=torch.int64)
    # Upstream's files carry the thresholds as a buffer; ours come from the table of operating points.
    state.pop("op_threshs", None)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return (lines[1] if len(lines) > 1 else lines[0]).strip()[:200]
