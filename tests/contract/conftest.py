"""What the exams of tests/contract are run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from router.ledger.store import SqlLedger
from tests.conftest import missing
from tests.ledger import made
from tests.ledger.made import FakeClock
from tests.peers import ProgramMissing


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server; skipped (in CI failed) where there is neither one nor PGURL."""
    pytest.importorskip("psycopg")
    try:
        with made.postgres() as url:
            yield url
    except ProgramMissing as error:
        missing(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty ledger, on each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/var/ledger.db"
        return
    with made.database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(ledger_url: str, clock: FakeClock) -> Iterator[SqlLedger]:
    ledger = SqlLedger(ledger_url, clock=clock)
    yield ledger
    ledger.close()
