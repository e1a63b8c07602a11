"""A file is fetched whole or not at all, and what came before the line broke off is not fetched again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from router.classify.fetch import fetch
from router.errors import WeightsUnavailable
from tests.classify.weights_server import Server

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def target(server: Server, tmp_path: Path) -> Path:
    server.files["w.pt"] = DATA
    return tmp_path / "w.pt"


def _starts(server: Server) -> list[int]:
    """Where each answer was asked to begin."""
    return [int(re.sub(r"\D", "", asked) or 0) for asked in server.ranges]


def test_fetched_bytes_are_those_of_the_server(server: Server, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    assert fetch(f"{server.url}/w.pt", target, progress=lambda *p: told.append(p)) == SHA256
    assert target.read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("known", [SHA256, ""], ids=["digest known", "digest unknown"])
def test_a_line_that_breaks_off_is_taken_up_where_it_ended(server: Server, target: Path, known: str) -> None:
    server.cuts = [300_000, 200_000]
    told: list[int] = []
    fetch(f"{server.url}/w.pt", target, sha256=known, progress=lambda done, _: told.append(done))
    assert target.read_bytes() == DATA
    first, second, third = _starts(server)
    assert 0 == first < second <= 300_000 < third <= 500_000
    assert told == sorted(told), "progress never goes back"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("known", [SHA256, ""], ids=["digest known", "digest unknown"])
def test_what_came_before_is_used_by_the_next_call(server: Server, target: Path, known: str) -> None:
    server.cuts = [300_000, 0]
    with pytest.raises(WeightsUnavailable, match=r"ended after \d+ of 1024000 bytes; what came is kept"):
        fetch(f"{server.url}/w.pt", target, sha256=known)
    assert not target.exists()
    kept = (target.parent / "w.pt.part").stat().st_size
    assert 0 < kept <= 300_000
    fetch(f"{server.url}/w.pt", target, sha256=known)
    assert target.read_bytes() == DATA
    assert _starts(server) == [0, kept, kept]


def test_without_digest_and_etag_nothing_is_resumed(server: Server, target: Path) -> None:
    server.gives_etags, server.cuts = False, [300_000]
    with pytest.raises(WeightsUnavailable):
        fetch(f"{server.url}/w.pt", target)
    fetch(f"{server.url}/w.pt", target)
    assert target.read_bytes() == DATA
    assert _starts(server) == [0, 0]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server: Server, target: Path) -> None:
    server.cuts = [300_000, 0]
    with pytest.raises(WeightsUnavailable):
        fetch(f"{server.url}/w.pt", target)
    server.files["w.pt"] = other = DATA[::-1]
    fetch(f"{server.url}/w.pt", target)
    assert target.read_bytes() == other


def test_a_shorter_file_than_before_is_fetched_from_its_start(server: Server, target: Path) -> None:
    server.cuts = [300_000, 0]
    with pytest.raises(WeightsUnavailable):
        fetch(f"{server.url}/w.pt", target, sha256=hashlib.sha256(b"short").hexdigest())
    server.files["w.pt"] = b"short"
    fetch(f"{server.url}/w.pt", target, sha256=hashlib.sha256(b"short").hexdigest())
    assert target.read_bytes() == b"short"


def test_what_came_from_another_address_is_not_used(server: Server, target: Path) -> None:
    server.cuts = [300_000, 0]
    with pytest.raises(WeightsUnavailable):
        fetch(f"{server.url}/w.pt", target)
    server.files["mirror/w.pt"] = DATA
    fetch(f"{server.url}/mirror/w.pt", target)
    assert _starts(server)[-1] == 0


@pytest.mark.parametrize("kind", ["understands_ranges", "misunderstands_ranges"])
def test_a_server_without_ranges_starts_again(server: Server, target: Path, kind: str) -> None:
    setattr(server, kind, kind != "understands_ranges")
    server.cuts = [300_000]
    fetch(f"{server.url}/w.pt", target, sha256=SHA256)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("understands_ranges", [True, False])
def test_half_of_another_file_is_not_resumed_into_this_one(
    server: Server, target: Path, understands_ranges: bool
) -> None:
    server.understands_ranges = understands_ranges
    (target.parent / "w.pt.part").write_bytes(b"of something else")
    fetch(f"{server.url}/w.pt", target, sha256=SHA256)
    assert target.read_bytes() == DATA


def test_a_part_that_is_whole_already_is_enough(server: Server, target: Path) -> None:
    (target.parent / "w.pt.part").write_bytes(DATA)
    fetch(f"{server.url}/w.pt", target, sha256=SHA256)
    assert target.read_bytes() == DATA
    assert _starts(server) == [len(DATA)]


def test_other_bytes_than_expected_are_refused_and_removed(server: Server, target: Path) -> None:
    target.write_bytes(b"what was there before")
    with pytest.raises(WeightsUnavailable, match="SHA-256"):
        fetch(f"{server.url}/w.pt", target, sha256="0" * 64)
    assert target.read_bytes() == b"what was there before"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("url", ["/missing.pt", "file:///etc/passwd", "http://127.0.0.1:9/w.pt"])
def test_a_server_that_does_not_have_it_is_told_in_words(server: Server, tmp_path: Path, url: str) -> None:
    with pytest.raises(WeightsUnavailable, match=re.escape(url.lstrip("/"))):
        fetch(server.url + url if url.startswith("/") else url, tmp_path / "w.pt")
