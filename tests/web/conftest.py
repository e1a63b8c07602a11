"""Pages of a node with a viewer and an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest

from router.web.users import Role
from tests.peers import ROOT
from tests.web.site import Site

BOTH = {"vera": Role.VIEWER, "otto": Role.OPERATOR}
ARTIFACTS = ROOT / "test-artifacts"
_AXE = Path(str(axe_playwright_python.__file__)).with_name("axe.min.js").read_text(encoding="utf-8")
_START_LIMIT_MS = 60_000


@pytest.fixture(scope="module")
def browser(tool: Callable[[str], Path]) -> Iterator[Any]:
    """Debian's Chromium, headless; one for each module, because it leaves its event loop with the thread."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(tool("chromium")), headless=True, args=arguments, timeout=_START_LIMIT_MS
        )
        yield chromium
        chromium.close()


def picture(page: Any, name: str) -> None:
    """Keeps what a browser shows, for people to look at."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def readable(page: Any, name: str) -> None:
    """The page fits the screen, and axe finds nothing wrong with it; a picture is kept."""
    picture(page, name)
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0, f"{name} is {wider} pixels wider than the screen"
    page.evaluate(_AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(name, one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """make_site(users={...}, **web settings)"""
    made: list[Site] = []

    def make(**more: Any) -> Site:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Site(folder, **{"users": BOTH, **more}))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()
