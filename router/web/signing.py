"""Signing in and out, and what stands there while nobody can."""

from __future__ import annotations

import hmac
import math
import secrets

from starlette.responses import RedirectResponse, Response

from router.audit import events
from router.web.door import FORM_COOKIE, SESSION_COOKIE, Door, NotSignedIn
from router.web.paper import Paper
from router.web.status import ReadStatus
from router.web.ways import Visit, from_our_site

_NAME_LENGTH_MAX = 64


class SigningPages:
    """`/sign-in`, `/sign-out`, `/welcome`."""

    def __init__(self, *, door: Door, paper: Paper, node: events.Node, read_status: ReadStatus) -> None:
        self._door = door
        self._paper = paper
        self._node = node
        self._read_status = read_status

    def welcome(self, visit: Visit) -> Response:
        """Counts, and how to make a user; only until there is one."""
        if not self._door.locked:
            return RedirectResponse("/", status_code=303)
        return self._paper.page("welcome.html", status_now=self._read_status(), trouble=self._door.trouble())

    def form(self, visit: Visit) -> Response:
        """The form. Its cookie and its hidden field must come back together."""
        if self._door.by_proxy:
            return RedirectResponse("/", status_code=303)
        if self._door.locked:
            return RedirectResponse("/welcome", status_code=303)
        return self._form(visit, to=_inside(visit.query("next")))

    def sign_in(self, visit: Visit) -> Response:
        """A new session, or the form again with the reason."""
        to = _inside(visit.field("next"))
        if self._door.by_proxy:
            return RedirectResponse("/", status_code=303)
        cookie = visit.request.cookies.get(FORM_COOKIE, "")
        if not cookie:
            text = (
                "Your browser did not keep the cookie of this form. Over plain HTTP browsers keep it only for pages of this"
                " machine: use HTTPS (web.certificate_file, or a reverse proxy)."
            )
            return self._form(visit, to=to, text=text, status=400)
        given = visit.field("form_token")
        if not (from_our_site(visit.request) and hmac.compare_digest(given.encode(), cookie.encode())):
            return self._form(visit, to=to, text="This form was too old. Please try again.", status=403)
        name = visit.field("name")
        try:
            signed_in = self._door.sign_in(name, visit.field("password"), address=visit.address)
        except NotSignedIn as error:
            # A password typed into the wrong field must not end in a file: only names that exist are written down.
            person = events.Person(
                name=name.strip().lower() if self._door.knows(name) else "unknown user", address=visit.address
            )
            visit.record(events.signed_in(self._node, person, refused=error.reason))
            if error.wait_s:
                wait_s = math.ceil(error.wait_s)
                text = f"Too many wrong guesses. Please wait {wait_s} s."
                return self._form(visit, to=to, text=text, status=429, headers={"Retry-After": str(wait_s)}, name=name)
            return self._form(visit, to=to, text="Name or password is wrong.", status=401, name=name)
        person = events.Person(name=signed_in.user.name, address=visit.address)
        visit.record(events.signed_in(self._node, person))
        response = RedirectResponse(to, status_code=303)
        response.set_cookie(SESSION_COOKIE, signed_in.token, secure=True, httponly=True, samesite="lax", path="/")
        response.delete_cookie(FORM_COOKIE, secure=True, httponly=True, samesite="strict", path="/")
        return response

    def sign_out(self, visit: Visit) -> Response:
        """Ends the session, then writes it down: a disk that is full keeps nobody signed in."""
        self._door.sign_out(visit.request)
        visit.record(events.signed_out(self._node, visit.person))
        response = RedirectResponse("/sign-in", status_code=303)
        response.delete_cookie(SESSION_COOKIE, secure=True, httponly=True, samesite="lax", path="/")
        return response

    def _form(
        self,
        visit: Visit,
        *,
        to: str,
        text: str = "",
        status: int = 200,
        headers: dict[str, str] | None = None,
        name: str = "",
    ) -> Response:
        token = visit.request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(32)
        response = self._paper.page(
            "sign_in.html", status=status, text=text, to=to, form_token=token, user_name=name[:_NAME_LENGTH_MAX]
        )
        response.headers.update(headers or {})
        response.set_cookie(FORM_COOKIE, token, secure=True, httponly=True, samesite="strict", path="/")
        return response


def _inside(path: str) -> str:
    """Where to go after signing in: a page of ours, never another site."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else "/"
