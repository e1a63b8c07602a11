"""What we do with each status that a destination may answer, asked of the code that decides it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from router.core.ports import Delivered
from router.deliver.answers import outcome_of
from router.deliver.command import Response
from router.errors import TransientError

#: General statuses one by one (PS3.7 Annex C); of the others the first, second and last of each 256, and the lowest warnings.
_LOOKED_AT = sorted(
    {*range(0x0300), *(page + offset for page in range(0, 0x10000, 0x100) for offset in (0, 1, 0xFF))}
    | {*range(0xB000, 0xB010)}
)
_UNNAMED = 0x0002


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A range of statuses that are treated alike."""

    first: int
    last: int
    meaning: str
    done: str


def heard() -> Iterator[Heard]:
    """In order; what is nothing special last, with -1 for its range."""
    ranges: list[Heard] = []
    for status in _LOOKED_AT:
        meaning, done = _treated(status)
        if ranges and (ranges[-1].meaning, ranges[-1].done) == (meaning, done):
            ranges[-1] = replace(ranges[-1], last=status)
        else:
            ranges.append(Heard(first=status, last=status, meaning=meaning, done=done))
    other = _treated(_UNNAMED)
    yield from (one for one in ranges if (one.meaning, one.done) != other)
    yield Heard(first=-1, last=-1, meaning=other[0], done=other[1])


def _treated(status: int) -> tuple[str, str]:
    outcome = outcome_of(Response(message_id=1, status=status, comment=""), peer="it")
    if isinstance(outcome, Delivered):
        note = re.sub(r" \(0x[0-9A-F]{4}\)", "", outcome.note)
        return (note, "delivered, with this remark") if note else ("success", "delivered")
    meaning = re.sub(r"^it answered 0x[0-9A-F]{4}: ", "", str(outcome))
    return meaning, "tried again" if isinstance(outcome, TransientError) else "failed, shown to an operator"
