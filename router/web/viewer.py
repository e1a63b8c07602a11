"""The radiograph of an image's page: its numbers, its picture for browsers without script, and the maps over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from router.audit import events
from router.core.findings import Prediction
from router.core.instance import InstanceKind
from router.core.lifecycle import TaskState
from router.core.sight import Layer
from router.errors import SpoolDamaged
from router.ledger.queries import InstanceStatus, Queries
from router.ledger.search import Step
from router.web.darkroom import Darkroom, NoPicture
from router.web.maps import Maps
from router.web.paper import Paper, second_text
from router.web.ways import NotFound, Visit

#: As the classifiers make them, strongest first.
_MAPS_MAX = 3
#: What no object without pixels has.
_PIXEL_KEYWORDS = ("Rows", "Columns", "BitsAllocated")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapChoice:
    """A map that may be asked for."""

    value: str
    classifier: str
    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMap:
    """A map, or why there is none."""

    layer: Layer | None = None
    prediction: Prediction | None = None
    address: str = ""
    """Of its picture."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What an image's page needs to know of its picture."""

    instance_id: int
    gone: str
    """Why there is none; empty when there may be one."""
    maps: Sequence[MapChoice]
    no_maps: str
    """Why there are none; empty when there are."""
    sent: bool
    """A heatmap of it was made for archives."""
    chosen: str
    shown: ShownMap | None
    centre: str
    width: str
    inverted: bool
    picture: str
    """Address of the picture for browsers without script."""


class ViewerPages:
    """`/images/N/pixels`, `/images/N/picture`, `/images/N/heat`, `/images/N/map`."""

    def __init__(
        self,
        *,
        queries: Queries,
        spool_path: Callable[[str], Path],
        darkroom: Darkroom,
        maps: Maps,
        paper: Paper,
        node: events.Node,
    ) -> None:
        self._queries = queries
        self._spool_path = spool_path
        self._darkroom = darkroom
        self._maps = maps
        self._paper = paper
        self._node = node

    def view(self, visit: Visit, status: InstanceStatus, steps: Sequence[Step]) -> View | None:
        """None for what has no pixels."""
        if not any(keyword in status.instance.header for keyword in _PIXEL_KEYWORDS):
            return None
        try:
            self._spool_path(status.instance.spool_key)
            gone = ""
        except SpoolDamaged:
            gone = _gone(status, steps)
        choices = map_choices(status)
        chosen = visit.query("heat")
        asked = {name: visit.query(name) for name in ("frame", "centre", "width", "inverted") if visit.query(name)}
        picture = f"/images/{status.instance_id}/picture"
        return View(
            instance_id=status.instance_id,
            gone=gone,
            maps=choices,
            no_maps="" if choices else _no_maps(status),
            sent=any(result.instance.kind is InstanceKind.HEATMAP for result in status.results),
            chosen=chosen,
            shown=self._map(status, chosen) if chosen and not gone else None,
            centre=asked.get("centre", ""),
            width=asked.get("width", ""),
            inverted="inverted" in asked,
            picture=f"{picture}?{urlencode(asked)}" if asked else picture,
        )

    def pixels(self, visit: Visit) -> Response:
        """A frame's numbers, for `viewer.js`; or a JSON object with the problem."""
        _, path = self._looked_at(visit)
        if path is None:
            return JSONResponse({"problem": "Its bytes are not in the spool any more."})
        try:
            numbers = self._darkroom.numbers(path, _frame(visit), full=bool(visit.query("full")))
        except NoPicture as error:
            return JSONResponse({"problem": f"The picture cannot be shown: {error}"})
        return Response(numbers, media_type="application/octet-stream", headers={"Content-Encoding": "gzip"})

    def picture(self, visit: Visit) -> Response:
        """A frame as PNG, by the window in the address or else as its header asks."""
        _, path = self._looked_at(visit)
        if path is None:
            raise NotFound("Its bytes are not in the spool any more.")
        centre, width = _number(visit.query("centre")), _number(visit.query("width"))
        window = (centre, width) if centre is not None and width is not None and width >= 1 else None
        try:
            png = self._darkroom.png(path, _frame(visit), window=window, inverted=bool(visit.query("inverted")))
        except NoPicture as error:
            return self._paper.message(
                status=422, title="No picture", text=f"It cannot be shown: {error}", principal=visit.principal
            )
        return Response(png, media_type="image/png")

    def heat(self, visit: Visit) -> Response:
        """Piece of the page: what the map shows, in words, and the map where it belongs."""
        status, path = self._looked_at(visit)
        chosen = visit.query("heat")
        shown = self._map(status, chosen) if chosen and path is not None else None
        return self._paper.page("heat_piece.html", shown=shown)

    def map(self, visit: Visit) -> Response:
        """The map as PNG with transparency."""
        status, path = self._looked_at(visit)
        shown = self._map(status, visit.query("heat")) if path is not None else ShownMap(problem="There is no map.")
        if shown.layer is None:
            raise NotFound(shown.problem)
        return Response(shown.layer.png, media_type="image/png")

    def _looked_at(self, visit: Visit) -> tuple[InstanceStatus, Path | None]:
        """The instance and its file, None when that is gone; written into the audit trail."""
        instance_id = int(visit.request.path_params["instance_id"])
        status = self._queries.status_of(instance_id)
        if status is None:
            raise NotFound(f"The ledger knows no instance with the number {instance_id}.")
        visit.record(events.viewed(self._node, visit.person, events.seen_of([status.instance])))
        try:
            return status, self._spool_path(status.instance.spool_key)
        except SpoolDamaged:
            return status, None

    def _map(self, status: InstanceStatus, chosen: str) -> ShownMap:
        choice = next((choice for choice in map_choices(status) if choice.value == chosen), None)
        if choice is None:
            return ShownMap(problem="There is no map of such a finding.")
        prediction = status.outcomes[choice.classifier]
        assert isinstance(prediction, Prediction), "only predictions have findings"
        try:
            path = self._spool_path(status.instance.spool_key)
            layer = self._maps.layer(choice.classifier, choice.label, prediction, status.instance, path)
        except NoPicture as error:
            return ShownMap(problem=str(error))
        except SpoolDamaged:
            return ShownMap(problem="Its bytes are not in the spool any more.")
        address = f"/images/{status.instance_id}/map?{urlencode({'heat': choice.value})}"
        return ShownMap(layer=layer, prediction=prediction, address=address)


