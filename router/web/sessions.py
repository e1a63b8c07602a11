"""Who is signed in. Kept in memory: signing out really ends a session, and a restart ends all of them."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from router.web.users import Role, User

SESSIONS_MAX = 1000
_PER_USER_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody whose identity is known."""

    name: str
    role: Role
    form_token: str
    """What every form of theirs carries, so that no other site can send one in their name."""


@dataclass(slots=True, kw_only=True)
class _Session:
    name: str
    password_hash: str
    form_token: str
    opened_s: float
    used_s: float


class Sessions:
    """Token -> session. A session ends by itself when it is idle, when it is old, and when its user changes or goes."""

    def __init__(self, *, idle_s: float, age_max_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._idle_s = idle_s
        self._age_max_s = age_max_s
        self._now_s = now_s
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def open(self, user: User) -> str:
        """A new session; what the browser keeps. 256 bits from the system's generator; only their digest is kept here."""
        token = secrets.token_urlsafe(32)
        now = self._now_s()
        with self._lock:
            self._forget_ended(now)
            mine = [key for key, session in self._sessions.items() if session.name == user.name]
            for key in mine[: max(0, len(mine) - _PER_USER_MAX + 1)]:  # in the order in which they were opened
                del self._sessions[key]
            if len(self._sessions) >= SESSIONS_MAX:
                del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].used_s)]
            self._sessions[_key(token)] = _Session(
                name=user.name,
                password_hash=user.password_hash,
                form_token=secrets.token_urlsafe(32),
                opened_s=now,
                used_s=now,
            )
        return token

    def find(self, token: str, users: Mapping[str, User], *, background: bool = False) -> Principal | None:
        """Whose token it is, or None. `background`: asked by a page that updates itself, which keeps nobody signed in."""
        now = self._now_s()
        with self._lock:
            key = _key(token)
            session = self._sessions.get(key)
            if session is None:
                return None
            user = users.get(session.name)
            if self._ended(session, now) or user is None or user.password_hash != session.password_hash:
                del self._sessions[key]
                return None
            if not background:
                session.used_s = now
            return Principal(name=user.name, role=user.role, form_token=session.form_token)

    def close(self, token: str) -> None:
        """Signs out."""
        with self._lock:
            self._sessions.pop(_key(token), None)

    def _ended(self, session: _Session, now: float) -> bool:
        return now - session.used_s > self._idle_s or now - session.opened_s > self._age_max_s

    def _forget_ended(self, now: float) -> None:
        for key in [key for key, session in self._sessions.items() if self._ended(session, now)]:
            del self._sessions[key]


def _key(token: str) -> str:
    """Looked up by digest: how long that takes says nothing about how much of a guessed token is right."""
    return hashlib.sha256(token.encode()).hexdigest()
