"""Where in an image a finding comes from, asked of the classifier's own child: between two images of its queue.

Nothing of it is stored or sent. It is the forward pass that gave the findings, again; so it must be the same classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from router.core.findings import NotAnalysed, Prediction
from router.core.instance import SopInstance
from router.core.ports import Analysis
from router.core.sight import Layer
from router.errors import ChildDied, ChildNotReady
from router.web.darkroom import Line, NoPicture
from router.web.kept import Kept

#: An image has up to three maps of some 100 kB each.
_KEPT_BYTE_COUNT_MAX, _KEPT_MAX = 16 * 2**20, 32


class Mapper(Protocol):
    """The classify child as its parent sees it (`work.analyst.ChildAnalyst`)."""

    @property
    def ready(self) -> bool: ...

    def layers(self, classifier: str, instance: SopInstance, path: Path) -> Analysis:
        """Raises ChildDied, ChildNotReady."""
        ...


class Maps:
    """For the classifiers of one node."""

    def __init__(self, mappers: Mapping[str, Sequence[Mapper]]) -> None:
        """Classifier -> its children."""
        self._mappers = mappers
        self._kept: Kept[tuple[Layer, ...]] = Kept(byte_count_max=_KEPT_BYTE_COUNT_MAX, count_max=_KEPT_MAX)
        self._line = Line()

    def layer(self, classifier: str, label: str, said: Prediction, instance: SopInstance, path: Path) -> Layer:
        """The map of a finding of `said`. Raises NoPicture."""
        layers = self._kept.get(path, classifier)
        if layers is None:
            with self._line.place():
                layers = self._asked(classifier, said, instance, path)
            self._kept.put(path, classifier, layers, sum(len(layer.png) for layer in layers))
        for layer in layers:
            if layer.finding.label == label:
                return layer
        raise NoPicture("Maps are made of the three strongest findings that are present, and this is none of them.")

    def _asked(self, classifier: str, said: Prediction, instance: SopInstance, path: Path) -> tuple[Layer, ...]:
        mappers = self._mappers.get(classifier, ())
        if not mappers:
            raise NoPicture(f"The classifier {classifier} is not in this node's configuration any more.")
        mapper = next((one for one in mappers if one.ready), mappers[0])
        try:
            found = mapper.layers(classifier, instance, path)
        except ChildDied as error:
            raise NoPicture(f"The classifier did not get through this image: {error}.") from error
        except ChildNotReady as error:
            raise NoPicture(f"The process of classifier {classifier} is not ready: {error}.") from error
        if isinstance(found.outcome, NotAnalysed):
            raise NoPicture(f"The classifier does not take this image any more: {found.outcome.reason}.")
        if found.outcome.classifier != said.classifier:
            raise NoPicture(
                "The classifier has changed since this image was analysed: a map of today would not belong to the scores on this page."
            )
        if found.not_reported:
            raise NoPicture(f"There is no map: {found.not_reported}.")
        return found.layers
