"""The classify child: gate, pixels, network, report, check. Asked over a socket; what is asked together is computed together.

Composition root of its process, as `node` is of the other one. It never opens the ledger or a network connection to a
peer, and may be killed at any moment: nothing is owed here. What may crash, hang or eat memory (codecs, the network)
does so here and not where images are received.

Started by the parent as  python -m router.child FD NAME=JSON ...  with one end of a socket pair as FD.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from router import registry
from router.confinement import bound_memory, die_with_parent, one_numeric_thread
from router.core.childproto import BATCH_MAX, Request, decode_request, encode_reply, failed, ready
from router.core.findings import Loaded, NotAnalysed, Outcome, Prediction
from router.core.ports import Analysis, Explainer, Illustrator, ResultBuilder, ResultObject, SupersedingBuilder
from router.core.sight import Layer, Look, Sight
from router.errors import NotForThisClassifier, NotReportable, RouterError, UnreadablePixels
from router.observe.log import configure, emit, log_uncaught

_Seen = tuple[Outcome, Callable[[], Sight]]
#: Reception and delivery go first when there is not enough processor for all.
NICENESS = 5


def main(arguments: list[str]) -> int:
    """Serves until the parent closes its end. Exit 0 then, 1 when no classifier could be loaded."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent drains, we follow it
    descriptor, *tables = arguments
    connection: Connection[bytes, bytes] = Connection(int(descriptor))
    configure()
    log_uncaught()
    _step_back()
    gc.disable()  # loading makes much and drops little: collecting meanwhile is a tenth of the time until we are ready
    specs = [json.loads(table) for table in tables]
    one_numeric_thread()
    try:
        with _quiet():
            classifiers = {spec["name"]: _classifier(spec) for spec in specs}
            builders = _builders()
    except (RouterError, ImportError, OSError) as error:
        connection.send_bytes(failed(f"{type(error).__name__}: {error}"))
        return 1
    bound_memory(min(int(spec["memory_byte_count_max"]) for spec in specs))
    gc.freeze()
    gc.enable()
    batch_max = min(BATCH_MAX, max(getattr(one, "batch_max", 1) for one in classifiers.values()))
    connection.send_bytes(ready(batch_max, _loaded(*classifiers.values())))
    while True:
        try:
            requests = [decode_request(connection.recv_bytes())]
            while len(requests) <= requests[0].following:
                requests.append(decode_request(connection.recv_bytes()))
        except EOFError:
            return 0
        _answer(connection, _analyses(classifiers[requests[0].classifier], builders, requests), len(requests))


def _answer(connection: Connection[bytes, bytes], analyses: Iterator[Analysis], count: int) -> None:
    """Sends so many answers. A function of its own: nothing of an image stays when it is left."""
    for _ in range(count):
        with _quiet():
            analysis = next(analyses)
        for frame in encode_reply(analysis):
            connection.send_bytes(frame)


def _classifier(spec: Mapping[str, Any]) -> Any:
    plugin: Any = registry.load("router.classifiers", spec["type"])
    # Validated by the parent already; lax here because JSON has no tuples or paths.
    classifier = plugin(name=spec["name"], settings=plugin.Settings.model_validate(spec["options"], strict=False))
    classifier.load()
    return classifier


def _loaded(classifier: Any, *_more: Any) -> Loaded:
    """Of the one that a node gives its child."""
    return Loaded(identity=classifier.identity, trust=str(getattr(classifier, "trust", "")))


def _builders() -> dict[str, Any]:
    return {name: registry.load("router.results", name)() for name in registry.available("router.results")}


def _analyse(classifier: Any, builders: Mapping[str, Any], request: Request) -> Analysis:
    return next(_analyses(classifier, builders, [request]))


def _analyses(classifier: Any, builders: Mapping[str, Any], requests: Sequence[Request]) -> Iterator[Analysis]:
    """An answer to each, in order; all images are looked at before the first one."""
    sources = [_source(request) for request in requests]
    seen = iter(_seen(classifier, [dataset for dataset, outcome in sources if outcome is None]))
    for request, (dataset, outcome) in zip(requests, sources, strict=True):
        if dataset is None:
            assert outcome is not None, "what cannot be read has a reason"
            yield Analysis(outcome=request.given or outcome)
        else:
            what = next(seen) if outcome is None else (outcome, _no_sight)
            yield _reported(classifier, builders, request, dataset, what)


def _source(request: Request) -> tuple[Any, Outcome | None]:
    """The data set, or what there is of it, and what is known of it without looking at its pixels."""
    from router.report.source import read_head, read_source

    try:
        return read_source(request.path), request.given
    except Exception as error:  # noqa: BLE001 - whatever a parser says of hostile bytes, the answer is the same
        reason = f"the data set cannot be read ({_name(error)})"
        return read_head(request.path), NotAnalysed(code="unreadable", reason=reason)


