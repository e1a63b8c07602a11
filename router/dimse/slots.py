"""How many connections and associations there may be, in total and per peer; when there are too many, idle ones go first."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from typing import Protocol

#: Connections that have not asked for an association yet. A port scanner or a stuck balancer can open thousands; a real
#: requestor asks within milliseconds, so the oldest makes room for the newest.
PENDING_MAX = 256
PENDING_PER_PEER_MAX = 128
#: A full house closes the association that has been idle the longest, but none that was at work this recently: a sender
#: may take its time between two instances.
SPARED_IDLE_S = 3.0


class Occupant(Protocol):
    """An association."""

    def idle_s(self) -> float:
        """For how long nothing has happened on it; 0 while a message is on its way or in work."""
        ...

    def leave(self, reason: str) -> None:
        """Ends it as soon as no message is in work. Does not wait for that."""
        ...


@dataclass(slots=True, eq=False)
class _Seat:
    host: str
    occupant: Occupant | None = None


class Slots:
    """Who is connected. Every connection enters, may become an association, and leaves."""

    def __init__(self, *, associations_max: int, associations_per_peer_max: int) -> None:
        self._associations_max = associations_max
        self._associations_per_peer_max = associations_per_peer_max
        self._lock = threading.Lock()
        self._pending: dict[socket.socket, str] = {}  # oldest first
        self._associations: dict[socket.socket, _Seat] = {}

    def enter(self, connection: socket.socket, host: str) -> socket.socket | None:
        """A new connection; returns an older one that must be closed to make room."""
        with self._lock:
            crowded = None
            own = [other for other, its_host in self._pending.items() if its_host == host]
            if len(own) >= PENDING_PER_PEER_MAX:
                crowded = own[0]
            elif len(self._pending) >= PENDING_MAX:
                crowded = next(iter(self._pending))
            if crowded is not None:
                del self._pending[crowded]
            self._pending[connection] = host
            return crowded

    def associate(self, connection: socket.socket, host: str) -> bool:
        """False when a limit is reached and nobody is idle; then the connection stays pending.

        An idle association that makes room has left when this returns, as far as limits are concerned.
        """
        with self._lock:
            own = [other for other, seat in self._associations.items() if seat.host == host]
            leaving: Occupant | None = None
            if len(own) >= self._associations_per_peer_max:
                leaving = self._idlest(own)
            elif len(self._associations) >= self._associations_max:
                leaving = self._idlest(list(self._associations))
            else:
                self._seat(connection, host)
                return True
            if leaving is None:
                return False
            self._seat(connection, host)
        leaving.leave("idle, and node.associations_max or node.associations_per_peer_max is reached")
        return True

    def occupy(self, connection: socket.socket, occupant: Occupant) -> None:
        """Who sits in the slot that `associate` gave; may make room for others from now on."""
        with self._lock:
            if (seat := self._associations.get(connection)) is not None:
                seat.occupant = occupant

    def leave(self, connection: socket.socket) -> None:
        """Its socket is closed; may be called twice."""
        with self._lock:
            self._pending.pop(connection, None)
            self._associations.pop(connection, None)

    def _seat(self, connection: socket.socket, host: str) -> None:
        self._pending.pop(connection, None)
        self._associations[connection] = _Seat(host)

    def _idlest(self, connections: list[socket.socket]) -> Occupant | None:
        """Takes its slot away. None when all of them are at work, or were a moment ago."""
        idle: dict[socket.socket, float] = {}
        for connection in connections:
            occupant = self._associations[connection].occupant
            if occupant is not None:
                idle[connection] = occupant.idle_s()
        longest = max(idle, key=idle.__getitem__, default=None)
        if longest is None or idle[longest] < SPARED_IDLE_S:
            return None
        return self._associations.pop(longest).occupant
