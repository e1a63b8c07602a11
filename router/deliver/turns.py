"""Order within a series: whose turn it is among the batches that a lane's workers have in hand at once.

Instances of a series leave in the order in which they were claimed, which is that of their receipt. A batch waits for the
earlier ones of the same series only; one that is settled, delivered or not, holds nobody. Batches enter one after the
other, each with all of its series at once, so that the earliest never waits: there is no dead-lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Batch:
    """What one worker has in hand."""

    open_counts: dict[str, int] = field(default_factory=dict)
    """Series Instance UID -> instances that are not settled."""
    not_beyond: dict[str, int] = field(default_factory=dict)
    """Series Instance UID -> task of an instance that was given back meanwhile: none behind it may go before it."""


class SeriesTurns:
    """Shared by the workers of one lane."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: dict[str, deque[Batch]] = {}
        self._coming = Batch()

    def expect(self) -> None:
        """A worker begins to claim: what is given back from now on, the batch that it will enter with may lack."""
        with self._changed:
            self._coming = Batch()

    def enter(self, series: Collection[str]) -> Batch:
        """Takes a place behind every batch that has entered; one entry in `series` for each instance."""
        with self._changed:
            batch, self._coming = self._coming, Batch()
            for one in series:
                batch.open_counts[one] = batch.open_counts.get(one, 0) + 1
            for one in batch.open_counts:
                self._queues.setdefault(one, deque()).append(batch)
        return batch

    def wait(self, batch: Batch) -> set[str]:
        """The series whose turn it is, of those with instances that are not settled; waits until there is one."""
        with self._changed:
            while True:
                mine = {one for one in batch.open_counts if self._queues[one][0] is batch}
                if mine or not batch.open_counts:
                    return mine
                self._changed.wait()

    def settled(self, batch: Batch, series: str) -> None:
        """One instance of the series is no longer in the batch's hand."""
        with self._changed:
            batch.open_counts[series] -= 1
            if not batch.open_counts[series]:
                self._leave(batch, series)

    def over(self, batch: Batch, series: Collection[str]) -> None:
        """No instance of these series is in the batch's hand any more, whatever happened."""
        with self._changed:
            for one in batch.open_counts.keys() & set(series):
                self._leave(batch, one)

    def gave_back(self, batch: Batch, series: str, task_id: int) -> None:
        """An instance went back to the queue: what batches behind have of its series, and is younger, must follow it."""
        with self._changed:
            queue = self._queues[series]
            for later in [*list(queue)[queue.index(batch) + 1 :], self._coming]:
                later.not_beyond[series] = min(task_id, later.not_beyond.get(series, task_id))

    def may_go(self, batch: Batch, series: str, task_id: int) -> bool:
        """False when an older instance of the series has gone back to the queue; that one itself may go."""
        with self._changed:
            return task_id <= batch.not_beyond.get(series, task_id)

    def leave(self, batch: Batch) -> None:
        """Nothing is in the batch's hand any more. May be called twice."""
        self.over(batch, list(batch.open_counts))

    def _leave(self, batch: Batch, series: str) -> None:
        del batch.open_counts[series]
        queue = self._queues[series]
        queue.remove(batch)
        if not queue:
            del self._queues[series]
        self._changed.notify_all()
