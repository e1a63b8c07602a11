"""How many connections and associations there may be, in total and per peer."""

from __future__ import annotations

import socket
import threading
from collections import Counter

#: Connections that have not asked for an association yet. A port scanner or a stuck balancer can open thousands; a real
#: requestor asks within milliseconds, so the oldest makes room for the newest.
PENDING_MAX = 256
PENDING_PER_PEER_MAX = 128


class Slots:
    """Who is connected. Every connection enters, may become an association, and leaves."""

    def __init__(self, *, associations_max: int, associations_per_peer_max: int) -> None:
        self._associations_max = associations_max
        self._associations_per_peer_max = associations_per_peer_max
        self._lock = threading.Lock()
        self._pending: dict[socket.socket, str] = {}  # oldest first
        self._associations: dict[socket.socket, str] = {}

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
        """False when a limit is reached; then the connection stays pending."""
        with self._lock:
            per_peer = Counter(self._associations.values())[host]
            if len(self._associations) >= self._associations_max or per_peer >= self._associations_per_peer_max:
                return False
            self._pending.pop(connection, None)
            self._associations[connection] = host
            return True

    def leave(self, connection: socket.socket) -> None:
        """Its socket is closed; may be called twice."""
        with self._lock:
            self._pending.pop(connection, None)
            self._associations.pop(connection, None)
