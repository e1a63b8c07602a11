"""Pages from templates, and the headers that every answer carries."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.datastructures import MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router import __version__
from router.web.sessions import Principal

_TEMPLATES = Path(__file__).parent / "templates"
_STATIC = Path(__file__).parent / "static"
#: Nothing from elsewhere, nothing inline, in nobody's frame.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_HTTPS_ONLY = "max-age=31536000"
#: File of static/ -> media type: nothing else is served.
STATIC = {
    "style.css": "text/css",
    "htmx-2.0.11.min.js": "text/javascript",
    "htmx-LICENSE.txt": "text/plain",
    "viewer.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Paper:
    """What every page has in common: the frame, who is signed in, how times are written."""

    def __init__(self, *, ae_title: str, sign_out: bool) -> None:
        """`sign_out`: whether people sign in and out here, and not at a reverse proxy."""
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=select_autoescape(),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {"ae_title": ae_title, "version": __version__, "sign_out": sign_out}
        self._templates.filters |= {"at": at_text, "second": second_text, "age": age_text, "words": words}

    def page(self, name: str, *, status: int = 200, principal: Principal | None = None, **values: Any) -> HTMLResponse:
        """A page or a piece of one."""
        text = self._templates.get_template(name).render(principal=principal, **values)
        return HTMLResponse(text, status_code=status)

    def message(self, *, status: int, title: str, text: str, principal: Principal | None = None) -> Response:
        """A page that says one thing."""
        return self.page("message.html", status=status, principal=principal, title=title, text=text)


class WithHeaders:
    """ASGI middleware: `HEADERS` on every answer, also on those that no page made."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope.get("scheme") == "https":
                    headers.setdefault("Strict-Transport-Security", _HTTPS_ONLY)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def static_file(name: str) -> Response:
    """One of `STATIC`. Raises KeyError for anything else."""
    return Response((_STATIC / name).read_bytes(), media_type=STATIC[name], headers={"Cache-Control": "max-age=3600"})


def at_text(moment: datetime | None) -> str:
    """Date and time where the node stands, to the millisecond: steps of one image lie that close together."""
    if moment is None:
        return ""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def second_text(moment: datetime | None) -> str:
    """The same to the second."""
    return at_text(moment)[:19]


def age_text(seconds: float | None) -> str:
    """A length of time in the two largest units."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {whole % 60} s"
    return f"{whole} s"


def words(name: str) -> str:
    """A code as people read it."""
    return name.replace("_", " ")
