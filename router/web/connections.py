"""Connections to the pages, bounded in number and in time, so that nobody who sends or reads slowly, or comes often, shuts others out.

A request's head has to be whole in time (its body: `forms`), an answer has to be taken at a pace, and where there are too many
connections the one that has been without a whole request the longest makes room: a browser's that is idle, or a dripping one.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from router.observe.log import emit
from router.settings import Network, WebSettings

#: Who takes an answer more slowly than this is cut off.
PACE_BYTES_PER_S = 16_000
_LOOK_EVERY_S = 1.0
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Of the settings [web]."""

    connections_max: int
    connections_per_peer_max: int
    request_timeout_s: float
    answer_timeout_s: float
    proxies: tuple[Network, ...] = ()
    """Everybody comes from their address."""

    @classmethod
    def of(cls, settings: WebSettings) -> ConnectionLimits:
        """As configured."""
        return cls(
            connections_max=settings.connections_max,
            connections_per_peer_max=settings.connections_per_peer_max,
            request_timeout_s=settings.request_timeout_s,
            answer_timeout_s=settings.answer_timeout_s,
            proxies=settings.trusted_proxy.hosts if settings.trusted_proxy else (),
        )


class Connections:
    """All that are open; used by the thread of the event loop only."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: set[BoundedProtocol] = set()

    def admit(self, new: BoundedProtocol) -> bool:
        """False when there is no room and nobody that could make some."""
        for limit, rivals in self._rivals(new.peer):
            if len(rivals) >= limit:
                waiting = [one for one in rivals if one.waits_since_s is not None]
                if not waiting:
                    return False
                min(waiting, key=lambda one: one.waits_since_s or 0.0).cut("makes room for another one")
        self._open.add(new)
        return True

    def ended(self, old: BoundedProtocol) -> None:
        """May be called twice."""
        self._open.discard(old)

    def _rivals(self, peer: str) -> list[tuple[int, set[BoundedProtocol]]]:
        """The narrower limit first: whoever has too many makes room himself."""
        everybody = (self.limits.connections_max, self._open)
        if _within(peer, self.limits.proxies):
            return [everybody]
        return [(self.limits.connections_per_peer_max, {one for one in self._open if one.peer == peer}), everybody]


class BoundedProtocol(H11Protocol):
    """uvicorn's, with limits."""

    def __init__(self, *, connections: Connections, **more: Any) -> None:
        super().__init__(**more)
        self._connections = connections
        self._look: asyncio.TimerHandle | None = None
        self._began_to_wait_s = self.loop.time()
        self._unsent: tuple[float, int] | None = None
        """Since when so many bytes of answers wait for the peer to take them."""
        self.peer = ""

    @property
    def waits_since_s(self) -> float | None:
        """How long there has been no whole head of a request, as a time of the loop; None while one is answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            return None
        return self._began_to_wait_s

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        if self._connections.admit(self):
            self._look = self.loop.call_later(_LOOK_EVERY_S, self._look_at_times)
        else:
            transport.write(_FULL)
            self.cut("there are too many", rest_s=1.0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.ended(self)
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._began_to_wait_s = self.loop.time()
        super().on_response_complete()

    def cut(self, why: str, *, rest_s: float = 0.0) -> None:
        """Ends it; what was written has `rest_s` to get to the peer."""
        emit("web.cut_off", peer_host=self.peer, reason=why)
        self._connections.ended(self)
        if rest_s:
            self.transport.close()
            self.loop.call_later(rest_s, self.transport.abort)
        else:
            self.transport.abort()

    def _look_at_times(self) -> None:
        if why := self._too_slow(self.loop.time()):
            self.cut(why)
            return
        self._look = self.loop.call_later(_LOOK_EVERY_S, self._look_at_times)

    def _too_slow(self, now_s: float) -> str:
        """Why it has to end, or nothing."""
        limits = self._connections.limits
        waits_since_s = self.waits_since_s
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._unsent = None
            late = waits_since_s is not None and now_s - waits_since_s > limits.request_timeout_s
            return "no whole request came" if late else ""
        since_s, was = self._unsent or (now_s, unsent)
        self._unsent = since_s, was
        if now_s - since_s <= limits.answer_timeout_s:
            return ""
        # More than before: all that was there has gone and the page has written on, because it waits for room.
        if was >= unsent > was - PACE_BYTES_PER_S * limits.answer_timeout_s:
            return "the answer is not taken"
        self._unsent = now_s, unsent
        return ""


def loop_factory(limits: ConnectionLimits) -> Callable[[], asyncio.AbstractEventLoop]:
    """Of event loops whose TLS handshakes have to be whole in time, too: before that there is no connection to look at."""

    class Loop(asyncio.SelectorEventLoop):
        async def create_server(self, *args: Any, **more: Any) -> Any:
            if more.get("ssl") is not None:
                more["ssl_handshake_timeout"] = more["ssl_shutdown_timeout"] = limits.request_timeout_s
            return await super().create_server(*args, **more)

    return Loop


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(found in network for network in networks)
