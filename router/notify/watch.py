"""Watches what lasts: destinations that are down, a disk that is short. What has begun stands in the ledger, so that it is the same
trouble after a restart, and is told of once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from router.core.notices import BACK_AGAIN, Episode, NoticeEvent, Step, Subscription, is_short, step
from router.core.ports import Clock
from router.observe.log import emit

LOOK_EVERY_S = 1.0


class Health(Protocol):
    """`deliver.step.LaneHealth`."""

    @property
    def since(self) -> datetime | None:
        """When it went down; None while it is not known to be."""
        ...

    @property
    def reason(self) -> str: ...

    @property
    def answered(self) -> bool:
        """Whether the last that was heard of it was an answer; False: it is down, or was not asked since the start."""
        ...


class Book(Protocol):
    """`ledger.notices.NoticeBook`."""

    def episodes(self) -> list[Episode]: ...
    def begin(self, event: NoticeEvent, subject: str, began_at: datetime) -> Episode: ...
    def tell(self, one: Episode, targets: Collection[str], detail: Mapping[str, Any]) -> None: ...
    def end(self, one: Episode, *, told: NoticeEvent, targets: Collection[str], detail: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    """One subject as it is now."""

    trouble: bool | None
    since: datetime
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is watched, and for whom."""

    event: NoticeEvent
    name: str
    look: Callable[[datetime], _Sight]
    after_s: Mapping[str, float]
    """Subscription -> how long it waits."""
    and_back: frozenset[str]
    """Those that also hear of the end."""


class Watch:
    """A thread that looks every second (a lock and a statvfs), and writes only when something changes."""

    def __init__(
        self,
        *,
        book: Book,
        subscriptions: Sequence[Subscription],
        health: Mapping[str, Callable[[], Health]],
        free_byte_count: Callable[[], int],
        free_byte_count_min: int,
        clock: Clock,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """`health`: of each destination. `free_byte_count_min`: under which the node refuses what is sent to it."""
        self._book = book
        self._clock = clock
        self._look_every_s = look_every_s
        self._subjects = [
            *_destinations(subscriptions, health),
            *_disks(subscriptions, free_byte_count, free_byte_count_min),
        ]
        self._open: dict[tuple[NoticeEvent, str], Episode] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify-watch", daemon=True)

    def start(self) -> None:
        """Begins to look, if there is anything to look at."""
        if self._subjects:
            self._thread.start()

    def stop(self) -> None:
        """Ends after the look it is at."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Looks once at everything. Raises the database's errors; then the next look does what this one could not."""
        if self._open is None:
            self._open = {(one.event, one.subject): one for one in self._book.episodes()}
        now = self._clock.now()
        for subject in self._subjects:
            self._look_at(subject, now, self._open)

    def _look_at(self, subject: _Subject, now: datetime, open_ones: dict[tuple[NoticeEvent, str], Episode]) -> None:
        key, sight = (subject.event, subject.name), subject.look(now)
        episode = open_ones.get(key)
        match step(episode, sight.trouble):
            case Step.BEGIN:
                open_ones[key] = episode = self._book.begin(subject.event, subject.name, sight.since)
            case Step.END:
                assert episode is not None
                detail = {"since": _at(episode.began_at), "until": _at(now)}
                targets = episode.told & subject.and_back
                self._book.end(episode, told=BACK_AGAIN[subject.event], targets=targets, detail=detail)
                del open_ones[key]
                return
            case Step.NOTHING:
                return
        assert episode is not None
        if owed := episode.owed(now, subject.after_s):
            self._book.tell(episode, owed, {"since": _at(episode.began_at), **sight.detail})
            open_ones[key] = replace(episode, told=episode.told | set(owed))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the ledger or the disk does not answer: another look later
                emit("worker.crashed", level=logging.ERROR, exc_info=error, kind="notify-watch")
                self._open = None  # the ledger knows
            self._stopping.wait(self._look_every_s)


def _destinations(subscriptions: Sequence[Subscription], health: Mapping[str, Callable[[], Health]]) -> list[_Subject]:
    subjects = []
    for name, of_one in health.items():
        topics = {one.name: one.down for one in subscriptions if one.down and name in (one.down.destinations or health)}
        if not topics:
            continue

        def look(now: datetime, of_one: Callable[[], Health] = of_one) -> _Sight:
            known = of_one()
            trouble = True if known.since is not None else False if known.answered else None
            return _Sight(trouble=trouble, since=known.since or now, detail={"reason": known.reason})

        subjects.append(
            _Subject(
                event=NoticeEvent.DESTINATION_DOWN,
                name=name,
                look=look,
                after_s={one: topic.after_s for one, topic in topics.items()},
                and_back=frozenset(one for one, topic in topics.items() if topic.and_up),
            )
        )
    return subjects


def _disks(
    subscriptions: Sequence[Subscription], free_byte_count: Callable[[], int], refused_under: int
) -> list[_Subject]:
    """One for each number of bytes that somebody finds too few."""
    topics = {one.name: one.disk for one in subscriptions if one.disk}
    subjects = []
    for few in sorted({topic.free_byte_count_min for topic in topics.values()}):
        of_few = {name: topic for name, topic in topics.items() if topic.free_byte_count_min == few}

        def look(now: datetime, few: int = few) -> _Sight:
            free = free_byte_count()
            detail = {
                "free_byte_count": free,
                "free_byte_count_min": few,
                "refused_under_byte_count": refused_under,
            }
            return _Sight(trouble=is_short(free, few), since=now, detail=detail)

        subjects.append(
            _Subject(
                event=NoticeEvent.DISK_SHORT,
                name=f"spool under {few} bytes",
                look=look,
                after_s={name: topic.after_s for name, topic in of_few.items()},
                and_back=frozenset(name for name, topic in of_few.items() if topic.and_enough),
            )
        )
    return subjects


def _at(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
