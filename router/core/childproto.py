"""What parent and classify child say to each other: JSON headers, then the bytes of each result object. Never pickles.

The child decodes hostile pixel data, so nothing it says may be able to execute in the parent.

    child  -> {"ready": true, "batch_max": 16, "loaded": {...}}  or  {"failed": "one line why"}
    parent -> request, and as many more as it says that follow
    child  -> for each: reply header, then one frame for each of its results
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from router.core.findings import ClassifierIdentity, Finding, Loaded, NotAnalysed, outcome_from_json, outcome_to_json
from router.core.instance import InstanceKind, Reference, SopInstance
from router.core.ports import Analysis, ResultObject
from router.core.sight import Layer

#: A header is a prediction and a few UIDs, for a page three maps of some 100 kB each; more is a child gone mad.
HEADER_BYTE_COUNT_MAX = 4 * 2**20
#: A Structured Report is some 60 kB, a heatmap some 200 kB.
RESULT_BYTE_COUNT_MAX = 64 * 2**20
RESULT_COUNT_MAX = 16
#: Requests that wait for their answers together must fit into a socket's buffer, or both sides could wait for each other.
BATCH_MAX = 32
BATCH_BYTE_COUNT_MAX = 128 * 2**10

READY = b'{"ready": true}'
_INSTANCE = tuple(field.name for field in fields(SopInstance))


class ProtocolError(ValueError):
    """The other side said something that is not in this protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One image to analyse."""

    classifier: str
    instance: SopInstance
    path: Path
    results: tuple[str, ...]
    made_before: tuple[Reference, ...] = ()
    """SRs of this image by this classifier, newest first."""
    given: NotAnalysed | None = None
    """Known already, and only to be said in results: the image is not analysed."""
    layers: bool = False
    """Maps of the findings are wanted, for a page; the reply has them in its header."""
    following: int = 0
    """So many more requests come before answers are expected: they may be computed together."""


def failed(reason: str) -> bytes:
    """The child's first frame when it cannot start."""
    return json.dumps({"failed": reason}).encode()


def ready(batch_max: int, loaded: Loaded | None = None) -> bytes:
    """The child's first frame when it is: how many images are best asked about together, and by what they are looked at."""
    said: dict[str, Any] = {"ready": True, "batch_max": batch_max}
    if loaded is not None:
        identity = replace(loaded.identity, parameters=dict(loaded.identity.parameters))
        said["loaded"] = {"identity": asdict(identity), "trust": loaded.trust}
    return json.dumps(said).encode()


def batch_max_of(frame: bytes) -> int:
    """What `ready` said; 1 when it said nothing. Raises ProtocolError."""
    batch_max = _object(frame).get("batch_max", 1)
    if not isinstance(batch_max, int) or isinstance(batch_max, bool) or not 1 <= batch_max <= BATCH_MAX:
        raise ProtocolError("an impossible number of images at once")
    return batch_max


def loaded_of(frame: bytes) -> Loaded | None:
    """What `ready` said that was loaded; None when it said nothing. Raises ProtocolError."""
    said = _object(frame).get("loaded")
    if said is None:
        return None
    try:
        return Loaded(identity=ClassifierIdentity(**said["identity"]), trust=str(said["trust"]))
    except (KeyError, TypeError) as error:
        raise ProtocolError("what is loaded is not said as it should be") from error


def start_problem(frame: bytes) -> str | None:
    """None when the child's first frame says it is ready, else why not. Raises ProtocolError."""
    data = _object(frame)
    if data.get("ready") is True:
        return None
    if isinstance(data.get("failed"), str):
        return str(data["failed"])
    raise ProtocolError("first frame is neither ready nor failed")


def encode_request(request: Request) -> bytes:
    """One frame."""
    return json.dumps(
        {
            "classifier": request.classifier,
            "path": str(request.path),
            "instance": instance_to_json(request.instance),
            "results": list(request.results),
            "made_before": [asdict(reference) for reference in request.made_before],
            "given": asdict(request.given) if request.given else None,
            "layers": request.layers,
            "following": request.following,
        }
    ).encode()


