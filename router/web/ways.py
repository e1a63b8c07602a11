"""Every way into the pages, and the one guard that all of them pass: who asks, may they, did this form come from our own page?"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from router.audit import events
from router.audit.message import AuditMessage
from router.observe.log import emit
from router.web.door import Door, Refused
from router.web.paper import Paper
from router.web.sessions import Principal
from router.web.users import Role

_FORM_BYTE_COUNT_MAX = 2**16
_FORM_TIMEOUT_S = 30.0
_FORM_TYPE = "application/x-www-form-urlencoded"


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


class Guard:
    """Makes routes of ways."""

    def __init__(self, *, door: Door, paper: Paper, node: events.Node, record: Callable[[AuditMessage], None]) -> None:
        self._door = door
        self._paper = paper
        self._node = node
        self._record_raw = record

    def route(self, way: Way) -> Route:
        """The only place where a route is made."""

        async def endpoint(request: Request) -> Response:
            form: Mapping[str, list[str]] = {}
            if way.method == "POST":
                try:
                    form = await _form_of(request)
                except _BadForm as error:
                    return self._paper.message(status=error.status, title="Not understood", text=str(error))
            return await run_in_threadpool(self._answer, way, request, form)

        return Route(way.path, endpoint, methods=[way.method], name=f"{way.method} {way.path}")

    def _answer(self, way: Way, request: Request, form: Mapping[str, list[str]]) -> Response:
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

    def _guarded(self, way: Way, request: Request, form: Mapping[str, list[str]]) -> Response:
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
            if way.method == "POST" and not _is_our_form(request, form, principal):
                return self._paper.message(
                    status=403,
                    title="An old page",
                    text="This form did not come from a page that is still good. Go back, reload, and try again.",
                    principal=principal,
                )
        return way.answer(
            Visit(
                request=request,
                form=form,
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


class _BadForm(Exception):
    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


async def _form_of(request: Request) -> Mapping[str, list[str]]:
    """Fields of a form; bounded in size and time."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != _FORM_TYPE:
        raise _BadForm("Only forms are taken here.", 415)
    body = bytearray()

    async def read() -> None:
        async for chunk in request.stream():
            body.extend(chunk)
            if len(body) > _FORM_BYTE_COUNT_MAX:
                raise _BadForm("The form is too large.", 413)

    try:
        await asyncio.wait_for(read(), _FORM_TIMEOUT_S)
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=2000)
    except TimeoutError:
        raise _BadForm("The form did not come.", 408) from None
    except ValueError:
        raise _BadForm("The form cannot be read.", 400) from None
    form: dict[str, list[str]] = {}
    for name, value in fields:
        form.setdefault(name, []).append(value)
    return form


def _is_our_form(request: Request, form: Mapping[str, list[str]], principal: Principal) -> bool:
    given = form.get("form_token", [""])[0]
    return from_our_site(request) and hmac.compare_digest(given.encode(), principal.form_token.encode())


def from_our_site(request: Request) -> bool:
    """False when the browser says that another site sent it. A browser that says nothing is judged by the form's token alone."""
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
