"""Dashboard, metrics and health. This first version shows counts and AE titles only: no patient data, no actions."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from router.web.metrics import StatusCollector
from router.web.status import ReadStatus

_TEMPLATES = Path(__file__).parent / "templates"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def build_app(read_status: ReadStatus) -> Starlette:
    """The ASGI application. `read_status` may raise: then the node is not ready, and says so."""
    templates = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=select_autoescape())
    metrics = CollectorRegistry()
    metrics.register(StatusCollector(read_status))

    def dashboard(request: Request) -> Response:
        page = templates.get_template("dashboard.html").render(status=read_status())
        return HTMLResponse(page, headers=_HEADERS)

    def live(request: Request) -> Response:
        return JSONResponse({"live": True}, headers=_HEADERS)

    def ready(request: Request) -> Response:
        try:
            status = read_status()
            problems, classifiers = list(status.problems), status.classifiers
        except Exception as error:  # noqa: BLE001 - whatever keeps the ledger from answering, the node is not ready
            problems, classifiers = [f"the ledger does not answer ({type(error).__name__})"], {}
        body = {"ready": not problems, "problems": problems, "classifiers": classifiers}
        return JSONResponse(body, status_code=503 if problems else 200, headers=_HEADERS)

    def exposition(request: Request) -> Response:
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/", dashboard),
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", exposition),
        ]
    )
