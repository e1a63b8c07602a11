"""Pages of a node with a viewer and an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from router.web.users import Role
from tests.web.site import Site

BOTH = {"vera": Role.VIEWER, "otto": Role.OPERATOR}


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