def decode_request(frame: bytes) -> Request:
    """The value behind `encode_request`. Raises ProtocolError."""
    data = _object(frame)
    try:
        return Request(
            classifier=data["classifier"],
            path=Path(data["path"]),
            instance=instance_from_json(data["instance"]),
            results=tuple(data["results"]),
            made_before=tuple(Reference(**reference) for reference in data["made_before"]),
            given=NotAnalysed(**data["given"]) if data["given"] else None,
            layers=bool(data["layers"]),
            following=int(data["following"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"not a request: {type(error).__name__}") from error


def encode_reply(analysis: Analysis) -> list[bytes]:
    """The header and one frame for each result object."""
    results = [
        {
            "kind": result.kind.value,
            "sop_instance_uid": result.sop_instance_uid,
            "sop_class_uid": result.sop_class_uid,
            "study_instance_uid": result.study_instance_uid,
            "series_instance_uid": result.series_instance_uid,
            "transfer_syntax_uid": result.transfer_syntax_uid,
            "notes": list(result.notes),
            "byte_count": len(result.data),
        }
        for result in analysis.results
    ]
    header = {
        "outcome": outcome_to_json(analysis.outcome),
        "not_reported": analysis.not_reported,
        "results": results,
        "layers": [{**asdict(layer), "png": base64.b64encode(layer.png).decode("ascii")} for layer in analysis.layers],
    }
    return [json.dumps(header).encode(), *(result.data for result in analysis.results)]


def result_byte_counts(header: bytes) -> list[int]:
    """The sizes of the frames that follow a reply's header. Raises ProtocolError, also for sizes over the limits."""
    try:
        counts = [int(result["byte_count"]) for result in _object(header)["results"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolError("reply has no list of results") from error
    if len(counts) > RESULT_COUNT_MAX or any(not 0 <= count <= RESULT_BYTE_COUNT_MAX for count in counts):
        raise ProtocolError("reply announces more or larger results than allowed")
    return counts


def decode_reply(header: bytes, frames: Sequence[bytes]) -> Analysis:
    """The value behind `encode_reply`. Raises ProtocolError."""
    counts = result_byte_counts(header)
    if counts != [len(frame) for frame in frames]:
        raise ProtocolError("result frames are not as long as announced")
    data = _object(header)
    try:
        return Analysis(
            outcome=outcome_from_json(data["outcome"]),
            not_reported=str(data["not_reported"]),
            results=tuple(_result(item, frame) for item, frame in zip(data["results"], frames, strict=True)),
            layers=tuple(_layer(item) for item in data["layers"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"not a reply: {type(error).__name__}") from error


def instance_to_json(instance: SopInstance) -> dict[str, Any]:
    """A JSON object that `instance_from_json` turns back into an equal value."""
    data = {name: getattr(instance, name) for name in _INSTANCE}
    data["kind"] = instance.kind.value
    data["received_at"] = instance.received_at.isoformat()
    data["header"] = dict(instance.header)
    return data


def instance_from_json(data: Mapping[str, Any]) -> SopInstance:
    """The value behind `instance_to_json`. Raises KeyError, TypeError or ValueError when it is not one."""
    values = dict(data)
    values["kind"] = InstanceKind(values["kind"])
    values["received_at"] = datetime.fromisoformat(values["received_at"])
    return SopInstance(**values)


def _layer(item: Mapping[str, Any]) -> Layer:
    rows, columns = item["cells"]
    return Layer(
        finding=Finding(**item["finding"]),
        cells=(int(rows), int(columns)),
        silent=bool(item["silent"]),
        cropped=bool(item["cropped"]),
        png=base64.b64decode(item["png"], validate=True),
    )


def _result(item: Mapping[str, Any], data: bytes) -> ResultObject:
    return ResultObject(
        kind=InstanceKind(item["kind"]),
        data=data,
        sop_instance_uid=str(item["sop_instance_uid"]),
        sop_class_uid=str(item["sop_class_uid"]),
        study_instance_uid=str(item["study_instance_uid"]),
        series_instance_uid=str(item["series_instance_uid"]),
        transfer_syntax_uid=str(item["transfer_syntax_uid"]),
        notes=tuple(str(note) for note in item["notes"]),
    )


def _object(frame: bytes) -> dict[str, Any]:
    try:
        data = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("frame is not JSON") from error
    if not isinstance(data, dict):
        raise ProtocolError("frame is not a JSON object")
    return data
