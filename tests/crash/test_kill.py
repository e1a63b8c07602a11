"""SIGKILL at every fault point and at random moments, while four associations of dcmsend send. `make crash`: 200 rounds and more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash import senders
from tests.crash.life import AT_RANDOM, AT_START, CLASSIFY_POINTS, FREE_POINTS, OTHER_POINTS, SIGTERM, Life
from tests.crash.recorder import Recorder
from tests.peers import StoreScp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.peer("dcmsend")]


def unreached(life: Life, *ends: str) -> list[str]:
    """One round for each; the fault points among them that did not end theirs."""
    return [end for end in ends if not life.round(end)]


def test_killed_at_every_step_of_receiving_and_delivering_a_node_loses_nothing(tmp_path: Path) -> None:
    with Recorder() as recorder:
        life = Life(tmp_path, recorder, chance=random.Random(1))
        assert unreached(life, *OTHER_POINTS, AT_RANDOM, SIGTERM) == []
        tally = life.finish()
    assert tally.acknowledged > 100
    assert tally.wrong == {}, tally.table()


def test_killed_at_every_step_of_classifying_a_node_makes_exactly_one_report_of_each_image(tmp_path: Path) -> None:
    with Recorder() as recorder:
        life = Life(tmp_path, recorder, chance=random.Random(2), classify=True, images_each=1)
        assert unreached(life, *CLASSIFY_POINTS) == []
        tally = life.finish()
    assert tally.reports >= tally.acknowledged >= 4
    assert tally.wrong == {}, tally.table()


@pytest.mark.peer("storescp")
def test_killed_while_it_starts_and_while_it_frees_bytes_a_node_loses_nothing_even_if_nobody_sends_again(
    tmp_path: Path, storescp: StoreScp
) -> None:
    life = Life(tmp_path / "life", storescp, chance=random.Random(3), free=True, send_again=False, sender=senders.own)
    life.round(AT_RANDOM)
    for end in FREE_POINTS:  # at the start after one that has delivered something
        assert unreached(life, end) == [] or unreached(life, end) == []
    life.round(AT_START)
    tally = life.finish()
    assert tally.acknowledged > 10
    assert tally.wrong == {}, tally.table()