def map_choices(status: InstanceStatus) -> Sequence[MapChoice]:
    """The findings that classifiers make maps of."""
    choices = []
    for name, outcome in status.outcomes.items():
        found = [one for one in outcome.findings if one.present] if isinstance(outcome, Prediction) else []
        for finding in sorted(found, key=lambda one: (-one.score, one.label))[:_MAPS_MAX]:
            value = f"{name}:{finding.label}"
            choices.append(MapChoice(value=value, classifier=name, label=finding.label, score=finding.score))
    return choices


def _no_maps(status: InstanceStatus) -> str:
    if any(isinstance(outcome, Prediction) for outcome in status.outcomes.values()):
        return "No heatmap: no finding reached its threshold, and only findings that are present have one."
    if status.outcomes:
        return "No heatmap: the image was not analysed, for the reason below."
    if any(task.kind == "classify" for task in status.tasks):
        return "No heatmap yet: the image waits for its classifier."
    return (
        "No heatmap: no classifier was asked. A rule that matches such images and says classify = [...] asks one "
        "(docs/configuration.md), for images that come from then on."
    )


def _gone(status: InstanceStatus, steps: Sequence[Step]) -> str:
    """That there are no bytes, since when, and who has them."""
    freed_at: datetime | None = next(
        (step.at for step in steps if step.what == "freed" and step.instance_id == status.instance_id), None
    )
    there = [
        f"{task.target} (delivered {second_text(task.settled_at)})"
        for task in status.deliveries
        if task.state == TaskState.DONE
    ]
    why = (
        f"they were freed on {second_text(freed_at)}, spool.retention_s after everything was done"
        if freed_at
        else "its file is missing, though nothing has freed it (event spool.file_missing)"
    )
    where = f"The image is now at {', '.join(there)}." if there else "No destination of this node has taken the image."
    return f"The picture cannot be shown: its bytes are not in the spool any more, {why}. {where}"


def _frame(visit: Visit) -> int:
    text = visit.query("frame")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
