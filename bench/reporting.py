"""Building the Structured Report of one chest image: ours beside the same document laid out by highdicom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench import turns
from bench.effort import Effort
from bench.row import Row
from router.report.sr import SrBuilder
from tests.report.made import HEADER, instance_of, prediction, read
from tests.report.oracle import written

GROUP = "report"
WHAT = "TID 1500 SR of a chest image, 18 findings"
MILLISECONDS = "CPU ms"


def measured(effort: Effort, folder: Path) -> Iterator[Row]:
    """In this process, in turns; the first document of each is not counted."""
    del folder
    source, told = read(HEADER), prediction()
    instance = instance_of(source)
    builder = SrBuilder()
    made = builder.build(source, instance, told)

    def ours() -> None:
        builder.build(source, instance, told)

    def theirs() -> None:
        written(
            source,
            instance,
            told,
            sop_class_uid=made.sop_class_uid,
            sop_instance_uid=made.sop_instance_uid,
            series_instance_uid=made.series_instance_uid,
            predecessor=None,
        )

    contenders = {
        "router": partial(_each, ours, effort.count(50, 5)),
        "highdicom": partial(_each, theirs, effort.count(10, 2)),
    }
    yield from turns.rows(effort, group=GROUP, what=WHAT, since=time.monotonic(), contenders=contenders)


def _each(work: Callable[[], None], count: int) -> turns.Figures:
    work()
    begun = time.process_time()
    for _ in range(count):
        work()
    return {MILLISECONDS: (time.process_time() - begun) / count * 1000}
