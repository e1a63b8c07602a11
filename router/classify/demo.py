"""The demonstration classifier that ships with the router: torchxrayvision's DenseNet class, trained on drawings.

It lets a stranger see the whole way of an image without anyone's weights. It has no clinical meaning, and says so in its
name, its notes and every document made from it. `python -m router.classify.train_demo` makes its weights.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from router.classify.card import Card, demo_card
from router.classify.examine import Examiner
from router.classify.gate import GateSettings
from router.classify.network import DEMO, Computing, Network, UsableRuntime, open_network
from router.classify.pixels import VERSION
from router.classify.scoring import OperatingPoints
from router.classify.tensor_file import read_metadata, read_safetensors
from router.classify.trust import SHIPS
from router.core.findings import ClassifierIdentity, Prediction
from router.core.sight import Look
from router.errors import WeightsUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: Pixels on a side of the network's input.
SIDE = 112
WEIGHTS = Path(__file__).with_name("demo.safetensors")
NOTE = "DEMONSTRATION: trained on drawn phantoms, not on patients. No clinical meaning."


class DemoClassifier:
    """`type = "demo"`. Made cheaply, without torch; `load` brings the network in."""

    class Settings(GateSettings):
        """[classifiers.NAME] with type = "demo"."""

        runtime: UsableRuntime = "auto"
        """What computes the network."""

    def __init__(self, *, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._network: Network | None = None
        self._points: OperatingPoints | None = None
        self._sha256 = ""

    def check(self) -> None:
        """Raises WeightsUnavailable when the weights that ship with the router are not there. Needs no torch."""
        if not WEIGHTS.is_file():
            raise WeightsUnavailable(
                f"demonstration weights: {WEIGHTS.name} is missing beside router/classify/demo.py; "
                "install the router again, or make them: python -m router.classify.train_demo"
            )

    def load(self) -> None:
        """Loads the network. Raises WeightsUnavailable."""
        self.check()
        tensors, self._points = read(WEIGHTS)
        self._sha256 = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
        self._network = open_network(DEMO, len(self._points.labels), tensors, Computing(runtime=self._settings.runtime))

    @property
    def identity(self) -> ClassifierIdentity:
        """Which classifier, exactly; known once it is loaded."""
        _, points = self._ready()
        return ClassifierIdentity(
            name=self._name,
            algorithm="DEMONSTRATION, drawn phantoms",
            version="1",
            manufacturer="dicom-ai-router demonstration",
            weights_sha256=self._sha256,
            parameters={"input": f"{SIDE} x {SIDE}, central square, version {VERSION}", **points.parameters()},
            demonstration=True,
        )

    @property
    def trust(self) -> str:
        """How the digest of the weights is known."""
        return SHIPS

    def predict_dataset(self, ds: Dataset) -> Prediction:
        """The prediction for one image. Raises NotForThisClassifier or UnreadablePixels."""
        return self.look(ds).prediction

    def look(self, ds: Dataset) -> Look:
        """The same, with what can be drawn of it."""
        network, points = self._ready()
        examiner = Examiner(
            network=network,
            architecture=DEMO,
            side=SIDE,
            points=points,
            identity=self.identity,
            gate=self._settings,
            notes=(NOTE,),
        )
        return examiner.look(ds)

    def _ready(self) -> tuple[Network, OperatingPoints]:
        if self._network is None or self._points is None:
            raise RuntimeError("load() comes first")
        return self._network, self._points


def card() -> Card:
    """The demonstration's model card."""
    points = read(WEIGHTS)[1]
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    return demo_card(points, architecture=DEMO, side=SIDE, sha256=digest)


def read(path: Path) -> tuple[Mapping[str, NDArray[Any]], OperatingPoints]:
    """Tensors and operating points of a weights file that `train_demo` wrote."""
    metadata = read_metadata(path)
    points = OperatingPoints(
        labels=tuple(json.loads(metadata["labels"])),
        thresholds=tuple(json.loads(metadata["op_threshs"])),
        source="Youden's J on drawn phantoms",
    )
    return read_safetensors(path), points
