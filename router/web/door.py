"""Who is it that asks? By session cookie, or by what a trusted reverse proxy says. Nothing here writes pages or audit messages."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from starlette.requests import Request

from router.errors import ConfigError
from router.settings import Network, TrustedProxySettings, WebSettings
from router.web.passwords import hash_password, verify
from router.web.sessions import Principal, Sessions
from router.web.throttle import ADDRESS, USER, Throttle
from router.web.users import Role, User, UserFile, normal_name

#: `__Host-`: the browser takes it only over HTTPS (or from this machine), for this host alone, and no other host can set it.
SESSION_COOKIE = "__Host-router-session"
FORM_COOKIE = "__Host-router-form"
#: Passwords looked at at once: each takes 32 MiB and a core. Whoever finds no place is asked to come again.
_LOOKS_MAX = 2
_WAITERS_MAX = 8
_LOOK_WAIT_S = 20.0
_PROXY_NAME_LENGTH_MAX = 128


class Refused(Exception):
    """The page is not for whoever asks; the text is for them."""


class NotSignedIn(Exception):
    """Name or password is wrong; or `wait_s` is more than 0: too many wrong guesses."""

    def __init__(self, reason: str, *, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """`token` is for the browser alone."""

    user: User
    token: str


class Door:
    """Access to the pages of one node."""

    def __init__(self, settings: WebSettings, *, sessions: Sessions | None = None) -> None:
        self._users = UserFile(settings.users_file)
        self._proxy = settings.trusted_proxy
        self._metrics_hosts = settings.metrics_hosts
        self._sessions = sessions or Sessions(idle_s=settings.session_idle_s, age_max_s=settings.session_age_max_s)
        self._user_guesses, self._address_guesses = Throttle(USER), Throttle(ADDRESS)
        self._looks = threading.BoundedSemaphore(_LOOKS_MAX)
        self._places = threading.BoundedSemaphore(_LOOKS_MAX + _WAITERS_MAX)
        self._secret = secrets.token_bytes(32)

    @property
    def by_proxy(self) -> bool:
        """Whether people sign in at the proxy and not here."""
        return self._proxy is not None and bool(self._proxy.user_header)

    @property
    def locked(self) -> bool:
        """Nobody can come in: there is no user yet and no proxy that knows any."""
        return not self.by_proxy and not self._known_users()

    def trouble(self) -> str:
        """Why the users cannot be read; empty when they can."""
        try:
            self._users.users()
        except ConfigError as error:
            return error.problems[0]
        return ""

    def address(self, request: Request) -> str:
        """The address that it comes from; behind a trusted proxy the one that the proxy saw."""
        peer = request.client.host if request.client else ""
        forwarded = request.headers.getlist("x-forwarded-for")
        if forwarded and self._proxy is not None and _within(peer, self._proxy.hosts):
            last = forwarded[-1].rsplit(",", 1)[-1].strip()  # what stands before it anybody could have written
            if _is_address(last):
                return last
        return peer

    def may_probe(self, request: Request) -> bool:
        """Whether metrics and health are for this address."""
        return not self._metrics_hosts or _within(self.address(request), self._metrics_hosts)

    def principal(self, request: Request, *, background: bool = False) -> Principal | None:
        """Who it is; None for nobody that is known. Raises Refused for whoever should have come through the proxy."""
        if self.by_proxy:
            assert self._proxy is not None
            return self._from_proxy(request, self._proxy)
        token = request.cookies.get(SESSION_COOKIE, "")
        return self._sessions.find(token, self._known_users(), background=background) if token else None

    def sign_in(self, name: str, password: str, *, address: str) -> SignedIn:
        """Raises NotSignedIn. Takes as long for a user that does not exist as for one that does."""
        if not self._places.acquire(blocking=False):  # whoever waits takes one of the threads that make pages
            raise NotSignedIn("too many sign in at this moment", wait_s=5)
        try:
            return self._sign_in(normal_name(name), password, address)
        finally:
            self._places.release()

    def _sign_in(self, name: str, password: str, address: str) -> SignedIn:
        if not self._looks.acquire(timeout=_LOOK_WAIT_S):
            raise NotSignedIn("too many sign in at this moment", wait_s=5)
        try:
            # Asked only now, so that a hundred guesses at the same moment do not all pass before the first has failed.
            if wait_s := max(self._user_guesses.wait_s(name), self._address_guesses.wait_s(address)):
                raise NotSignedIn("too many wrong guesses", wait_s=wait_s)
            user = self._known_users().get(name)
            try:
                right = verify(password, user.password_hash if user else _hash_of_nobody())
            except ValueError:
                right = False
            if user is None or not right:
                self._user_guesses.failed(name)
                self._address_guesses.failed(address)
                raise NotSignedIn("wrong password" if user else "no such user")
            self._user_guesses.succeeded(name)
        finally:
            self._looks.release()
        return SignedIn(user=user, token=self._sessions.open(user))

    def sign_out(self, request: Request) -> None:
        """Ends the session, wherever else its token may be."""
        self._sessions.close(request.cookies.get(SESSION_COOKIE, ""))

    def knows(self, name: str) -> bool:
        """Whether there is such a user."""
        return normal_name(name) in self._known_users()

    def _known_users(self) -> Mapping[str, User]:
        try:
            return self._users.users()
        except ConfigError:  # shown by `trouble`; nobody comes in by a file that cannot be trusted
            return {}

    def _from_proxy(self, request: Request, proxy: TrustedProxySettings) -> Principal | None:
        peer = request.client.host if request.client else ""
        if not _within(peer, proxy.hosts):
            raise Refused("These pages are open only through the reverse proxy (web.trusted_proxy).")
        names, roles = request.headers.getlist(proxy.user_header), request.headers.getlist(proxy.role_header)
        if not names:
            return None
        if len(names) > 1 or len(roles) != 1:
            raise Refused("The reverse proxy must send its user and its role header once each.")
        name = names[0].strip()
        if not name or len(name) > _PROXY_NAME_LENGTH_MAX or not name.isprintable():
            raise Refused("The reverse proxy sent no user name.")
        try:
            role = Role(roles[0].strip().lower())
        except ValueError:
            raise Refused("The reverse proxy gave you neither of the roles viewer and operator.") from None
        token = hmac.new(self._secret, f"{role}\0{name}".encode(), hashlib.sha256).hexdigest()
        return Principal(name=name, role=role, form_token=token)


@cache
def _hash_of_nobody() -> str:
    """What a password is compared with when there is no such user: that takes as long."""
    return hash_password(secrets.token_urlsafe(16))


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_access(settings: WebSettings) -> None:
    """Raises ConfigError when pages would be open to others without anybody to sign in, or the users cannot be read."""
    users = UserFile(settings.users_file).users()
    known_by_proxy = settings.trusted_proxy is not None and bool(settings.trusted_proxy.user_header)
    if not users and not known_by_proxy and not _is_this_machine(settings.host):
        raise ConfigError(
            [
                f"web.host: {settings.host} lets others reach the pages, and there is no user in {settings.users_file}:"
                " router user add NAME --role operator"
                ' (or web.host = "127.0.0.1", or web.trusted_proxy)'
            ]
        )


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
