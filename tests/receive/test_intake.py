"""The same instance again, and digests by another algorithm: one file, one row, and Success only for what is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pydicom
import pytest
from blake3 import blake3
from pynetdicom.dsutils import encode

from router.core.admission import Limits
from router.core.digest import Algorithm
from router.core.instance import ROUTING_KEYWORDS, SopInstance
from router.core.lifecycle import TaskKind
from router.core.ports import Receipt
from router.core.rules import Plan
from router.dimse.store import Answer, PeerIdentity, StoreRequest
from router.ledger.store import SqlLedger
from router.receive.intake import Intake
from tests.receive.fakes import EVERYTHING, FixedClock, MemoryLedger, SmallSpool, spooled_files
from tests.samples import pydicom_file

ALGORITHMS: dict[Algorithm, Callable[[bytes], str]] = {
    "sha256": lambda data: hashlib.sha256(data).hexdigest(),
    "blake3": lambda data: f"blake3:{blake3(data).hexdigest()}",
}
EXPLICIT = "1.2.840.10008.1.2.1"
CT = pydicom.dcmread(pydicom_file("CT_small.dcm"))

change = pytest.mark.parametrize(("before", "now"), [("sha256", "blake3"), ("blake3", "sha256")])


def data_set(comment: str) -> bytes:
    """Of one SOP Instance UID, whatever the comment."""
    CT.ImageComments = comment
    data = encode(CT, is_implicit_vr=False, is_little_endian=True)
    assert data is not None
    return data


FIRST, OTHER = data_set("first"), data_set("other")


class Site:
    """A spool and a ledger, and nodes that are started on them one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "spool"
        self.spool = SmallSpool(self.folder)
        self.ledger = SqlLedger(f"sqlite:///{folder}/ledger.db")

    def receive(self, data: bytes, digest: Algorithm, ledger: MemoryLedger | SqlLedger | None = None) -> Answer:
        intake = Intake(
            spool=self.spool,
            ledger=ledger or self.ledger,  # type: ignore[arg-type]
            plan=lambda _: EVERYTHING,
            clock=FixedClock(),
            limits=Limits(dataset_byte_count_max=2**30, free_byte_count_min=0),
            keywords=ROUTING_KEYWORDS,
            digest=digest,
        )
        sink = intake.open(
            StoreRequest(
                sop_class_uid=CT.SOPClassUID,
                sop_instance_uid=CT.SOPInstanceUID,
                context_sop_class_uid=CT.SOPClassUID,
                transfer_syntax_uid=EXPLICIT,
                peer=PeerIdentity(calling_ae_title="CT", called_ae_title="ROUTER", host="192.0.2.1"),
            )
        )
        for start in range(0, len(data), 10_000):
            sink.write([memoryview(data)[start : start + 10_000]])
        return sink.finish()

    def close(self) -> None:
        self.ledger.close()
        self.spool.close()

    def owed(self) -> dict[str, bytes]:
        """Digest -> the data set in its file, of what is to be delivered."""
        tasks = self.ledger.claim(TaskKind.DELIVER, "archive", lease_s=60, limit=9)
        return {
            task.instance.digest: self.spool.path(task.instance.spool_key).read_bytes()[-task.instance.byte_count :]
            for task in tasks
        }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_comes_in_is_hashed_as_the_settings_say(site: Site, algorithm: Algorithm) -> None:
    assert site.receive(FIRST, algorithm).status == 0
    assert site.owed() == {ALGORITHMS[algorithm](FIRST): FIRST}


@change
def test_the_same_bytes_after_a_change_of_the_algorithm_leave_one_file(
    site: Site, before: Algorithm, now: Algorithm
) -> None:
    for algorithm in (before, now, now, before):
        assert site.receive(FIRST, algorithm).status == 0
    assert len(spooled_files(site.folder)) == 1
    assert site.owed() == {ALGORITHMS[before](FIRST): FIRST}
    whats = [line.what for line in site.ledger.queries.trace(CT.SOPInstanceUID)]
    assert whats == ["received", "duplicate", "duplicate", "duplicate"]


@change
def test_other_bytes_after_a_change_of_the_algorithm_are_kept_apart(
    site: Site, before: Algorithm, now: Algorithm
) -> None:
    for data in (FIRST, OTHER):
        for algorithm in (before, now):
            assert site.receive(data, algorithm).status == 0
    assert len(spooled_files(site.folder)) == 2
    assert site.owed() == {ALGORITHMS[before](FIRST): FIRST, ALGORITHMS[before](OTHER): OTHER}


class Forgetful(MemoryLedger):
    """Cannot decide, whatever it is offered."""

    def accept(self, instance: SopInstance, plan: Plan, *, also: Collection[str] | None = None) -> Receipt:
        return Receipt.UNDECIDED


def test_what_is_still_undecided_is_never_success_and_its_file_stays(site: Site) -> None:
    assert site.receive(FIRST, "blake3", Forgetful()).status == 0xA700
    assert len(spooled_files(site.folder)) == 1, "the janitor asks the ledger whether it is an orphan"


def test_a_file_that_cannot_be_read_again_is_no_success(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.receive(FIRST, "sha256")

    def gone(_: str) -> Path:
        raise OSError("the disk is gone")

    monkeypatch.setattr(site.spool, "path", gone)
    assert site.receive(FIRST, "blake3").status == 0xA700
    assert [line.what for line in site.ledger.queries.trace(CT.SOPInstanceUID)] == ["received"]
