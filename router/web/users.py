"""Who may look at pages, in one small file that `router user` writes and the node reads anew whenever it changes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from router.errors import ConfigError
from router.web.passwords import complaint, hash_password

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_VERSION = 1
#: Made by `make_first_user`.
FIRST_USER = "router"


class Role(StrEnum):
    """What somebody may do; an operator may do all that a viewer may."""

    VIEWER = "viewer"
    OPERATOR = "operator"

    def includes(self, other: Role) -> bool:
        """Whether this role may do what the other may."""
        return self is other or self is Role.OPERATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One line of the file."""

    name: str
    role: Role
    password_hash: str
    changed_at: str
    """When role or password changed last; ISO 8601, UTC."""


class UserFile:
    """The file; several processes may use it. A file that others may read is refused, as OpenSSH refuses such a key."""

    def __init__(self, path: Path, *, hash_it: Callable[[str], str] = hash_password) -> None:
        self.path = path
        self._hash_it = hash_it
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int, int] | None = None
        self._users: Mapping[str, User] = {}

    def users(self) -> Mapping[str, User]:
        """Name -> user; empty without a file. Raises ConfigError when the file cannot be used."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError([f"web.users_file: {self.path} cannot be read: {error.strerror}"]) from error
        key = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
        with self._lock:
            if key != self._seen:
                if stat.S_IMODE(found.st_mode) & 0o077:
                    raise ConfigError(
                        [
                            f"web.users_file: others may read {self.path}, which holds password hashes: chmod 600 {self.path}"
                        ]
                    )
                self._users, self._seen = self._read(), key
            return self._users

    def add(self, name: str, role: Role, password: str) -> None:
        """A new user. Raises ConfigError for a name that is taken, is no name, or a password that is none."""

        def change(users: dict[str, User]) -> None:
            if name in users:
                raise ConfigError([f"there is a user {name} already: router user passwd {name}, or remove it first"])
            users[name] = self._user(name, role, password)

        _checked(name)
        self._change(change)

    def set_password(self, name: str, password: str) -> None:
        """Raises ConfigError for nobody, or for a password that is none. Whoever is signed in as this user no longer is."""

        def change(users: dict[str, User]) -> None:
            users[name] = self._user(name, _known(users, name).role, password)

        self._change(change)

    def set_role(self, name: str, role: Role) -> None:
        """Raises ConfigError for nobody."""

        def change(users: dict[str, User]) -> None:
            old = _known(users, name)
            users[name] = User(name=name, role=role, password_hash=old.password_hash, changed_at=_now())

        self._change(change)

    def remove(self, name: str) -> None:
        """Raises ConfigError for nobody. Whoever is signed in as this user no longer is."""

        def change(users: dict[str, User]) -> None:
            del users[_known(users, name).name]

        self._change(change)

    def _user(self, name: str, role: Role, password: str) -> User:
        if wrong := complaint(password, user_name=name):
            raise ConfigError([wrong])
        return User(name=name, role=role, password_hash=self._hash_it(password), changed_at=_now())

    def _change(self, change: Callable[[dict[str, User]], None]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                users = dict(self.users())
                change(users)
                self._write(users)
        except OSError as error:
            raise ConfigError([f"web.users_file: {self.path} cannot be written: {error.strerror}"]) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two commands at once: one after the other."""
        fd = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _read(self) -> Mapping[str, User]:
        try:
            data: Any = json.loads(self.path.read_text(encoding="utf-8"))
            if data["version"] != _VERSION:
                raise ConfigError([f"web.users_file: {self.path} is of another version of this program"])
            users = [User(**{**entry, "role": Role(entry["role"])}) for entry in data["users"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                [f"web.users_file: {self.path} is damaged ({type(error).__name__}): restore a copy"]
            ) from error
        return {user.name: user for user in users}

    def _write(self, users: Mapping[str, User]) -> None:
        """Under a temporary name, synced, renamed: nobody ever reads half of it. Mode 0600 from the first byte on."""
        text = json.dumps({"version": _VERSION, "users": [asdict(users[name]) for name in sorted(users)]}, indent=1)
        fd, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")  # mkstemp: 0600
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).rename(self.path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def normal_name(name: str) -> str:
    """A name as it stands in the file: upper and lower case count the same."""
    return name.strip().lower()


def _checked(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            [f"{name!r} is no user name: a letter or digit, then letters, digits and . _ @ -, at most 64 in all"]
        )


def _known(users: Mapping[str, User], name: str) -> User:
    if name not in users:
        raise ConfigError([f"there is no user {name}; known: {', '.join(sorted(users)) or 'none'}"])
    return users[name]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def make_first_user(path: Path, password: str) -> None:
    """The operator `router`, when there is a password for them and no user yet: for containers, where nobody can type one.

    Raises ConfigError for a password that is none.
    """
    file = UserFile(path)
    if password and not file.users():
        try:
            file.add(FIRST_USER, Role.OPERATOR, password)
        except ConfigError as error:
            raise ConfigError([f"ROUTER_PASSWORD: {problem}" for problem in error.problems]) from error
