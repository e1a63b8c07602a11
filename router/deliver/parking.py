"""Associations without work, kept open for a while: instances that come one by one share one, and none pays for another set-up."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from router.deliver.association import Association
from router.deliver.negotiation import Context


@dataclass(slots=True)
class _Parked:
    association: Association
    until: float
    """By time.monotonic()."""


class Parking:
    """Any number of threads may take and park. One thread of its own, while there is anything to release in time."""

    def __init__(self, keep_open_s: float) -> None:
        self._keep_open_s = keep_open_s
        self._changed = threading.Condition()
        self._parked: list[_Parked] = []
        self._watched = False
        self._closed = False

    def take(self, wanted: Sequence[Sequence[Context]]) -> Association | None:
        """One that can carry all that is wanted. One that cannot makes room: peers limit how many we may have."""
        while True:
            with self._changed:
                if not self._parked:
                    return None
                fitting = [one for one in self._parked if all(_carries(one.association, some) for some in wanted)]
                chosen = (fitting or self._parked)[-1]
                self._parked.remove(chosen)
            if fitting and chosen.association.alive():
                return chosen.association
            chosen.association.release()
            if not fitting:
                return None

    def park(self, association: Association) -> None:
        """Keeps it for its time, or releases it now when that is nothing, or when nothing can be sent by it."""
        with self._changed:
            keep = self._keep_open_s > 0 and not self._closed and bool(association.accepted)
            if keep:
                self._parked.append(_Parked(association, time.monotonic() + self._keep_open_s))
                if not self._watched:
                    self._watched = True
                    threading.Thread(target=self._watch, name="associations", daemon=True).start()
        if not keep:
            association.release()

    def close(self) -> None:
        """Releases all; what is parked later is released at once."""
        with self._changed:
            self._closed = True
            parked, self._parked = self._parked, []
            self._changed.notify_all()
        for one in parked:
            one.association.release()

    def _watch(self) -> None:
        while True:
            with self._changed:
                while True:
                    if not self._parked:
                        self._watched = False
                        return
                    left_s = min(one.until for one in self._parked) - time.monotonic()
                    if left_s <= 0:
                        break
                    self._changed.wait(left_s)
                now = time.monotonic()
                over = [one for one in self._parked if one.until <= now]
                self._parked = [one for one in self._parked if one.until > now]
            for one in over:
                one.association.release()


def _carries(association: Association, contexts: Sequence[Context]) -> bool:
    """True when it takes the first of `contexts`, or has refused that and takes another."""
    own, *others = contexts
    return own in association.accepted or (
        own in association.proposed and any(context in association.accepted for context in others)
    )
