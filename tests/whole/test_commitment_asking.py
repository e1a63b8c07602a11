"""A real node asks destinations to commit to what it sent them, Orthanc among them; bytes stay until they have."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from router.ledger.store import SqlLedger
from tests.peers import Orthanc, dcmsend, free_port, success_count, wait_until
from tests.whole.committers import (
    CT,
    DEADLINE_S,
    MR,
    PUSH,
    WELL_KNOWN,
    Archive,
    reference,
    tasks,
    trail,
)
from tests.whole.router_process import EVERYTHING_RULE, RouterProcess, destination

pytestmark = pytest.mark.peer("orthanc", "dcmtk")


@contextmanager
def archive(tmp_path: Path, *, node_settings: str = "", **options: Any) -> Iterator[tuple[RouterProcess, Orthanc]]:
    """A node that asks its Orthanc to commit, and that Orthanc, which knows where the node listens."""
    port = free_port()
    with Orthanc(folder=tmp_path / "orthanc", modalities={"router": ("ROUTER", port)}) as orthanc:
        options = {"commitment": True, "commitment_gather_s": 0.5} | options
        table = destination("pacs", orthanc.ae_title, orthanc.port, **options)
        spool = "retention_s = 0\n"
        node = RouterProcess(tmp_path / "node", table, node_settings, rules=(EVERYTHING_RULE,), port=port)
        node.config.write_text(node.config.read_text().replace("free_byte_count_min", f"{spool}free_byte_count_min"))
        with node:
            yield node, orthanc


def test_orthanc_commits_to_what_it_was_sent(tmp_path: Path) -> None:
    with archive(tmp_path) as (node, _):
        assert success_count(dcmsend(node.port, CT, MR)) == 2
        node.settle()
        for path in (CT, MR):
            assert tasks(node, path) == [("deliver", "done"), ("commit", "done")]
            assert [what for what in trail(node, path) if what in ("delivered", "committed")] == [
                "delivered",
                "committed",
            ]
        assert sum(event["committed"] for event in node.events("commitment.answered")) == 2


def test_only_a_destination_that_was_asked_may_come_unlisted_and_only_to_answer(tmp_path: Path) -> None:
    with archive(tmp_path, node_settings='\n[[peers]]\nae_title = "DCMSEND"\n') as (node, orthanc):
        dcmsend(node.port, CT)
        node.settle()
        assert tasks(node, CT) == [("deliver", "done"), ("commit", "done")]
        sneaked = dcmsend(node.port, MR, calling=orthanc.ae_title)
        assert success_count(sneaked) == 0, "it may answer, not send"


def test_what_orthanc_lost_before_it_committed_is_sent_again_and_then_committed(tmp_path: Path) -> None:
    with archive(tmp_path, commitment_gather_s=5) as (node, orthanc):
        dcmsend(node.port, CT, MR)
        wait_until(lambda: orthanc.instance_count() == 2, DEADLINE_S)
        wait_until(lambda: ("deliver", "done") in tasks(node, CT), DEADLINE_S)
        identifier = orthanc.lookup(reference(CT)[1])
        orthanc.request("DELETE", f"/instances/{identifier}")
        node.settle()
        assert reference(CT)[1] in orthanc.instances()
        assert tasks(node, CT) == [("deliver", "done"), ("commit", "done")] * 2
        assert [what for what in trail(node, CT) if "commit" in what or what == "delivered"] == [
            "delivered",
            "not_committed",
            "delivered",
            "committed",
        ]
        assert tasks(node, MR) == [("deliver", "done"), ("commit", "done")]


@contextmanager
def keeping_node(tmp_path: Path, archive_: Archive, **options: Any) -> Iterator[RouterProcess]:
    options = {"commitment": True, "commitment_gather_s": 0.2} | options
    table = destination("pacs", archive_.ae_title, archive_.port, **options)
    node = RouterProcess(tmp_path / "node", table, rules=(EVERYTHING_RULE,))
    node.config.write_text(
        node.config.read_text().replace("free_byte_count_min", "retention_s = 0\nfree_byte_count_min")
    )
    with node:
        yield node


def freed(node: RouterProcess) -> list[str]:
    """What the janitor would free now; it looks by itself every minute."""
    ledger = SqlLedger(node.ledger_url)
    try:
        return ledger.free(retention_s=0)
    finally:
        ledger.close()


def test_bytes_stay_until_the_destination_has_committed_and_go_then(tmp_path: Path) -> None:
    archive_ = Archive()
    with archive_.listening(), keeping_node(tmp_path, archive_) as node:
        dcmsend(node.port, CT)
        transaction_uid, references = archive_.asked.get(timeout=DEADLINE_S)
        assert references == [reference(CT)]
        wait_until(lambda: tasks(node, CT) == [("deliver", "done"), ("commit", "retry")], DEADLINE_S)
        assert freed(node) == []
        assert archive_.tell(node, archive_.report(transaction_uid, references)) == 0x0000
        assert tasks(node, CT) == [("deliver", "done"), ("commit", "done")]
        assert len(freed(node)) == 1
        assert archive_.tell(node, archive_.report(transaction_uid, references)) == 0x0000, "twice is no harm"


def test_an_answer_on_the_association_of_the_request_counts(tmp_path: Path) -> None:
    archive_ = Archive()
    statuses: queue.Queue[int] = queue.Queue()

    def report(assoc: Any, info: Dataset) -> None:
        status, _ = assoc.send_n_event_report(info, 1, PUSH, WELL_KNOWN)
        statuses.put(int(status.Status))

    archive_.same_association = report
    with archive_.listening(), keeping_node(tmp_path, archive_) as node:
        dcmsend(node.port, CT)
        assert statuses.get(timeout=DEADLINE_S) == 0x0000
        node.settle()
        assert tasks(node, CT) == [("deliver", "done"), ("commit", "done")]


def test_a_destination_that_does_not_answer_is_asked_again_and_its_late_answer_counts(tmp_path: Path) -> None:
    archive_ = Archive()
    with archive_.listening(), keeping_node(tmp_path, archive_, commitment_answer_s=1) as node:
        dcmsend(node.port, CT)
        first_uid, references = archive_.asked.get(timeout=DEADLINE_S)
        second_uid, again = archive_.asked.get(timeout=DEADLINE_S)
        assert (again, first_uid != second_uid) == (references, True)
        assert archive_.tell(node, archive_.report(first_uid, references)) == 0x0000
        assert tasks(node, CT) == [("deliver", "done"), ("commit", "done")]


def test_a_destination_that_never_keeps_it_is_sent_it_four_times_and_then_people_are_told(tmp_path: Path) -> None:
    archive_ = Archive()
    with archive_.listening(), keeping_node(tmp_path, archive_) as node:
        dcmsend(node.port, CT)
        for _ in range(4):
            uid, references = archive_.asked.get(timeout=DEADLINE_S)
            lost = [(*one, 0x0112) for one in references]
            assert archive_.tell(node, archive_.report(uid, [], lost)) == 0x0000
        wait_until(lambda: tasks(node, CT)[-1] == ("commit", "failed"), DEADLINE_S)
        assert archive_.stored == [reference(CT)[1]] * 4
        assert "no such object instance" in node.run("queue").stdout
        assert freed(node) == []
        assert node.run("requeue", "--failed").returncode == 0
        uid, references = archive_.asked.get(timeout=DEADLINE_S)
        assert archive_.tell(node, archive_.report(uid, references)) == 0x0000
        node.settle()


def test_a_destination_without_the_service_is_told_to_people_and_bytes_stay_until_it_is_switched_off(
    tmp_path: Path,
) -> None:
    archive_ = Archive()
    with archive_.listening(offers=False), keeping_node(tmp_path, archive_) as node:
        dcmsend(node.port, CT)
        wait_until(lambda: ("commit", "failed") in tasks(node, CT), DEADLINE_S)
        assert "does not offer Storage Commitment" in node.events("commitment.not_requested")[0]["reason"]
        assert freed(node) == []
        node.stop()
        node.config.write_text(node.config.read_text().replace("commitment = true", "commitment = false"))
        node.start()
        assert tasks(node, CT) == [("deliver", "done"), ("commit", "done")]


def test_a_report_on_something_we_never_asked_changes_nothing(tmp_path: Path) -> None:
    archive_ = Archive()
    with archive_.listening(), keeping_node(tmp_path, archive_) as node:
        dcmsend(node.port, CT)
        archive_.asked.get(timeout=DEADLINE_S)
        assert archive_.tell(node, archive_.report(generate_uid(), [reference(CT)])) == 0x0115
        assert ("commit", "done") not in tasks(node, CT)


def test_a_kill_between_delivery_and_answer_loses_nothing(tmp_path: Path) -> None:
    archive_ = Archive()
    with archive_.listening(), keeping_node(tmp_path, archive_) as node:
        dcmsend(node.port, CT)
        uid, references = archive_.asked.get(timeout=DEADLINE_S)
        node.kill()
        node.start()
        assert archive_.tell(node, archive_.report(uid, references)) == 0x0000
        node.settle()
        assert tasks(node, CT) == [("deliver", "done"), ("commit", "done")]