def _reported(classifier: Any, builders: Mapping[str, Any], request: Request, dataset: Any, seen: _Seen) -> Analysis:
    from router.report.source import refuse_ambiguous

    results: list[ResultObject] = []
    problems: list[str] = []
    for name in request.results:
        try:
            refuse_ambiguous(dataset)
            result = _build(builders[name], dataset, request, seen, classifier)
            if result is not None:
                wrong = _check(result, dataset)
                problems += wrong
                results += [] if wrong else [result]
        except NotReportable as error:
            problems.append(str(error))
        except Exception as error:  # noqa: BLE001 - a result object that cannot be built holds nothing else up
            emit("report.held_back", exc_info=True, sop_instance_uid=request.instance.sop_instance_uid)
            problems.append(f"{name} could not be built ({_name(error)})")
    layers: tuple[Layer, ...] = ()
    if request.layers and isinstance(seen[0], Prediction):
        from router.report.layer import layers_of

        try:
            layers = layers_of(seen[1]())
        except NotReportable as error:
            problems.append(str(error))
    # One kind that cannot be made does not hold back the others. What several have in common is said once.
    said = "; ".join(dict.fromkeys(problems))
    return Analysis(outcome=seen[0], results=tuple(results), not_reported=said, layers=layers)


def _seen(classifier: Any, datasets: Sequence[Any]) -> list[_Seen]:
    """What a classifier says of images, and where in them."""
    if len(datasets) > 1 and hasattr(classifier, "looks"):
        return [_told(one) for one in classifier.looks(datasets)]
    return [_told(_looked(classifier, dataset)) for dataset in datasets]


def _looked(classifier: Any, dataset: Any) -> Look | Prediction | Exception:
    try:
        found: Look | Prediction = (
            classifier.look(dataset) if hasattr(classifier, "look") else classifier.predict_dataset(dataset)
        )
    except (NotForThisClassifier, UnreadablePixels, MemoryError) as error:
        return error.with_traceback(None)  # which holds the image
    return found


def _told(found: Look | Prediction | Exception) -> _Seen:
    if isinstance(found, Look):
        return found.prediction, functools.cache(found.sight)
    if isinstance(found, Prediction):
        return found, _no_sight
    if isinstance(found, NotForThisClassifier):
        return NotAnalysed(code=found.code, reason=str(found)), _no_sight
    if isinstance(found, UnreadablePixels):
        return NotAnalysed(code="unreadable_pixels", reason=str(found)), _no_sight
    return NotAnalysed(code="too_large", reason="the image needs more memory than is allowed"), _no_sight


def _no_sight() -> Sight:
    raise NotReportable("this classifier does not say where in the image its findings come from")


def _build(builder: Any, dataset: Any, request: Request, seen: _Seen, classifier: Any) -> ResultObject | None:
    """None: this builder has nothing to say of such an outcome."""
    outcome, sight = seen
    if isinstance(outcome, NotAnalysed):
        if isinstance(builder, Explainer):
            return builder.explain(dataset, request.instance, outcome, classifier.identity)
        return None
    if isinstance(builder, Illustrator):
        return builder.illustrate(dataset, request.instance, outcome, sight)
    if isinstance(builder, SupersedingBuilder):
        return builder.build_after(dataset, request.instance, outcome, request.made_before)
    if not isinstance(builder, ResultBuilder):  # of what is not analysed, or of a whole study
        return None
    made: ResultObject | None = builder.build(dataset, request.instance, outcome)
    return made


def _check(result: ResultObject, source: Any) -> list[str]:
    from router.report.check import check

    return check(result, source)


def _name(error: BaseException) -> str:
    """The type only: the text of a third-party exception may quote an element's value."""
    return type(error).__name__


@contextlib.contextmanager
def _quiet() -> Any:
    """Libraries print and warn about element values; neither may reach our log."""
    with (
        Path(os.devnull).open("w", encoding="utf-8") as devnull,
        contextlib.redirect_stdout(devnull),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _step_back() -> None:
    """Lower priority than the parent's. Linux may weigh sessions first (autogroups), and ours is a session of its own."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    group = Path("/proc/self/autogroup")
    if os.getsid(0) == os.getpid() and group.exists():
        with contextlib.suppress(OSError):
            group.write_text(str(NICENESS))


if __name__ == "__main__":
    # End without running other libraries' exit handlers: nothing here needs them, and they can hang.
    sys.stdout.flush()
    try:
        code = main(sys.argv[1:])
    except ConnectionError:
        code = 0  # the parent is gone: nobody is left to be told, and a traceback would stand in its log
    os._exit(code)
