"""The web application: every way into it, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.audit import events
from router.audit.message import AuditMessage
from router.ledger.search import Search
from router.ledger.store import SqlLedger
from router.observe import meters
from router.settings import Settings
from router.web.classifiers import ClassifierPage, Configured
from router.web.darkroom import Darkroom
from router.web.door import Door
from router.web.drifts import DriftWatch
from router.web.images import ImagePages
from router.web.maps import Maps
from router.web.metrics import StatusCollector
from router.web.notifications import NotificationPage
from router.web.paper import STATIC, Paper, WithHeaders, static_file
from router.web.rules import FILE_BYTE_COUNT_MAX, RulePages
from router.web.signing import SigningPages
from router.web.status import ReadStatus
from router.web.studies import StudyPages
from router.web.tasks import ConflictPage, FailedPages
from router.web.viewer import ViewerPages
from router.web.ways import Guard, Need, NotFound, Visit, Way


@dataclass(frozen=True, kw_only=True)
class House:
    """What the pages are made from."""

    read_status: ReadStatus
    """May raise: then the node is not ready, and says so."""
    door: Door
    node: events.Node
    ledger: SqlLedger
    classifiers: Sequence[Configured] = ()
    drifts: DriftWatch
    spool_path: Callable[[str], Path]
    """Where the bytes behind a spool key lie. Raises SpoolDamaged."""
    darkroom: Darkroom
    maps: Maps
    settings: Settings
    record: Callable[[AuditMessage], None]
    """Into the audit trail; returns once it is durable. Raises OSError."""


def ways(house: House, paper: Paper) -> Sequence[Way]:
    """Every address there is, and what it needs. `docs/operating/access.md` lists the same; a test compares."""
    signing = SigningPages(door=house.door, paper=paper, node=house.node, read_status=house.read_status)
    probes = Probes(house.read_status)
    search, node = house.ledger.search, house.node
    overview = Overview(house.read_status, search, paper)
    studies = StudyPages(search=search, paper=paper, node=node)
    queries, spool_path = house.ledger.queries, house.spool_path
    viewer = ViewerPages(
        queries=queries, spool_path=spool_path, darkroom=house.darkroom, maps=house.maps, paper=paper, node=node
    )
    images = ImagePages(search=search, queries=queries, spool_path=spool_path, viewer=viewer, paper=paper, node=node)
    failed = FailedPages(
        search=search, requeue=house.ledger.requeue, read_status=house.read_status, paper=paper, node=node
    )
    conflicts = ConflictPage(search=search, paper=paper)
    rules = RulePages(settings=house.settings, search=search, spool_path=house.spool_path, paper=paper, node=node)
    notifications = NotificationPage(notices=house.ledger.notices, paper=paper)
    classifiers = ClassifierPage(
        configured=house.classifiers, tallies=house.ledger.tallies, drifts=house.drifts, paper=paper
    )
    return (
        Way(path="/static/{name}", needs=Need.OPEN, answer=_static),
        Way(path="/welcome", needs=Need.OPEN, answer=signing.welcome),
        Way(path="/sign-in", needs=Need.OPEN, answer=signing.form),
        Way(path="/sign-in", needs=Need.OPEN, answer=signing.sign_in, method="POST"),
        Way(path="/health/live", needs=Need.PROBE, answer=probes.live),
        Way(path="/health/ready", needs=Need.PROBE, answer=probes.ready),
        Way(path="/metrics", needs=Need.PROBE, answer=probes.metrics),
        Way(path="/sign-out", needs=Need.VIEWER, answer=signing.sign_out, method="POST"),
        Way(path="/", needs=Need.VIEWER, answer=overview.page),
        Way(path="/now", needs=Need.VIEWER, answer=overview.piece, background=True),
        Way(path="/studies", needs=Need.VIEWER, answer=studies.list),
        Way(path="/studies", needs=Need.VIEWER, answer=studies.ask, method="POST"),
        Way(path="/studies/{uid}", needs=Need.VIEWER, answer=studies.study),
        Way(path="/images/{instance_id:int}", needs=Need.VIEWER, answer=images.image),
        Way(path="/images/{instance_id:int}/pixels", needs=Need.VIEWER, answer=viewer.pixels),
        Way(path="/images/{instance_id:int}/picture", needs=Need.VIEWER, answer=viewer.picture),
        Way(path="/images/{instance_id:int}/heat", needs=Need.VIEWER, answer=viewer.heat),
        Way(path="/images/{instance_id:int}/map", needs=Need.VIEWER, answer=viewer.map),
        Way(path="/reports/{instance_id:int}", needs=Need.VIEWER, answer=images.report),
        Way(path="/failed", needs=Need.VIEWER, answer=failed.list),
        Way(path="/failed/requeue", needs=Need.OPERATOR, answer=failed.requeue, method="POST"),
        Way(path="/conflicts", needs=Need.VIEWER, answer=conflicts.list),
        Way(path="/rules", needs=Need.VIEWER, answer=rules.page),
        Way(
            path="/rules/try",
            needs=Need.OPERATOR,
            answer=rules.try_them,
            method="POST",
            file_byte_count_max=FILE_BYTE_COUNT_MAX,
        ),
        Way(path="/notifications", needs=Need.VIEWER, answer=notifications.list),
        Way(path="/classifiers", needs=Need.VIEWER, answer=classifiers.page),
    )


def build_app(house: House) -> Starlette:
    """The ASGI application."""
    paper = Paper(ae_title=house.node.ae_title, sign_out=not house.door.by_proxy)
    guard = Guard(door=house.door, paper=paper, node=house.node, record=house.record)

    def wrong_address(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return paper.message(status=status, title="Not there", text="There is no such page.")

    return Starlette(
        routes=[guard.route(way) for way in ways(house, paper)],
        middleware=[Middleware(WithHeaders)],
        exception_handlers={HTTPException: wrong_address},
    )


class Overview:
    """`/`: what the node does now."""

    def __init__(self, read_status: ReadStatus, search: Search, paper: Paper) -> None:
        self._read_status = read_status
        self._search = search
        self._paper = paper

    def page(self, visit: Visit) -> Response:
        """The whole page."""
        return self._page("now.html", visit)

    def piece(self, visit: Visit) -> Response:
        """What of it changes. Nothing of patients: it comes again and again, and no audit message with it."""
        return self._page("now_piece.html", visit)

    def _page(self, name: str, visit: Visit) -> Response:
        return self._paper.page(
            name, principal=visit.principal, status_now=self._read_status(), newest=self._search.newest(), here="now"
        )


class Probes:
    """For supervisors and Prometheus."""

    def __init__(self, read_status: ReadStatus) -> None:
        self._read_status = read_status
        self._metrics = CollectorRegistry()
        self._metrics.register(StatusCollector(read_status))

    def live(self, visit: Visit) -> Response:
        """The process answers."""
        return JSONResponse({"live": True})

    def ready(self, visit: Visit) -> Response:
        """Whether it can take images and work on them, and why not."""
        try:
            status = self._read_status()
            problems, warnings, classifiers = list(status.problems), list(status.warnings), status.classifiers
        except Exception as error:  # noqa: BLE001 - whatever keeps the ledger from answering, the node is not ready
            told = f"the ledger does not answer ({type(error).__name__}): C-STORE is refused until it does"
            problems, warnings, classifiers = [told], [], {}
        body = {"ready": not problems, "problems": problems, "warnings": warnings, "classifiers": classifiers}
        return JSONResponse(body, status_code=503 if problems else 200)

    def metrics(self, visit: Visit) -> Response:
        """In the Prometheus text format."""
        return Response(
            generate_latest(meters.REGISTRY) + generate_latest(self._metrics), media_type=CONTENT_TYPE_LATEST
        )


def _static(visit: Visit) -> Response:
    name = str(visit.request.path_params["name"])
    if name not in STATIC:
        raise NotFound("There is no such file.")
    return static_file(name)
