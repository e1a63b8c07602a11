"""Loss of power: an ext4 file system forgets whatever was not flushed. Only this finds a missing fsync; SIGKILL does not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.disks import CannotMount, LoopDisk
from tests.crash.life import AT_RANDOM, Life
from tests.crash.recorder import Recorder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.peer("dcmsend")]


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[tuple[LoopDisk, LoopDisk]]:
    """One for the spool, one for the ledger: on a common one each commit of the ledger's would flush names of the spool's."""
    try:
        with LoopDisk(tmp_path / "spool-disk") as spool, LoopDisk(tmp_path / "ledger-disk") as ledger:
            yield spool, ledger
    except CannotMount as error:
        pytest.skip(f"no power can be cut here: {error}")


def test_what_was_acknowledged_before_a_loss_of_power_is_delivered_after_it(
    tmp_path: Path, disks: tuple[LoopDisk, LoopDisk]
) -> None:
    recorder = Recorder()  # away until the end: whatever is lost cannot have been delivered before
    life = Life(tmp_path / "life", recorder, chance=random.Random(4), spool_disk=disks[0], ledger_disk=disks[1])
    assert life.round("answer.sent", passing=3, associations=1)
    life.round(AT_RANDOM)
    assert life.round("answer.sent", passing=9)
    with recorder:
        tally = life.finish()
    assert tally.acknowledged > 20
    assert tally.wrong == {}, tally.table()
