"""One image's appetite is its own trouble: memory of the classify child is bounded, and the next image gets its turn."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from router.classify.phantom import phantom_dicom
from router.offline import classify_files
from router.settings import parse
from tests.peers import wait_until
from tests.whole.router_process import RouterProcess, destination


def test_an_image_that_needs_more_memory_than_allowed_is_not_analysed_and_the_next_one_is(tmp_path: Path) -> None:
    large, small = tmp_path / "large.dcm", tmp_path / "small.dcm"
    phantom_dicom(1, rows=5000, columns=5000).save_as(large, enforce_file_format=True)
    phantom_dicom(2, rows=256, columns=256).save_as(small, enforce_file_format=True)

    def codes(memory: str) -> list[str]:
        settings = parse({"classifiers": {"cxr": {"type": "demo", "memory_byte_count_max": memory}}})
        rows = classify_files(settings, [large, small], classifier="cxr")
        return [row["not_analysed"]["code"] if "not_analysed" in row else "analysed" for row in rows]

    assert codes("8 GiB") == ["analysed", "analysed"]
    first, second = codes("64 MiB")
    assert first in ("too_large", "child_died")
    assert second == "analysed"


def test_sigterm_ends_a_node_whose_classifier_does_not_get_ready(tmp_path: Path, free_port: Callable[[], int]) -> None:
    node = RouterProcess(tmp_path / "node", destination("pacs", "PACS", free_port()))
    try:
        node.start(wait=False)
        [child] = wait_until(lambda: _children(node.pid), 60, what="the classify child is started")
        os.kill(child, signal.SIGSTOP)
        wait_until(lambda: node.health()[0], 60, what="the node receives without its classifier")
        assert node.stop(30) == 0
        wait_until(lambda: not Path(f"/proc/{child}").exists(), what="the child is gone with its node")
    finally:
        node.kill()


def _children(pid: int) -> list[int]:
    """Processes that any thread of a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]
