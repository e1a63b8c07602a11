"""A result that a destination's SOP classes do not cover goes as the same document in another class, on a real association."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from router.core.instance import SopInstance
from router.core.lifecycle import TaskKind, TaskState
from router.core.retry import RetryPolicy
from router.core.rules import Plan
from router.deliver.step import DeliverStep
from router.ledger.store import SqlLedger
from router.report.sr import SrBuilder
from router.report.variant import variant
from router.spool.files import FileSpool
from router.spool.results import spooled
from tests.deliver.made import ScriptedScp, dicom_destination, scripted_scp
from tests.ledger.made import FakeClock
from tests.report.made import EXPLICIT_LITTLE, HEADER, instance_of, prediction, read


@dataclass(kw_only=True)
class Site:
    """A spool, a ledger and one SR that is owed to the destination."""

    spool: FileSpool
    ledger: SqlLedger
    clock: FakeClock
    report: SopInstance

    def deliver(self, scp: ScriptedScp) -> int:
        """Works until nothing is due; how many tasks that took."""
        destination = dicom_destination(scp.port)
        step = DeliverStep(
            name="pacs",
            destination=destination,
            ledger=self.ledger,
            spool=self.spool,
            clock=self.clock,
            policy=RetryPolicy(),
            variant=variant,
        )
        count = 0
        while tasks := self.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=8):
            count += len(tasks)
            step.run(tasks)
        destination.close()
        return count

    def trail(self) -> list[str]:
        return [line.what for line in self.ledger.queries.trace(self.report.sop_instance_uid)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    clock = FakeClock()
    spool, ledger = FileSpool(tmp_path / "spool"), SqlLedger(f"sqlite:///{tmp_path}/ledger.db", clock=clock)
    source = read(HEADER)
    result = SrBuilder().build(source, instance_of(source), prediction(labels=2))
    report = spooled(spool, result, at=clock.now(), destinations=("pacs",)).instance
    ledger.accept(report, Plan(rules=("made",), deliver=("pacs",)))
    yield Site(spool=spool, ledger=ledger, clock=clock, report=report)
    ledger.close()
    spool.close()


@pytest.mark.parametrize(
    ("taken", "task_count"), [(Comprehensive3DSRStorage, 1), (EnhancedSRStorage, 2), (ComprehensiveSRStorage, 3)]
)
def test_a_destination_gets_the_document_in_the_first_class_that_it_takes(
    taken: str, task_count: int, site: Site
) -> None:
    with scripted_scp(contexts=[(taken, EXPLICIT_LITTLE)]) as scp:
        assert site.deliver(scp) == task_count
        ((uid, data),) = scp.received.items()
    document = dcmread(BytesIO(data), force=True)
    original = dcmread(site.spool.path(site.report.spool_key))
    assert document.SOPClassUID == taken
    assert document.SOPInstanceUID == uid
    assert (uid == site.report.sop_instance_uid) == (taken == Comprehensive3DSRStorage)
    assert document.ContentSequence == original.ContentSequence
    expected = ["received", *["replaced", "made"] * (task_count - 1), "delivered"]
    assert site.trail() == expected
    status = site.ledger.queries.instance_status(uid)
    assert status is not None
    assert [task.state for task in status.deliveries] == [TaskState.DONE]


def test_a_refusal_of_the_class_by_status_is_answered_the_same_way(site: Site) -> None:
    contexts = [(Comprehensive3DSRStorage, EXPLICIT_LITTLE), (EnhancedSRStorage, EXPLICIT_LITTLE)]
    with scripted_scp(contexts=contexts) as scp:
        scp.statuses[site.report.sop_instance_uid] = 0x0122
        assert site.deliver(scp) == 2
        assert len(scp.received) == 1
    assert site.trail() == ["received", "replaced", "made", "delivered"]


def test_a_destination_without_any_sr_class_fails_once_and_says_which(site: Site) -> None:
    with scripted_scp() as scp:
        assert site.deliver(scp) == 3
        assert scp.received == {}
    assert site.trail() == ["received", "replaced", "made", "replaced", "made", "failed"]
    (failed,) = site.ledger.queries.failed()
    assert "Comprehensive SR Storage" in failed.error


def test_bytes_that_are_no_document_of_ours_fail_as_before(site: Site) -> None:
    path = site.spool.path(site.report.spool_key)
    path.chmod(0o600)
    data = path.read_bytes()
    path.write_bytes(data[:-2])
    with scripted_scp() as scp:
        assert site.deliver(scp) == 1
    assert site.trail()[-1] == "failed"
