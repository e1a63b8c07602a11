"""TorchXRayVision's classifiers: up to 18 labels on a frontal chest radiograph, scores as upstream publishes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydicom.dataset import Dataset

from router.classify.examine import Examiner, Refusal
from router.classify.fetch import Progress
from router.classify.gate import GateSettings
from router.classify.network import GPU_BATCH, Computing, Device, Network, Precision, UsableRuntime, open_network
from router.classify.pixels import VERSION
from router.classify.precision import offered, require, version_of
from router.classify.published import PUBLISHED
from router.classify.trust import FIRST_USE
from router.classify.weights import Weights, fits, from_file
from router.classify.weights_folder import WeightsFolder
from router.core.findings import ClassifierIdentity, Prediction
from router.core.sight import Look
from router.errors import WeightsUnavailable
from router.observe.log import emit
from router.settings import FilePath

_FILE_ENDINGS = (".pt", ".pth", ".safetensors")


def _known(weights: str) -> str:
    if weights not in PUBLISHED and not weights.endswith(_FILE_ENDINGS):
        raise ValueError(f"neither a weights file ({', '.join(_FILE_ENDINGS)}) nor one of: {', '.join(PUBLISHED)}")
    return weights


class XrvClassifier:
    """`type = "xrv"`. Made cheaply, without torch; `load` brings the network in."""

    class Settings(GateSettings):
        """[classifiers.NAME] with type = "xrv"."""

        weights: Annotated[str, AfterValidator(_known)] = "densenet121-res224-all"
        """A name that torchxrayvision publishes, or the path of a weights file."""
        card: FilePath | None = None
        """Of a site's own weights: a TOML file that says what they are; by default the one beside them, if any."""
        runtime: UsableRuntime = "auto"
        """What computes the network."""
        device: Device = "auto"
        """Where: a GPU if there is one, or the processor."""
        precision: Precision = "fp32"
        """Another than "fp32" needs a verdict of `router models verify --precision`, a named runtime and a named device."""
        folder: FilePath = Path("var/weights")
        """Where weights are kept."""
        fetch: bool = True
        """Whether weights that are not there may be fetched from the internet."""
        mirror: str = ""
        """An http(s) address under which upstream's files lie, instead of upstream's own."""
        sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
        """Of the weights file as published; overrides the digest the router knows."""

        @model_validator(mode="after")
        def _computable(self) -> Self:
            """A reduced precision is measured for one runtime on one device, so both must be said."""
            if self.precision != "fp32" and not offered(self.computing):
                raise ValueError(
                    f'precision = "{self.precision}" needs runtime and device said, and one that offers it: '
                    'runtime "openvino" with device "cpu", or "torch"'
                )
            return self

        @property
        def computing(self) -> Computing:
            """What the network shall run on."""
            return Computing(runtime=self.runtime, device=self.device, precision=self.precision)

    def __init__(self, *, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._weights: Weights | None = None
        self._network: Network | None = None

    def check(self, progress: Progress | None = None) -> None:
        """Returns when verified weights are on this machine; fetches them when it may and must. Needs no torch.

        Raises WeightsUnavailable with one line that says what was looked for, where, and which commands would help.
        """
        try:
            weights = self._obtain(progress)
            if self._settings.weights not in PUBLISHED:
                fits(weights)  # nobody has looked at what is in them yet
            require(weights, self._settings.computing)
        except WeightsUnavailable as error:
            emit("weights.unavailable", level=logging.ERROR, classifier=self._name, reason=str(error))
            raise
        if weights.trust == FIRST_USE:
            emit(
                "weights.first_use",
                level=logging.WARNING,
                classifier=self._name,
                weights=weights.name,
                sha256=weights.sha256,
            )

    def load(self) -> None:
        """Loads the network. Raises WeightsUnavailable."""
        self._weights = self._obtain(None)
        weights = self._weights
        require(weights, self._settings.computing)
        self._network = open_network(
            weights.architecture,
            len(weights.points.labels),
            weights.tensors(),
            self._settings.computing,
        )
        computing = self._network.computing
        emit(
            "weights.ready",
            classifier=self._name,
            weights=weights.name,
            sha256=weights.sha256,
            trust=weights.trust,
            computed_by=str(computing),
            runtime_version=version_of(computing.runtime),
        )

    @property
    def identity(self) -> ClassifierIdentity:
        """Which classifier, exactly; known once it is loaded."""
        network, weights = self._ready()
        computing = network.computing
        # Single precision is the same everywhere but for rounding; a reduced one is another computation.
        how = {} if computing.precision == "fp32" else {"precision": str(computing)}
        return ClassifierIdentity(
            name=self._name,
            algorithm=weights.name,
            version=weights.card.version,
            manufacturer=weights.card.manufacturer,
            weights_sha256=weights.sha256,
            parameters={
                "input": f"{weights.side} x {weights.side}, central square, version {VERSION}",
                **weights.points.parameters(),
                **how,
            },
        )

    @property
    def trust(self) -> str:
        """How the digest of the weights is known."""
        return self._ready()[1].trust

    def predict_dataset(self, ds: Dataset) -> Prediction:
        """The prediction for one image. Raises NotForThisClassifier or UnreadablePixels."""
        return self.look(ds).prediction

    def look(self, ds: Dataset) -> Look:
        """The same, with what can be drawn of it."""
        return self._examiner().look(ds)

    def looks(self, datasets: Sequence[Dataset]) -> list[Look | Refusal]:
        """Several images by one forward pass, each with its look or why there is none."""
        return self._examiner().looks(datasets)

    @property
    def batch_max(self) -> int:
        """How many images are best looked at together."""
        return GPU_BATCH if self._ready()[0].computing.device == "cuda" else 1

    def _examiner(self) -> Examiner:
        network, weights = self._ready()
        return Examiner(
            network=network,
            architecture=weights.architecture,
            side=weights.side,
            points=weights.points,
            identity=self.identity,
            gate=self._settings,
        )

    def _obtain(self, progress: Progress | None) -> Weights:
        settings = self._settings
        if settings.weights not in PUBLISHED:
            return from_file(Path(settings.weights), card=settings.card, sha256=settings.sha256)
        folder = WeightsFolder(settings.folder, mirror=settings.mirror)
        published = PUBLISHED[settings.weights]
        return folder.obtain(published, may_fetch=settings.fetch, sha256=settings.sha256, progress=progress)

    def _ready(self) -> tuple[Network, Weights]:
        if self._network is None or self._weights is None:
            raise RuntimeError("load() comes first")
        return self._network, self._weights
