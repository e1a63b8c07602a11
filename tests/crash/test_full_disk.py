"""A full disk: refused with 0xA700 or delivered, nothing between, and it goes on when there is room again.

On a real file system that is really full. What happens at each single call that fails is tested in tests/spool and
tests/edge, without root.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import senders
from tests.crash.disks import CannotMount, SmallDisk
from tests.crash.images import Image, make
from tests.crash.recorder import Recorder
from tests.whole.router_process import EVERYTHING_RULE, RouterProcess, destination

pytestmark = pytest.mark.peer("dcmsend")

OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes, half of them taken by a file named ballast."""
    try:
        with SmallDisk(tmp_path / "small", mebibytes=4) as disk:
            (disk.path / "ballast").write_bytes(b"\1" * 2**21)
            yield disk.path
    except CannotMount as error:
        pytest.skip(f"no small disk here: {error}")


@pytest.mark.parametrize(
    ("free_byte_count_min", "ledger_too"),
    [("512 KiB", False), ("0 B", False), ("0 B", True)],
    ids=["some space is kept free", "until not a byte is left", "the ledger lies there as well"],
)
def test_every_instance_is_refused_with_0xa700_or_delivered_and_it_goes_on_when_there_is_room(
    tmp_path: Path, small_disk: Path, free_byte_count_min: str, ledger_too: bool
) -> None:
    images = make(tmp_path / "sent", 24, side=256)  # 3 MiB
    recorder = Recorder()
    node = RouterProcess(
        tmp_path / "node",
        destination("pacs", recorder.ae_title, recorder.port, probe_cap_s=1),
        rules=(EVERYTHING_RULE,),
        classifier="",
        spool=f'free_byte_count_min = "{free_byte_count_min}"',
        spool_folder=small_disk / "spool",
        ledger_folder=small_disk if ledger_too else None,
    )
    with node:
        answers = dict(senders.dcmsend(node.port, images))
        assert set(answers.values()) == {0, OUT_OF_RESOURCES}, "some fitted, the others were refused honestly"
        assert len(answers) == len(images), "each was answered: the association outlives a full disk"
        refused = [image for image in images if answers[image.uid] != 0]
        (small_disk / "ballast").unlink()
        again = dict(senders.dcmsend(node.port, refused[: len(refused) // 2]))
        assert set(again.values()) == {0}, "there is room again"
        with recorder:
            node.settle()
            acknowledged = [i for i in images if answers[i.uid] == 0 or again.get(i.uid) == 0]
            assert _arrived(recorder, acknowledged)
    assert set(recorder.objects()) <= {image.uid for image in images}
    assert recorder.again_count() == 0


def _arrived(recorder: Recorder, images: list[Image]) -> bool:
    objects = recorder.objects()
    return all(objects.get(image.uid) == {image.sha256} for image in images)
