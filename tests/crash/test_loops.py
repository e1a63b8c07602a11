"""Nodes that send everything back: nothing multiplies, and no report is made of a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash import senders
from tests.crash.images import Image, make
from tests.peers import Orthanc, free_port, wait_until
from tests.whole.router_process import CHEST_RULE, EVERYTHING_RULE, RouterProcess, destination

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.peer("dcmsend")]

FORWARD = """
function OnStoredInstance(instanceId, tags, metadata, origin)
    SendToModality(instanceId, 'router')
end
"""


def still(count: Callable[[], Any], deadline_s: float = 120) -> Any:
    """What `count` says once it has said the same for three seconds; a loop that goes on never gets there."""
    since, last = time.monotonic(), count()

    def unchanged() -> bool:
        nonlocal since, last
        now = count()
        if now != last:
            since, last = time.monotonic(), now
        return time.monotonic() - since > 3

    wait_until(unchanged, deadline_s, "counts stop growing")
    return last


def known_count(node: RouterProcess) -> int:
    """How many C-STOREs the node has answered."""
    return len(node.events("instance.received") + node.events("instance.duplicate") + node.events("instance.conflict"))


@pytest.mark.peer("orthanc")
@pytest.mark.parametrize("local_aet", ["ORTHANC", "SOMEBODY"], ids=["as itself", "under another AE title"])
def test_an_orthanc_that_sends_everything_back_to_the_router_ends_with_one_report_of_each_image(
    tmp_path: Path, local_aet: str
) -> None:
    images = make(tmp_path / "sent", 3)
    port = free_port()
    script = tmp_path / "forward.lua"
    script.write_text(FORWARD)
    router = {"AET": "ROUTER", "Host": "127.0.0.1", "Port": port, "LocalAet": local_aet}
    overrides = {"LuaScripts": [str(script)], "DicomModalities": {"router": router}}
    with (
        Orthanc(folder=tmp_path / "orthanc", overrides=overrides) as orthanc,
        RouterProcess(tmp_path / "node", destination("pacs", orthanc.ae_title, orthanc.port), port=port) as node,
    ):
        _send(node, images)
        wait_until(lambda: orthanc.instance_count() >= 6, 60, "images and reports are in the archive")
        wait_until(lambda: known_count(node) >= 9, 60, "and came back")
        jobs, _, instances = still(lambda: (len(orthanc.get("/jobs")), known_count(node), orthanc.instance_count()))
        assert jobs > 0, "it did send back"
        assert instances == 6
        modalities = [orthanc.get(f"/instances/{i}/simplified-tags")["Modality"] for i in orthanc.instances().values()]
        assert sorted(modalities) == ["CR"] * 3 + ["SR"] * 3
        node.settle()
        _one_report_each(node, images)


def test_two_routers_that_send_everything_to_each_other_come_to_rest(tmp_path: Path) -> None:
    class Second(RouterProcess):
        ae_title = "SECOND"

    images = make(tmp_path / "sent", 3)
    ports = free_port(), free_port()
    rule = (CHEST_RULE, EVERYTHING_RULE)
    # Each calls the other under a title that is not its own: the simple rule «not back to where it came from» cannot help.
    to_second = destination("pacs", "SECOND", ports[1], calling_ae_title="ALIAS1")
    to_first = destination("pacs", "ROUTER", ports[0], calling_ae_title="ALIAS2")
    with (
        RouterProcess(tmp_path / "first", to_second, rules=rule, port=ports[0]) as first,
        Second(tmp_path / "second", to_first, rules=rule, port=ports[1]) as second,
    ):
        _send(first, images)
        wait_until(lambda: second.events("classify.done") and first.events("classify.done"), 90, "both have classified")
        still(lambda: (known_count(first), known_count(second)), 150)
        for node in (first, second):
            node.settle()
            assert len(node.events("classify.done")) == 3, "each image once, and no report"
        assert known_count(first) + known_count(second) <= 30, "a few crossings, then silence"


def _send(node: RouterProcess, images: list[Image]) -> None:
    assert [status for _, status in senders.dcmsend(node.port, images)] == [0] * len(images)


def _one_report_each(node: RouterProcess, images: list[Image]) -> None:
    for status in node.statuses([image.uid for image in images]):
        assert status is not None
        assert len(status.results) == 1
        assert status.results[0].results == (), "no report of a report"
