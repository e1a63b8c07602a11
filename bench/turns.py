"""Contenders take turns, round by round, so that what else the machine does hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.effort import Effort
from bench.row import Row
from bench.sender import NotAllStored
from tests.peers import ProgramMissing

Figures = Mapping[str, float]
"""Unit -> value."""


@dataclass(slots=True)
class _Found:
    values: dict[str, list[float]] = field(default_factory=dict)
    reason: str = ""


def rows(
    effort: Effort, *, group: str, what: str, since: float, contenders: Mapping[str, Callable[[], Figures]]
) -> Iterator[Row]:
    """A row for each contender and unit; one that cannot be measured is left out of further rounds, with the reason.

    `since`: time.monotonic() when the group began; the first round is made whatever the time.
    """
    found = {name: _Found() for name in contenders}
    for number in range(effort.rounds):
        if number and effort.spent(since):
            break
        for name, measure in contenders.items():
            if found[name].reason:
                continue
            try:
                for unit, value in measure().items():
                    found[name].values.setdefault(unit, []).append(value)
            except (ProgramMissing, NotAllStored, NotMeasurable) as error:
                found[name].reason = str(error)
            except (AssertionError, OSError) as error:  # a peer that did not start, or went away
                words = (str(error).strip() or type(error).__name__).splitlines()
                found[name].reason = " … ".join(dict.fromkeys((words[0], words[-1])))[:300]
    for name, one in found.items():
        for unit, values in one.values.items():
            yield Row(group=group, what=what, who=name, unit=unit, values=values)
        if not one.values:
            yield Row(group=group, what=what, who=name, unit="", reason=one.reason or "no time left")


class NotMeasurable(Exception):
    """This contender cannot do what is measured; the text says why."""
