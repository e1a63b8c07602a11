"""What lasts: destinations and the disk, looked at on a clock of the test's own, on a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from router.core.lifecycle import TaskKind
from router.core.notices import DiskTopic, DownTopic, Subscription
from router.ledger.store import SqlLedger
from router.notify.watch import Watch
from tests.ledger.made import FakeClock

NIGHT = Subscription(
    name="night", down=DownTopic(after_s=600), disk=DiskTopic(free_byte_count_min=1000, after_s=60, and_enough=False)
)
ARCHIVE_ONLY = Subscription(name="archivist", down=DownTopic(after_s=0, destinations=("archive",), and_up=False))


@dataclass
class Lane:
    """A destination's health."""

    since: datetime | None = None
    reason: str = ""
    answered: bool = False

    def down(self, at: datetime) -> None:
        self.since, self.reason, self.answered = at, "nothing listens", False

    def up(self) -> None:
        self.since, self.reason, self.answered = None, "", True


class Node:
    """A ledger, two destinations, a disk, and the watch over them; `restart` forgets all but the ledger."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.ledger = SqlLedger(f"sqlite:///{folder}/ledger.db", clock=self.clock)
        self.free = 5000
        self.restart()

    def restart(self) -> None:
        self.pacs, self.archive = Lane(), Lane()
        self.watch = Watch(
            book=self.ledger.notices,
            subscriptions=[NIGHT, ARCHIVE_ONLY],
            health={"pacs": lambda: self.pacs, "archive": lambda: self.archive},
            free_byte_count=lambda: self.free,
            free_byte_count_min=500,
            clock=self.clock,
        )

    def told(self, name: str = "night") -> list[tuple[str, str]]:
        """What was written down since the last question."""
        tasks = self.ledger.notices.claim(TaskKind.NOTIFY, name, lease_s=60, limit=99)
        for task in tasks:
            self.ledger.notices.sent(task)
        return [(task.notice.event.value, task.notice.subject) for task in tasks]

    def look(self, after_s: float = 0) -> None:
        self.clock.forward(after_s)
        self.watch.look()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.ledger.close()


def test_down_is_told_once_after_its_time_and_back_once(node: Node) -> None:
    node.pacs.down(node.clock.now())
    node.look()
    node.look(599)
    assert node.told() == []
    node.look(1)
    node.look(3600)
    assert node.told() == [("destination_down", "pacs")]
    node.pacs.up()
    node.look()
    node.look(5)
    assert node.told() == [("destination_up", "pacs")]


def test_what_comes_back_before_its_time_is_not_told_at_all_and_the_next_time_counts_anew(node: Node) -> None:
    node.pacs.down(node.clock.now())
    node.look(300)
    node.pacs.up()
    node.look(1)
    node.pacs.down(node.clock.now())
    node.look(599)
    assert node.told() == []
    node.look(1)
    assert node.told() == [("destination_down", "pacs")]


def test_a_restart_makes_no_new_trouble_and_forgets_none(node: Node) -> None:
    node.pacs.down(node.clock.now())
    node.look(300)
    node.restart()
    node.look(10_000)
    assert node.told() == [], "nobody knows whether it is still down"
    node.pacs.down(node.clock.now())
    node.look()
    assert node.told() == [("destination_down", "pacs")], "it is, and has been since before the restart"
    node.restart()
    node.pacs.down(node.clock.now())
    node.look(10_000)
    assert node.told() == []
    node.restart()
    node.pacs.up()
    node.look()
    assert node.told() == [("destination_up", "pacs")]


def test_who_named_one_destination_hears_of_that_one_and_who_wants_no_end_hears_of_none(node: Node) -> None:
    for lane in (node.pacs, node.archive):
        lane.down(node.clock.now())
    node.look(1)
    assert node.told("archivist") == [("destination_down", "archive")]
    for lane in (node.pacs, node.archive):
        lane.up()
    node.look(1)
    assert node.told("archivist") == []


def test_a_disk_that_stays_short_is_told_of_and_one_at_the_edge_stays_the_same_trouble(node: Node) -> None:
    node.free = 999
    node.look()
    node.look(60)
    node.free = 1050
    node.look(60)
    node.free = 999
    node.look(6000)
    assert node.told() == [("disk_short", "spool under 1000 bytes")]
    node.free = 1100
    node.look()
    node.free = 999
    node.look()
    node.look(60)
    assert node.told() == [("disk_short", "spool under 1000 bytes")]


def test_a_ledger_that_is_away_for_a_moment_costs_a_look_and_nothing_else(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("away")

    node.pacs.down(node.clock.now())
    node.look(600)
    node.restart()
    node.pacs.down(node.clock.now())
    with monkeypatch.context() as patched:
        patched.setattr(node.ledger.notices, "episodes", away)
        with pytest.raises(OSError, match="away"):
            node.look()
    node.look()
    assert node.told() == [("destination_down", "pacs")]
