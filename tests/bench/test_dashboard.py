"""The dashboard's bench, small: that it asks for every page and that its ledger is one; not how long anything takes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.routing import Match, Route

from bench import dashboard, history
from bench.effort import Effort
from bench.goal import broken_promises
from bench.row import Row
from router.ledger.store import SqlLedger
from router.web.users import Role
from tests.web.site import Site

EFFORT = Effort(quick=True, rounds=1, minutes_max=1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Of a quick run on SQLite."""
    return list(dashboard.measured(EFFORT, tmp_path_factory.mktemp("bench"), ledgers=("SQLite",)))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, users={"otto": Role.OPERATOR})
    yield made
    made.close()


def test_every_page_is_asked_for_while_instances_arrive(rows: list[Row]) -> None:
    assert {row.who for row in rows if row.unit == dashboard.P95} == {*dashboard.PAGES, dashboard.SLOWEST}
    assert all(row.figure for row in rows), "something of everything"


def test_every_way_into_the_pages_is_measured(site: Site) -> None:
    """A new page is a line of `dashboard.PAGES`; what takes its time elsewhere than in the ledger stands here."""
    asked: list[str] = []
    visitor = SimpleNamespace(get=asked.append, search=lambda _: asked.append("/studies"))
    study = history.Study(1, "CR_ROOM1", 1)
    known = dashboard.Known(
        chests=[study], slices=[study], image_id=1, report_id=2, catalogue_count=200, luck=random.Random(1)
    )
    for ask in dashboard.PAGES.values():
        ask(visitor, known)  # type: ignore[arg-type]
    scopes = [{"type": "http", "method": "GET", "path": path.partition("?")[0]} for path in asked]
    ways = [route for route in site.app.routes if isinstance(route, Route) and "GET" in (route.methods or ())]
    missing = {way.path for way in ways if not any(way.matches(scope)[0] is Match.FULL for scope in scopes)}
    without_a_ledger = {"/static/{name}", "/welcome", "/sign-in", "/health/live"}
    decoding_and_computing = {f"/images/{{instance_id:int}}/{what}" for what in ("picture", "heat", "map")}
    assert missing == without_a_ledger | decoding_and_computing


def test_the_slowest_page_is_the_slowest(rows: list[Row]) -> None:
    p95 = {row.who: row.figure for row in rows if row.unit == dashboard.P95}
    assert p95.pop(dashboard.SLOWEST) == max(p95.values())


@pytest.mark.parametrize(("slowest_ms", "rate", "broken"), [(99, 50, 0), (101, 50, 1), (99, 40, 1)])
def test_a_page_that_is_too_slow_breaks_a_promise_and_so_do_images_that_wait(
    slowest_ms: float, rate: float, broken: int
) -> None:
    what = dashboard.what("SQLite", dashboard.INSTANCES)
    measured = [
        Row(group=dashboard.GROUP, what=what, who=dashboard.SLOWEST, unit=dashboard.P95, values=[slowest_ms]),
        Row(group=dashboard.GROUP, what=what, who=dashboard.MEANWHILE, unit=dashboard.ARRIVED, values=[rate]),
    ]
    assert len(broken_promises(measured)) == broken


def test_the_ledger_of_the_bench_is_one_that_the_node_could_have_written(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    history.fill(url, tmp_path / "spool", 7 * history.CYCLE)
    with closing(SqlLedger(url)) as ledger:
        assert sum(ledger.queries.instance_counts().values()) == 7 * history.CYCLE
        deliver = next(lane for lane in ledger.queries.lanes() if lane.kind == "deliver")
        assert set(deliver.counts) == {"done", "failed"}
        study = list(history.studies(history.CYCLE))[1]  # the first one conflicts
        image = ledger.queries.instance_status(study.image_uid)
        assert image is not None
        assert [result.instance.kind for result in image.results] == ["sr"]
        assert next(step.what for step in ledger.search.steps(study.first_id)) == "received"
