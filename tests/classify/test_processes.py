"""A classifier may have several processes: each has its own child and its own worker, and they share what is owed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.core.lifecycle import TaskKind
from router.errors import ConfigError
from router.node import Node, build_node
from router.settings import PROCESS_COUNT_MAX, parse
from tests.peers import wait_until


def _node(folder: Path, processes: object) -> Node:
    return build_node(
        parse(
            {
                "node": {"host": "127.0.0.1", "port": 0},
                "web": {"port": 0, "users_file": str(folder / "users.json")},
                "audit": {"folder": str(folder / "audit")},
                "spool": {"path": str(folder / "spool"), "free_byte_count_min": 0},
                "ledger": {"url": f"sqlite:///{folder / 'ledger.db'}"},
                "classifiers": {"demo": {"type": "demo", "processes": processes}},
            }
        )
    )


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = _node(tmp_path, 2)
    yield made
    made.stop()


def test_each_process_has_two_workers_of_its_own_on_the_one_lane(node: Node) -> None:
    lanes = [worker.lane for worker in node.workers if worker.lane.kind is TaskKind.CLASSIFY]
    assert [lane.target for lane in lanes] == ["demo"] * 4
    assert len({id(lane.step) for lane in lanes}) == 2
    assert len(node.analysts) == len({id(analyst) for analyst in node.analysts}) == 2


def test_each_process_is_one_of_its_own_and_lets_reception_go_first(node: Node) -> None:
    node.warm_up()
    wait_until(lambda: all(analyst.ready for analyst in node.analysts), 60, "both processes are ready")
    pids = [analyst._child.pid for analyst in node.analysts if analyst._child is not None]
    assert len(set(pids)) == 2
    assert [analyst.pid for analyst in node.analysts] == pids
    for analyst in node.analysts:
        assert analyst.loaded is not None
        assert (analyst.loaded.identity.name, analyst.loaded.trust) == ("demo", "ships with the router")
    for pid in pids:
        assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
        group = Path(f"/proc/{pid}/autogroup")
        if (
            group.exists()
        ):  # Linux may weigh whole sessions, and then the niceness of a process in another one says nothing
            assert group.read_text().split()[-1] == "5"


@pytest.mark.parametrize("wrong", [0, -1, PROCESS_COUNT_MAX + 1, 1.5, True, "many", []])
def test_a_number_of_processes_that_cannot_be_is_refused(wrong: object) -> None:
    with pytest.raises(
        ConfigError, match=r'classifiers\.demo\.processes: must be a whole number from 1 to 64, or "auto"'
    ):
        parse({"classifiers": {"demo": {"type": "demo", "processes": wrong}}})


def test_auto_starts_one_process_and_the_next_when_it_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert parse({"classifiers": {"demo": {"type": "demo"}}}).classifiers["demo"].processes == "auto"
    node = _node(tmp_path, "auto")
    try:
        assert [analyst.in_reserve for analyst in node.analysts] == [False, True, True]
        for worker in node.workers:
            if worker.lane.kind is TaskKind.CLASSIFY:
                worker.start()
        node.warm_up()
        wait_until(lambda: node.analysts[0].ready, 60, "the first process is ready")
        assert not node.analysts[1].ready
        node.analysts[0]._watcher(True)  # as with an image
        wait_until(lambda: node.analysts[1].ready, 60, "the second process is ready")
        assert not node.analysts[2].ready
    finally:
        for worker in node.workers:
            worker.stop()
        node.stop()
