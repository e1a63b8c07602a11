"""Fixtures for every test: real peers, free ports, sample files, and what happens when a peer is not installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from router.observe import log
from tests import peers
from tests import samples as sample_files


def missing(what: str) -> NoReturn:
    """Skips the test and says what is missing; in CI (CI=true), where everything must be there, fails it."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{what}; in CI that is a failure, not a skip", pytrace=False)
    pytest.skip(what)


#: Folders whose files take longest: with two processes a file that begins last lets one of them wait for the other.
_LONGEST = ("crash", "whole", "docs", "web")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; within them, and among the others, as it was."""
    ranks = {name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(_LONGEST)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """@pytest.mark.peer("orthanc", "storescu"): Debian packages or programs that the test starts."""
    for mark in item.iter_markers("peer"):
        for name in mark.args:
            for program in peers.PACKAGES.get(name, (name,)):
                try:
                    peers.program(program)
                except peers.ProgramMissing as error:
                    missing(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test or one of its helpers that starts a missing program counts as marked with it."""
    try:
        return (yield)
    except peers.ProgramMissing as error:
        missing(str(error))


@pytest.fixture(scope="session")
def tool() -> Callable[[str], Path]:
    """tool("dsrdump"): where the program lies, or a skip (in CI a failure) with its name."""

    def find(name: str) -> Path:
        try:
            return peers.program(name)
        except peers.ProgramMissing as error:
            missing(str(error))

    return find


@pytest.fixture
def free_port() -> Callable[[], int]:
    """free_port(): a port of 127.0.0.1 that nobody listens on."""
    return peers.free_port


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """wait_until(condition, deadline_s=15, what=""): its first true value, or AssertionError."""
    return peers.wait_until


@pytest.fixture
def orthanc(tmp_path: Path, tool: Callable[[str], Path]) -> Iterator[peers.Orthanc]:
    """An empty Orthanc of this test's own, running; its AE title is ORTHANC."""
    tool("Orthanc")
    with peers.Orthanc(folder=tmp_path / "orthanc") as peer:
        yield peer


@pytest.fixture
def storescp(tmp_path: Path, tool: Callable[[str], Path]) -> Iterator[peers.StoreScp]:
    """An empty storescp of this test's own, running; its AE title is STORESCP."""
    tool("storescp")
    tool("echoscu")
    with peers.StoreScp(folder=tmp_path / "storescp") as peer:
        yield peer


@pytest.fixture(scope="session")
def samples() -> Sequence[Path]:
    """Sample files that any Storage SCU can send, pairwise different SOP Instance UIDs."""
    return sample_files.storable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real radiographs beside the checkout; the test is skipped where there is none, in CI too."""
    folder = sample_files.shared_data()
    if folder is None:
        pytest.skip("no shared/data folder beside the checkout")
    return folder


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost and its key, in one PEM file."""
    folder = tmp_path_factory.mktemp("tls")
    done = peers.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, object]]]:
    """Name and fields of each event from now on, whether it is written or not."""
    events: list[tuple[str, Mapping[str, object]]] = []
    monkeypatch.setattr(log, "_WITNESSES", [*log._WITNESSES, lambda event, fields: events.append((event, fields))])
    return events
