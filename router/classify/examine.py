"""What every image classifier of ours does with images: gate, pixels, one forward pass for all of them, findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from router.classify.decode import stored_values
from router.classify.gate import GateSettings, gate, gate_picture, remarks
from router.classify.heat import look_of
from router.classify.network import Network
from router.classify.pixels import to_input
from router.classify.resize import Float32Array
from router.classify.scoring import OperatingPoints, findings_of
from router.core.findings import ClassifierIdentity, Prediction
from router.core.sight import Look
from router.errors import NotForThisClassifier, UnreadablePixels

#: What may be wrong with an image alone; everything else is the classifier's own trouble, and is raised.
Refusal = NotForThisClassifier | UnreadablePixels | MemoryError


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An image that passed the gate."""

    values: NDArray[np.integer[Any]]
    """As stored."""
    picture: Float32Array
    """The network's input."""
    note: str
    """What the gate says of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examiner:
    """A network with all that makes it a classifier."""

    network: Network
    architecture: str
    side: int
    points: OperatingPoints
    identity: ClassifierIdentity
    gate: GateSettings
    notes: tuple[str, ...] = ()
    """Remarks that stand in every prediction, before those on the image."""

    def look(self, ds: Dataset) -> Look:
        """One image. Raises NotForThisClassifier, UnreadablePixels or MemoryError."""
        [found] = self.looks([ds])
        if not isinstance(found, Look):
            raise found
        return found

    def looks(self, datasets: Sequence[Dataset]) -> list[Look | Refusal]:
        """Several images by one forward pass, each with its look or with why it has none."""
        prepared = [self._prepared(ds) for ds in datasets]
        images = [one.picture for one in prepared if isinstance(one, _Prepared)]
        logits, maps = self.network.logits_and_maps(np.stack(images)) if images else (np.zeros(0), np.zeros(0))
        passed = iter(zip(logits, maps, strict=True))
        found: list[Look | Refusal] = []
        for ds, one in zip(datasets, prepared, strict=True):
            found.append(self._look(ds, one, *next(passed)) if isinstance(one, _Prepared) else one)
        return found

    def _prepared(self, ds: Dataset) -> _Prepared | Refusal:
        """What the network is given, or why it is given nothing."""
        try:
            gate(ds, self.gate)
            values = stored_values(ds)
            picture = to_input(ds, self.side, values)
            return _Prepared(values, picture, gate_picture(picture, self.gate))
        except (NotForThisClassifier, UnreadablePixels, MemoryError) as error:
            return error.with_traceback(None)  # which holds the pixels of an image that was too large already

    def _look(self, ds: Dataset, prepared: _Prepared, logits: Float32Array, maps: Float32Array) -> Look:
        findings, not_trained = findings_of(logits.tolist(), self.points)
        prediction = Prediction(
            classifier=self.identity,
            findings=findings,
            not_trained=not_trained,
            notes=(*self.notes, *remarks(ds), prepared.note),
        )
        return look_of(
            ds,
            prepared.values,
            prediction,
            logits=logits,
            maps=maps,
            points=self.points,
            architecture=self.architecture,
            side=self.side,
        )
