"""Every way into the pages, and the one guard that all of them pass: who asks, may they, did this form come from our own page?"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from router.audit import events
from router.audit.message import AuditMessage
from router.observe.log import emit
from router.web.door import Door, Refused
from router.web.forms import BadForm, Form, form_of, is_large
from router.web.paper import Paper
from router.web.sessions import Principal
from router.web.users import Role


class Need(Enum):
    """Who may use a way."""

    OPEN = "everybody: nothing of patients, nothing of the node"
    PROBE = "everybody, or web.metrics_hosts: counts and names of the configuration"
    VIEWER = "whoever is signed in"
    OPERATOR = "whoever is signed in as an operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request that has passed the guard."""

    request: Request
    form: Mapping[str, list[str]]
    files: Mapping[str, bytes] = field(repr=False)
    """What was sent with the form, by field; in memory only."""
    address: str
    principal: Principal | None
    record: Callable[[AuditMessage], None]
    """Returns once it is in the audit trail. Raises NotRecorded: then nothing may be shown or done."""

    @property
    def person(self) -> events.Person:
        """Whoever asks, for the audit trail."""
        return events.Person(name=self.principal.name if self.principal else "unknown", address=self.address)

    def field(self, name: str) -> str:
        """One field of the form; empty when it is not there."""
        return self.form.get(name, [""])[0]

    def query(self, name: str) -> str:
        """One parameter of the address; empty when it is not there."""
        return str(self.request.query_params.get(name, ""))


class NotRecorded(Exception):
    """The audit trail cannot be written."""


class NotFound(Exception):
    """There is no such thing; the text is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One address of the pages."""

    path: str
    needs: Need
    answer: Callable[[Visit], Response] = field(repr=False)
    """Runs in a thread of its own."""
    method: str = "GET"
    background: bool = False
    """Asked for by pages that update themselves: keeps nobody signed in."""
    file_byte_count_max: int = 0
    """Of a file in its form; read only from whoever may use this way, one at a time."""


class Guard:
    """Makes routes of ways."""

    def __init__(self, *, door: Door, paper: Paper, node: events.Node, record: Callable[[AuditMessage], None]) -> None:
        self._door = door
        self._paper = paper
        self._node = node
        self._record_raw = record
        self._takes_file = False

    def route(self, way: Way) -> Route:
        """The only place where a route is made."""

        async def endpoint(request: Request) -> Response:
            if way.method != "POST":
                return await run_in_threadpool(self._answer, way, request, Form())
            if way.file_byte_count_max:
                return await self._with_file(way, request)
            return await self._with_form(way, request)

        return Route(way.path, endpoint, methods=[way.method], name=f"{way.method} {way.path}")

    async def _with_form(self, way: Way, request: Request) -> Response:
        try:
            form = await form_of(request, file_byte_count_max=way.file_byte_count_max)
        except BadForm as error:
            return self._paper.message(status=error.status, title="Not understood", text=str(error))
        return await run_in_threadpool(self._answer, way, request, form)

    async def _with_file(self, way: Way, request: Request) -> Response:
        """Nobody fills our memory who may not use this way; and of those who may, one at a time."""
        if not await run_in_threadpool(self._may, way, request):
            return await run_in_threadpool(self._answer, way, request, Form())
        if not is_large(request):
            return await self._with_form(way, request)
        if self._takes_file:
            text = "Somebody else sends a file at this moment. Please try again."
            return self._paper.message(status=503, title="Not now", text=text)
        self._takes_file = True
        try:
            return await self._with_form(way, request)
        finally:
            self._takes_file = False

    def _may(self, way: Way, request: Request) -> bool:
        try:
            principal = self._door.principal(request, background=way.background)
        except Refused:
            return False
        needed = Role.OPERATOR if way.needs is Need.OPERATOR else Role.VIEWER
        return from_our_site(request) and principal is not None and principal.role.includes(needed)

    def _answer(self, way: Way, request: Request, form: Form) -> Response:
        try:
            return self._guarded(way, request, form)
        except Refused as error:
            self._record_denied("unknown", request, str(error))
            return self._paper.message(status=403, title="Not for you", text=str(error))
        except NotFound as error:
            return self._paper.message(status=404, title="Not there", text=str(error))
        except NotRecorded:
            return self._paper.message(
                status=503,
                title="Not now",
                text="The audit trail cannot be written, so nothing of patients is shown and nothing is done from here. "
                "Images are received and delivered all the same. /health/ready says what is wrong.",
            )
        except Exception:  # noqa: BLE001 - whatever it is, the page must say so and the node go on
            emit("web.failed", level=logging.ERROR, exc_info=True, path=way.path)
            return self._paper.message(
                status=500, title="An error of this program", text="The log names it: event web.failed."
            )

    def _guarded(self, way: Way, request: Request, form: Form) -> Response:
        if way.needs is Need.PROBE and not self._door.may_probe(request):
            return self._paper.message(
                status=403, title="Not for you", text="web.metrics_hosts does not name your address."
            )
        principal = None
        if way.needs not in (Need.OPEN, Need.PROBE):
            principal = self._door.principal(request, background=way.background)
            if principal is None:
                return self._stranger(way, request)
            if way.needs is Need.OPERATOR and not principal.role.includes(Role.OPERATOR):
                self._record_denied(principal.name, request, "needs the role operator")
                return self._paper.message(
                    status=403, title="Not for you", text="This needs the role operator.", principal=principal
                )
            if way.method == "POST" and not _is_our_form(request, form.fields, principal):
                return self._paper.message(
                    status=403,
                    title="An old page",
                    text="This form did not come from a page that is still good. Go back, reload, and try again.",
                    principal=principal,
                )
        return way.answer(
            Visit(
                request=request,
                form=form.fields,
                files=form.files,
                address=self._door.address(request),
                principal=principal,
                record=self._record,
            )
        )

    def _stranger(self, way: Way, request: Request) -> Response:
        if way.background:
            return Response(status_code=401, headers={"HX-Redirect": "/sign-in"})
        if self._door.by_proxy:
            raise Refused("The reverse proxy did not say who you are.")
        if self._door.locked:
            return RedirectResponse("/welcome", status_code=303)
        if way.method == "POST":
            return self._paper.message(
                status=401, title="Signed out", text="You are not signed in any more: nothing was done."
            )
        return RedirectResponse(f"/sign-in?next={quote(request.url.path)}", status_code=303)

    def _record(self, message: AuditMessage) -> None:
        try:
            self._record_raw(message)
        except OSError as error:
            raise NotRecorded from error

    def _record_denied(self, name: str, request: Request, why: str) -> None:
        person = events.Person(name=name, address=self._door.address(request))
        try:
            self._record_raw(events.denied(self._node, person, path=request.url.path, why=why))
        except OSError:
            return  # refused all the same; the trail has told its trouble


def _is_our_form(request: Request, form: Mapping[str, list[str]], principal: Principal) -> bool:
    given = form.get("form_token", [""])[0]
    return from_our_site(request) and hmac.compare_digest(given.encode(), principal.form_token.encode())


def from_our_site(request: Request) -> bool:
    """False when the browser says that another site sent it. A browser that says nothing is judged by the form's token alone."""
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
