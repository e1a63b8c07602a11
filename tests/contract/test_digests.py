"""One instance, digests by two algorithms: the same bytes are known to be the same. On SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from router.core.digest import Algorithm, Hasher, others
from router.core.findings import NotAnalysed
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import TaskKind
from router.core.ports import Produced, Receipt, Task
from router.ledger.search import Criteria
from router.ledger.store import SqlLedger
from tests.ledger.made import FakeClock, instance, plan

UID = "1.2.3"
ONE, OTHER = b"one", b"other"

change = pytest.mark.parametrize(
    ("before", "now"), [("sha256", "blake3"), ("blake3", "sha256")], ids=["to_blake3", "to_sha256"]
)


def digest_of(data: bytes, algorithm: Algorithm) -> str:
    hasher = Hasher(algorithm)
    hasher.update(data)
    return hasher.text()


def made(data: bytes, algorithm: Algorithm) -> SopInstance:
    return instance(UID, data=data, digest=digest_of(data, algorithm))


def offer(ledger: SqlLedger, data: bytes, algorithm: Algorithm) -> tuple[Receipt, SopInstance]:
    """As the intake does: again with the other digests, when the ledger cannot decide without."""
    new = made(data, algorithm)
    receipt = ledger.accept(new, plan())
    if receipt is Receipt.UNDECIDED:
        receipt = ledger.accept(new, plan(), also=[digest_of(data, other) for other in others(new.digest)])
    return receipt, new


def whats(ledger: SqlLedger) -> list[str]:
    return [line.what for line in ledger.queries.trace(UID)]


def claim(ledger: SqlLedger) -> list[Task]:
    return ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9)


@change
def test_the_same_bytes_by_another_digest_are_undecided_and_nothing_is_written(
    ledger: SqlLedger, before: Algorithm, now: Algorithm
) -> None:
    ledger.accept(made(ONE, before), plan())
    assert ledger.accept(replace(made(ONE, now), study_instance_uid="7.7"), plan(deliver=("new",))) is Receipt.UNDECIDED
    assert whats(ledger) == ["received"]
    assert ledger.queries.conflict_count() == 0
    assert ledger.search.originals(uid="7.7", limit=9) == []
    assert ledger.claim(TaskKind.DELIVER, "new", lease_s=60, limit=9) == []


@change
def test_the_same_bytes_are_a_duplicate_and_others_a_conflict_whatever_the_algorithm(
    ledger: SqlLedger, before: Algorithm, now: Algorithm
) -> None:
    assert offer(ledger, ONE, before)[0] is Receipt.NEW
    assert offer(ledger, ONE, now)[0] is Receipt.DUPLICATE
    assert offer(ledger, OTHER, now)[0] is Receipt.CONFLICT
    for algorithm in (now, before):
        for data in (ONE, OTHER):
            assert offer(ledger, data, algorithm)[0] is Receipt.DUPLICATE
    assert offer(ledger, b"a third", before)[0] is Receipt.CONFLICT
    assert {task.instance.digest for task in claim(ledger)} == {
        digest_of(ONE, before),
        digest_of(OTHER, now),
        digest_of(b"a third", before),
    }


def test_a_study_of_which_something_was_undecided_is_found_once_it_has_an_instance(ledger: SqlLedger) -> None:
    ledger.accept(made(ONE, "sha256"), plan())
    elsewhere = {"study_instance_uid": "7.7", "calling_ae_title": "OTHER"}
    assert ledger.accept(replace(made(ONE, "blake3"), **elsewhere), plan()) is Receipt.UNDECIDED
    assert ledger.accept(instance("8.8", **elsewhere), plan()) is Receipt.NEW
    assert [row.study_instance_uid for row in ledger.search.studies(Criteria(uid="7.7"))] == ["7.7"]


def test_a_new_instance_and_one_of_the_same_algorithm_are_decided_at_once(ledger: SqlLedger) -> None:
    assert ledger.accept(made(ONE, "blake3"), plan()) is Receipt.NEW
    assert ledger.accept(made(ONE, "blake3"), plan()) is Receipt.DUPLICATE
    assert ledger.accept(made(OTHER, "blake3"), plan()) is Receipt.CONFLICT


@change
@pytest.mark.parametrize("how", ["freed", "missed", "failed"])
def test_bytes_that_were_gone_and_come_again_keep_the_digest_that_results_are_named_by(
    ledger: SqlLedger, clock: FakeClock, how: str, before: Algorithm, now: Algorithm
) -> None:
    _, first = offer(ledger, ONE, before)
    (task,) = claim(ledger)
    if how == "freed":
        ledger.complete(task)
        clock.forward(100)
        assert ledger.free(retention_s=1) == [first.spool_key]
    else:
        ledger.defer(task, error="its bytes are gone or damaged", at=None)
    if how == "missed":
        (held,) = ledger.queries.held()
        ledger.mark_missed([held.instance_id])
    receipt, again = offer(ledger, ONE, now)
    assert receipt is Receipt.NEW, "the caller must keep these bytes"
    (task,) = claim(ledger)
    assert (task.instance.spool_key, task.instance.digest) == (again.spool_key, first.digest)
    assert ledger.queries.missed() == []
    assert whats(ledger).count("received_again") == 1
    assert ledger.queries.conflict_count() == 0
    assert offer(ledger, ONE, now)[0] is Receipt.DUPLICATE


def test_many_that_share_a_transaction_are_decided_each_for_itself(ledger: SqlLedger) -> None:
    ledger.accept(made(ONE, "sha256"), plan())
    got: list[Receipt] = []

    def give(number: int) -> None:
        new = made(ONE, "blake3") if number % 2 else instance(f"1.9.{number}")
        got.append(ledger.accept(new, plan()))

    threads = [threading.Thread(target=give, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == [Receipt.NEW] * 8 + [Receipt.UNDECIDED] * 8
    assert len(claim(ledger)) + len(claim(ledger)) == 9


@change
def test_a_result_that_came_in_before_it_was_made_is_the_same_one(
    ledger: SqlLedger, before: Algorithm, now: Algorithm
) -> None:
    """An archive sends back what the router made; results are made the same again."""
    report = instance("9.9", kind=InstanceKind.SR, made_by_router=True, digest=digest_of(ONE, before))
    ledger.accept(report, plan(deliver=()))
    ledger.accept(made(b"image", now), plan(classify=("cxr",), deliver=()))
    (task,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=9)
    again = replace(report, digest=digest_of(ONE, now), spool_key="f" * 28)
    produced = Produced(instance=again, destinations=("pacs",), also=lambda: [digest_of(ONE, before)])
    ledger.complete(task, outcome=NotAnalysed(code="x", reason="y"), produced=[produced])
    assert ledger.queries.conflict_count() == 0
    (delivery,) = claim(ledger)
    assert delivery.instance.spool_key == report.spool_key
