"""Who makes room for whom when there are too many connections and associations."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from router.dimse import slots
from router.dimse.slots import Slots


@dataclass
class Idle:
    """An association that has been idle for so long; 0: at work."""

    for_s: float
    left: list[str] = field(default_factory=list)

    def idle_s(self) -> float:
        return self.for_s

    def leave(self, reason: str) -> None:
        self.left.append(reason)


@pytest.fixture
def connections() -> Iterator[list[socket.socket]]:
    made = [socket.socket() for _ in range(5)]
    yield made
    for one in made:
        one.close()


def fill(full: Slots, connections: list[socket.socket], *seats: tuple[str, float]) -> list[Idle]:
    occupants = []
    for connection, (host, idle_s) in zip(connections, seats, strict=False):
        full.enter(connection, host)
        assert full.associate(connection, host)
        occupants.append(Idle(idle_s))
        full.occupy(connection, occupants[-1])
    return occupants


def test_the_one_that_was_idle_the_longest_leaves_for_a_new_one(connections) -> None:
    full = Slots(associations_max=3, associations_per_peer_max=3)
    first, longest, busy = fill(full, connections, ("a", 50), ("b", 70), ("c", 0))
    assert full.associate(connections[3], "d")
    assert [len(one.left) for one in (first, longest, busy)] == [0, 1, 0]
    assert "associations_max" in longest.left[0]
    assert full.associate(connections[4], "d")
    assert [len(one.left) for one in (first, longest, busy)] == [1, 1, 0]


def test_nobody_at_work_and_nobody_who_was_a_moment_ago_leaves(connections) -> None:
    full = Slots(associations_max=2, associations_per_peer_max=2)
    occupants = fill(full, connections, ("a", 0), ("b", slots.SPARED_IDLE_S - 0.1))
    assert not full.associate(connections[2], "c")
    assert not any(one.left for one in occupants)


def test_a_peer_at_its_own_limit_makes_room_for_itself_and_others_stay(connections) -> None:
    full = Slots(associations_max=9, associations_per_peer_max=1)
    other, own = fill(full, connections, ("a", 500), ("b", 60))
    assert full.associate(connections[2], "b")
    assert [len(one.left) for one in (other, own)] == [0, 1]


def test_a_peer_at_its_own_limit_whose_associations_work_takes_nobody_elses_place(connections) -> None:
    full = Slots(associations_max=9, associations_per_peer_max=1)
    other, own = fill(full, connections, ("a", 500), ("b", 0))
    assert not full.associate(connections[2], "b")
    assert not other.left
    assert not own.left


def test_who_is_not_seated_yet_is_not_asked_to_leave(connections) -> None:
    full = Slots(associations_max=1, associations_per_peer_max=1)
    assert full.associate(connections[0], "a")
    assert not full.associate(connections[1], "b")
    full.leave(connections[0])
    assert full.associate(connections[1], "b")


def test_the_place_of_one_that_has_left_is_not_freed_twice(connections) -> None:
    full = Slots(associations_max=1, associations_per_peer_max=1)
    fill(full, connections, ("a", 60))
    assert full.associate(connections[1], "b")
    full.leave(connections[0])  # its connection ends at last
    assert not full.associate(connections[2], "c")
