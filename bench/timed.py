"""`router` with a watch in its classify children: where the time of an image goes, by stage.

    python -m bench.timed FILE serve --config F     as `router`; children append their times to FILE
    python -m bench.timed FILE child FD NAME=JSON…  (started by the first)

Each line of FILE is of one image: stage -> [processor seconds, seconds]. What no stage covers is in "rest".
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORWARD = "the network"
_WAITING = "waiting"
#: Stage -> where its functions are looked up when they are called.
_STAGES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "reading the file": (("router.child", "_source"),),
    "gate": (("router.classify.examine", "gate"), ("router.classify.examine", "gate_picture")),
    "decoding": (("router.classify.examine", "stored_values"),),
    "cropping and resizing": (("router.classify.examine", "to_input"),),
    FORWARD: (("router.classify.onnx_network.OnnxNetwork", "logits_and_maps"),),
    "SR": (("router.child", "_build"),),
    "checking the SR": (("router.child", "_check"),),
}


class _Watch:
    """Of one thread: what is spent inside the innermost stage counts for that."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self._open: list[str] = []
        self._since = (time.thread_time(), time.perf_counter())

    def _turn(self) -> None:
        now = (time.thread_time(), time.perf_counter())
        here = self.spent.setdefault(self._open[-1] if self._open else "rest", [0.0, 0.0])
        for number in (0, 1):
            here[number] += now[number] - self._since[number]
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def image(self) -> dict[str, list[float]]:
        """What was spent since the last one."""
        self._turn()
        spent, self.spent = self.spent, {}
        return spent


def totals(path: Path) -> dict[str, tuple[float, float]]:
    """Stage -> processor seconds and seconds of all images in FILE; empty when there is none."""
    found: dict[str, tuple[float, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        for stage, (cpu_s, wall_s) in json.loads(line).items():
            before = found.get(stage, (0.0, 0.0))
            found[stage] = before[0] + cpu_s, before[1] + wall_s
    return found


def _node(file: str, arguments: list[str]) -> None:
    from router.cli import main
    from router.work.analyst import ChildAnalyst

    begin = ChildAnalyst.__init__

    def begin_timed(self: ChildAnalyst, *, command: Any, **more: Any) -> None:
        timed = [sys.executable, "-m", "bench.timed", file, "child"]
        begin(self, command=timed if "router.child" in command else command, **more)

    ChildAnalyst.__init__ = begin_timed  # type: ignore[method-assign]
    sys.argv = ["router", *arguments]
    main()


def _child(file: str, arguments: list[str]) -> None:
    from router import child, confinement

    confinement.one_numeric_thread()
    watch = _Watch()
    for stage, places in _STAGES.items():
        for place, name in places:
            _replace(place, name, lambda function, stage=stage: _timed(function, watch, stage))  # type: ignore[misc]
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    answer = child._answer
    _replace("multiprocessing.connection.Connection", "recv_bytes", lambda function: _timed(function, watch, _WAITING))

    def answered(*arguments: Any) -> None:
        answer(*arguments)
        spent = watch.image()
        spent.pop(_WAITING, None)
        os.write(descriptor, json.dumps(spent).encode() + b"\n")

    child._answer = answered  # type: ignore[assignment]
    os._exit(child.main(arguments))


def _replace(place: str, name: str, changed: Callable[[Any], Any]) -> None:
    import importlib

    try:
        owner: Any = importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, inside = place.rpartition(".")
        owner = getattr(importlib.import_module(module), inside)
    setattr(owner, name, changed(getattr(owner, name)))


def _timed(function: Callable[..., Any], watch: _Watch, stage: str) -> Callable[..., Any]:
    def timed(*arguments: Any, **more: Any) -> Any:
        with watch.stage(stage):
            return function(*arguments, **more)

    return timed


if __name__ == "__main__":
    file, what, *rest = sys.argv[1:]
    if what == "child":
        _child(file, rest)
    else:
        _node(file, [what, *rest])
