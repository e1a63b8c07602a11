"""`router selftest`: what it says is true, also when something does not hold."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from router.selftest.destination import LoopbackDestination, Mood
from router.selftest.run import run
from tests.peers import HOST, ROOT, wait_until


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_chaos_ends_with_a_table_in_which_everything_held() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "router", "selftest", "--chaos"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 did not" in done.stdout
    for word in ("SIGKILL", "SIGTERM", "aborts", "rejects", "0xA700", "three times", "full"):
        assert word in done.stdout


def test_an_altered_image_at_the_destination_is_told_and_the_exit_code_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals = LoopbackDestination.arrivals

    def altered(self: LoopbackDestination) -> dict[str, list[str]]:
        return {uid: ["0" * 64 for _ in digests] for uid, digests in arrivals(self).items()}

    monkeypatch.setattr(LoopbackDestination, "arrivals", altered)
    assert _run() == (1, "0 held, 1 did not, 0 not run")


def test_a_lost_image_is_told_and_the_exit_code_is_1(monkeypatch: pytest.MonkeyPatch) -> None:
    store = LoopbackDestination._store
    count = 0

    def forgetful(self: LoopbackDestination, event: Any) -> int:
        nonlocal count
        count += 1
        return store(self, event) if count > 1 else 0x0000

    monkeypatch.setattr(LoopbackDestination, "_store", forgetful)
    assert _run() == (1, "0 held, 1 did not, 0 not run")


def _run() -> tuple[int, str]:
    """Exit code and last line."""
    out = io.StringIO()
    code = run(chaos=False, console=Console(file=out, width=100))
    return code, out.getvalue().splitlines()[-1]


def test_a_destination_that_rejects_ends_what_was_open_too() -> None:
    """Or a node that keeps its association open would not notice."""
    from pynetdicom import AE

    destination = LoopbackDestination()
    destination.start()
    try:
        entity = AE(ae_title="NODE")
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.1")
        opened = entity.associate(HOST, destination.port)
        assert opened.is_established
        destination.behave(Mood.REJECTING)
        wait_until(lambda: opened.is_aborted, 30)  # by itself it ends after a minute
        assert entity.associate(HOST, destination.port).is_rejected
    finally:
        destination.stop()
