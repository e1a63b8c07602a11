"""Destinations that are slow, silent or away hold nobody else up, and get everything in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import senders
from tests.crash.images import make
from tests.crash.isolation import trio
from tests.crash.recorder import Recorder
from tests.peers import free_port, wait_until
from tests.whole.router_process import EVERYTHING_RULE, RouterProcess, destination

pytestmark = pytest.mark.peer("dcmsend")


def test_a_silent_and_a_slow_destination_do_not_keep_a_healthy_one_waiting(tmp_path: Path) -> None:
    images = make(tmp_path / "sent", 8)
    with trio(tmp_path) as found:
        assert [status for _, status in senders.dcmsend(found.node.port, images)] == [0] * 8
        wait_until(lambda: found.healthy.count() == 8, 60, "the healthy one has everything")
        assert found.slow.count() < 8, "it takes eight seconds: the healthy one did not wait for it"
        wait_until(found.silent.connection_count, what="the silent one was called")
        states = {task.target: task.state for s in found.node.statuses([images[-1].uid]) if s for task in s.tasks}
        assert states["healthy"] == "done"
        assert states["blackhole"] in ("ready", "leased", "retry"), "owed for ever, never given up"
        wait_until(lambda: found.slow.count() == 8, 90, "the slow one gets everything, too")
    expected = {image.uid: {image.sha256} for image in images}
    assert found.healthy.objects() == expected
    assert found.slow.objects() == expected
    assert found.healthy.again_count() == found.slow.again_count() == 0


def test_a_destination_that_is_away_for_the_whole_send_gets_everything_when_it_comes(tmp_path: Path) -> None:
    images = make(tmp_path / "sent", 30)
    port = free_port()
    table = destination("pacs", Recorder.ae_title, port, probe_cap_s=1)
    with RouterProcess(tmp_path / "node", table, rules=(EVERYTHING_RULE,), classifier="") as node:
        for batch in (images[:15], images[15:]):
            assert [status for _, status in senders.dcmsend(node.port, batch)] == [0] * 15
        wait_until(lambda: node.events("destination.down"), what="the node has noticed")
        with Recorder(port=port) as recorder:
            node.settle()
    assert recorder.objects() == {image.uid: {image.sha256} for image in images}
    assert recorder.again_count() == 0
    assert node.events("deliver.failed") == []
