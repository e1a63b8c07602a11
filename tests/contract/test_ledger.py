"""The exam of core.ports.Ledger, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from router.core.findings import ClassifierIdentity, Finding, NotAnalysed, Prediction
from router.core.instance import InstanceKind
from router.core.lifecycle import TaskKind, TaskState
from router.core.ports import Produced, Receipt, Task
from router.errors import LeaseLost
from router.ledger.store import SqlLedger
from tests.ledger.made import START, FakeClock, instance, plan

PREDICTION = Prediction(
    classifier=ClassifierIdentity(
        name="cxr", algorithm="a", version="1", manufacturer="m", weights_sha256="00", parameters={"resize": "1"}
    ),
    findings=(Finding(label="Effusion", score=0.75, raw=0.5),),
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def open_ledger(ledger_url: str, clock: FakeClock) -> Iterator[Callable[[], SqlLedger]]:
    """Opens the same ledger once more, as another process would."""
    opened: list[SqlLedger] = []

    def open_it() -> SqlLedger:
        opened.append(SqlLedger(ledger_url, clock=clock))
        return opened[-1]

    yield open_it
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: Callable[[], SqlLedger]) -> SqlLedger:
    return open_ledger()


def claim(ledger: SqlLedger, target: str = "pacs", *, kind: TaskKind = TaskKind.DELIVER, limit: int = 10) -> list[Task]:
    return ledger.claim(kind, target, lease_s=60, limit=limit)


def whats(ledger: SqlLedger, uid: str = "1.2.3") -> list[str]:
    return [line.what for line in ledger.queries.trace(uid)]


def test_what_was_accepted_is_owed_with_everything_that_is_known_of_it(ledger: SqlLedger) -> None:
    given = instance("1.2.3")
    assert ledger.accept(given, plan(classify=("cxr",), deliver=("pacs", "archive"))) is Receipt.NEW
    (task,) = claim(ledger)
    assert task.instance == given
    assert (task.kind, task.target, task.attempts) == (TaskKind.DELIVER, "pacs", 1)
    (task,) = claim(ledger, "cxr", kind=TaskKind.CLASSIFY)
    assert task.options == {"results": ["sr"], "results_to": ["pacs"]}
    assert len(claim(ledger, "archive")) == 1


def test_a_task_is_claimed_once(ledger: SqlLedger, open_ledger: Callable[[], SqlLedger]) -> None:
    ledger.accept(instance(), plan())
    assert len(claim(ledger)) == 1
    assert claim(ledger) == []
    assert claim(open_ledger()) == []


def test_the_oldest_is_claimed_first_and_no_more_than_asked_for(ledger: SqlLedger) -> None:
    for number in range(5):
        ledger.accept(instance(f"1.{number}"), plan())
    assert [t.instance.sop_instance_uid for t in claim(ledger, limit=2)] == ["1.0", "1.1"]
    assert [t.instance.sop_instance_uid for t in claim(ledger, limit=9)] == ["1.2", "1.3", "1.4"]


def test_parallel_claims_share_the_tasks_without_overlap(
    ledger: SqlLedger, open_ledger: Callable[[], SqlLedger]
) -> None:
    for number in range(60):
        ledger.accept(instance(f"1.{number}"), plan())
    got: list[str] = []

    def work(mine: SqlLedger) -> None:
        while tasks := claim(mine, limit=3):
            for task in tasks:
                got.append(task.instance.sop_instance_uid)
                mine.complete(task)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in (ledger, open_ledger(), open_ledger(), ledger)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == sorted(f"1.{n}" for n in range(60))


def test_the_same_bytes_again_owe_nothing_new(ledger: SqlLedger) -> None:
    assert ledger.accept(instance(), plan()) is Receipt.NEW
    assert ledger.accept(instance(), plan()) is Receipt.DUPLICATE
    assert len(claim(ledger)) == 1
    assert whats(ledger) == ["received", "duplicate"]


def test_the_same_uid_with_other_bytes_is_kept_apart_and_delivered(ledger: SqlLedger) -> None:
    ledger.accept(instance(data=b"one"), plan())
    assert ledger.accept(instance(data=b"two"), plan()) is Receipt.CONFLICT
    assert ledger.accept(instance(data=b"two"), plan()) is Receipt.DUPLICATE
    assert len({t.instance.digest for t in claim(ledger)}) == 2
    assert ledger.queries.conflict_count() == 1
    assert whats(ledger) == ["received", "conflict", "duplicate"]


def test_many_accept_the_same_instance_at_once_and_one_of_them_is_new(
    ledger: SqlLedger, open_ledger: Callable[[], SqlLedger]
) -> None:
    other = open_ledger()
    receipts: list[Receipt] = []
    threads = [
        threading.Thread(target=lambda mine=mine: receipts.append(mine.accept(instance("1.5"), plan())))
        for mine in (ledger, other) * 8
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(receipts) == [Receipt.DUPLICATE] * 15 + [Receipt.NEW]
    assert len(claim(ledger)) == 1


def test_a_completed_task_is_not_owed_any_more(ledger: SqlLedger) -> None:
    ledger.accept(instance(), plan())
    (task,) = claim(ledger)
    ledger.complete(task, note="it changed elements")
    assert claim(ledger) == []
    status = ledger.queries.instance_status("1.2.3")
    assert status is not None
    (delivery,) = status.deliveries
    assert (delivery.state, delivery.settled_at) == (TaskState.DONE, START)
    assert ledger.queries.trace("1.2.3")[-1].detail == "it changed elements"


def test_a_deferred_task_waits_for_its_time_and_counts_its_attempts(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance(), plan())
    (task,) = claim(ledger)
    ledger.defer(task, error="busy", at=clock.now() + timedelta(seconds=30))
    clock.forward(29)
    assert claim(ledger) == []
    clock.forward(1)
    (again,) = claim(ledger)
    assert again.attempts == 2


def test_the_same_error_again_is_one_line_of_the_trail(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance(), plan())
    for error in ("busy", "busy", "busy", "other"):
        (task,) = claim(ledger)
        ledger.defer(task, error=error, at=clock.now())
    assert whats(ledger) == ["received", "deferred", "deferred"]


def test_a_failed_task_is_parked_with_its_reason_until_an_operator_puts_it_back(ledger: SqlLedger) -> None:
    ledger.accept(instance(), plan())
    (task,) = claim(ledger)
    ledger.defer(task, error="it does not match its SOP class", at=None)
    assert claim(ledger) == []
    (failed,) = ledger.queries.failed()
    assert (failed.error, failed.target, failed.attempts) == ("it does not match its SOP class", "pacs", 1)
    assert ledger.queries.undelivered_count() == 1
    assert ledger.requeue(target="archive") == 0
    assert ledger.requeue(target="pacs") == 1
    (again,) = claim(ledger)
    assert again.attempts == 1
    assert whats(ledger) == ["received", "failed", "requeued"]


def test_requeue_by_id_also_brings_forward_what_waits(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance(), plan())
    (task,) = claim(ledger)
    ledger.defer(task, error="busy", at=clock.now() + timedelta(hours=1))
    assert ledger.requeue() == 0, "without ids only what failed"
    assert ledger.requeue([task.task_id]) == 1
    assert len(claim(ledger)) == 1


def test_a_released_task_was_not_tried(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance(), plan())
    for _ in range(20):
        (task,) = claim(ledger)
        assert task.attempts == 1
        ledger.release(task, at=clock.now() + timedelta(seconds=5), reason="the destination is down")
        assert claim(ledger) == []
        clock.forward(5)
    assert whats(ledger) == ["received"], "a weekend of probing does not fill the trail"
    (lane,) = ledger.queries.lanes()
    assert lane.last_error == "the destination is down"


def test_a_lease_that_ends_makes_the_task_due_again_and_counts(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance(), plan())
    claim(ledger)
    clock.forward(59)
    assert claim(ledger) == []
    clock.forward(1)
    (again,) = claim(ledger)
    assert again.attempts == 2
    assert whats(ledger) == ["received", "lease_lost"]


@pytest.mark.parametrize("end", ["complete", "defer", "give up", "release"])
def test_a_late_worker_changes_nothing(ledger: SqlLedger, clock: FakeClock, end: str) -> None:
    ledger.accept(instance(), plan(classify=("cxr",), deliver=()))
    (late,) = claim(ledger, "cxr", kind=TaskKind.CLASSIFY)
    clock.forward(61)
    (current,) = claim(ledger, "cxr", kind=TaskKind.CLASSIFY)
    before = (ledger.queries.instance_status("1.2.3"), ledger.queries.trace("1.2.3"))
    with pytest.raises(LeaseLost):
        match end:
            case "complete":
                made = Produced(instance=instance("1.2.9", kind=InstanceKind.SR), destinations=("pacs",))
                ledger.complete(late, outcome=PREDICTION, produced=(made,))
            case "defer":
                ledger.defer(late, error="x", at=clock.now())
            case "give up":
                ledger.defer(late, error="x", at=None)
            case "release":
                ledger.release(late, at=clock.now(), reason="x")
    ledger.renew([late], lease_s=1)
    assert (ledger.queries.instance_status("1.2.3"), ledger.queries.trace("1.2.3")) == before
    ledger.complete(current, outcome=PREDICTION)


def test_deliveries_that_are_settled_together_stand_each_for_itself(ledger: SqlLedger, clock: FakeClock) -> None:
    for number in range(4):
        ledger.accept(instance(f"1.{number}"), plan())
    first, second, third, fourth = claim(ledger)
    ledger.defer(second, error="no", at=None)
    ledger.defer(third, error="no", at=clock.now())
    (third_again,) = claim(ledger)
    done = [(first, "it changed elements"), (second, ""), (third, ""), (fourth, "")]
    assert ledger.delivered(done, commit=True) == [second, third]
    assert whats(ledger, "1.0") == whats(ledger, "1.3") == ["received", "delivered"]
    assert whats(ledger, "1.1") == ["received", "failed"]
    assert ledger.queries.trace("1.0")[-1].detail == "it changed elements"
    owed = {(task.kind, task.sop_instance_uid) for task in ledger.queries.owed()}
    assert owed == {(TaskKind.COMMIT, "1.0"), (TaskKind.COMMIT, "1.3"), (TaskKind.DELIVER, "1.2")}
    assert ledger.delivered([(third_again, "")]) == []
    assert ledger.delivered(done) == [first, second, third, fourth], "once"


def test_a_worker_from_before_a_requeue_cannot_settle_the_new_attempt(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance(), plan())
    (late,) = claim(ledger)
    clock.forward(61)
    (second,) = claim(ledger)
    ledger.defer(second, error="no", at=None)
    ledger.requeue()
    (third,) = claim(ledger)
    assert third.attempts == late.attempts, "the case is about equal numbers"
    with pytest.raises(LeaseLost):
        ledger.complete(late)


def test_a_renewed_lease_ends_later(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance(), plan())
    (task,) = claim(ledger)
    clock.forward(50)
    ledger.renew([task], lease_s=60)
    clock.forward(50)
    assert claim(ledger) == []
    ledger.complete(task)


def test_a_settled_task_cannot_be_settled_again(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance(), plan())
    (task,) = claim(ledger)
    ledger.complete(task)
    with pytest.raises(LeaseLost):
        ledger.complete(task)
    with pytest.raises(LeaseLost):
        ledger.defer(task, error="x", at=clock.now())


def test_results_come_in_with_their_deliveries_and_the_outcome(ledger: SqlLedger) -> None:
    ledger.accept(instance(), plan(classify=("cxr",), deliver=()))
    (task,) = claim(ledger, "cxr", kind=TaskKind.CLASSIFY)
    report = instance("1.2.9", kind=InstanceKind.SR)
    ledger.complete(task, outcome=PREDICTION, produced=(Produced(instance=report, destinations=("pacs", "archive")),))
    (delivery,) = claim(ledger)
    assert delivery.instance == report
    ledger.complete(delivery)
    status = ledger.queries.instance_status("1.2.3")
    assert status is not None
    assert status.outcomes == {"cxr": PREDICTION}
    (result,) = status.results
    assert result.instance == report
    assert [(d.target, d.state) for d in result.deliveries] == [
        ("pacs", TaskState.DONE),
        ("archive", TaskState.READY),
    ]
    expected = ["received", "analysed", "made", "delivered"]
    assert whats(ledger) == expected
    assert whats(ledger, "1.2.9") == expected, "asked by the result's UID"
    assert whats(ledger, "1.2") == expected, "asked by the study's UID"


def test_a_result_that_is_there_already_is_not_doubled(ledger: SqlLedger) -> None:
    ledger.accept(instance(), plan(classify=("cxr", "other"), deliver=()))
    for name in ("cxr", "other"):
        (task,) = claim(ledger, name, kind=TaskKind.CLASSIFY)
        made = Produced(instance=instance("1.2.9", kind=InstanceKind.SR), destinations=("pacs",))
        ledger.complete(task, outcome=PREDICTION, produced=(made,))
    assert len(claim(ledger)) == 1
    assert ledger.queries.instance_counts() == {InstanceKind.ORIGINAL: 1, InstanceKind.SR: 1}


def test_what_a_classifier_made_of_an_image_before_is_known_newest_first(ledger: SqlLedger) -> None:
    ledger.accept(instance(), plan(classify=("cxr", "other"), deliver=("pacs",)))
    ledger.accept(instance(data=b"the same UID, other bytes"), plan(classify=("cxr",), deliver=()))
    (task, another) = claim(ledger, "cxr", kind=TaskKind.CLASSIFY)
    (other,) = claim(ledger, "other", kind=TaskKind.CLASSIFY)
    made = [instance(uid, kind=InstanceKind.SR) for uid in ("1.2.7", "1.2.8")]
    heatmap = instance("1.2.6", kind=InstanceKind.HEATMAP)
    assert ledger.made_before(task) == []
    ledger.complete(task, produced=[Produced(instance=one, destinations=()) for one in (*made, heatmap)])
    assert ledger.made_before(task) == [made[1], made[0]]
    assert ledger.made_before(other) == []
    assert ledger.made_before(another) == []


def test_a_delivery_can_be_replaced_by_another_one_for_each_destination(ledger: SqlLedger) -> None:
    ledger.accept(instance(), plan(deliver=("pacs", "archive")))
    instead = Produced(instance=instance("1.2.9", kind=InstanceKind.SR), destinations=("pacs",))
    (task,) = claim(ledger)
    ledger.complete(task, note="does not take it", produced=(instead,))
    assert whats(ledger) == ["received", "replaced", "made"]
    (task,) = claim(ledger)
    assert task.instance == instead.instance
    (other,) = claim(ledger, "archive")
    again = Produced(instance=replace(instead.instance, spool_key="f" * 28), destinations=("archive",))
    ledger.complete(other, note="does not take it either", produced=(again,))
    (task,) = claim(ledger, "archive")
    assert task.instance == instead.instance
    status = ledger.queries.instance_status("1.2.3")
    assert status is not None
    assert [result.instance.sop_instance_uid for result in status.results] == ["1.2.9"]


def test_a_not_analysed_image_says_why(ledger: SqlLedger) -> None:
    ledger.accept(instance(), plan(classify=("cxr",), deliver=()))
    (task,) = claim(ledger, "cxr", kind=TaskKind.CLASSIFY)
    reason = NotAnalysed(code="lateral", reason="a lateral view")
    ledger.complete(task, outcome=reason)
    status = ledger.queries.instance_status("1.2.3")
    assert status is not None
    assert status.outcomes == {"cxr": reason}
    assert ledger.queries.outcome_counts() == {"lateral": 1}
    assert ledger.queries.trace("1.2.3")[-1].detail == "lateral: a lateral view"


def test_a_bad_receipt_writes_nothing(ledger: SqlLedger) -> None:
    bad = plan(deliver=("pacs", None))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="target"):
        ledger.accept(instance(), bad)
    assert ledger.queries.trace("1.2.3") == []
    assert claim(ledger) == []
    assert ledger.accept(instance(), plan()) is Receipt.NEW


def test_a_bad_item_fails_alone_in_a_group_commit(ledger: SqlLedger, open_ledger: Callable[[], SqlLedger]) -> None:
    """One writer is held up while nine wait: they share the next transaction."""
    held, go = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        held.set()
        assert go.wait(30)

    holder = threading.Thread(target=lambda: ledger._writer.do(hold))
    holder.start()
    assert held.wait(30)
    receipts: dict[int, Receipt | str] = {}

    def accept(number: int) -> None:
        wrong = plan(deliver=("pacs", None))  # type: ignore[arg-type]
        try:
            receipts[number] = ledger.accept(instance(f"1.{number}"), wrong if number == 4 else plan())
        except Exception as error:  # noqa: BLE001 - what it was is the result
            receipts[number] = type(error).__name__

    threads = [threading.Thread(target=accept, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    while len(ledger._writer._waiting) < 9:
        threading.Event().wait(0.001)
    go.set()
    for thread in (holder, *threads):
        thread.join(30)
    bad = receipts.pop(4)
    assert bad in ("IntegrityError", "NotNullViolation"), "as the driver calls it"
    assert receipts == dict.fromkeys((0, 1, 2, 3, 5, 6, 7, 8), Receipt.NEW)
    assert len({t.instance.sop_instance_uid for t in claim(open_ledger(), limit=99)}) == 8


def test_nobody_hears_of_success_when_the_commit_fails(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy import event

    def no_commit(_: object) -> None:
        raise OSError("no space left on the device")

    event.listen(ledger._engines.write, "commit", no_commit)
    with pytest.raises(OSError, match="no space"):
        ledger.accept(instance(), plan())
    event.remove(ledger._engines.write, "commit", no_commit)
    assert ledger.queries.trace("1.2.3") == []
    assert ledger.accept(instance(), plan()) is Receipt.NEW


def test_what_a_crashed_process_held_is_done_by_the_next_one(
    ledger: SqlLedger, open_ledger: Callable[[], SqlLedger], clock: FakeClock
) -> None:
    """Crash between the peer's Success and the commit: sent again, settled once."""
    ledger.accept(instance(), plan())
    (lost,) = claim(ledger)
    clock.forward(60)
    successor = open_ledger()
    (again,) = claim(successor)
    assert again.instance == lost.instance
    successor.complete(again)
    with pytest.raises(LeaseLost):
        ledger.complete(lost)
    assert whats(successor).count("delivered") == 1


def test_the_only_node_need_not_wait_for_the_leases_of_its_former_life(
    ledger: SqlLedger, open_ledger: Callable[[], SqlLedger]
) -> None:
    ledger.accept(instance(), plan())
    claim(ledger)
    successor = open_ledger()
    assert successor.end_all_leases() == 1
    assert len(claim(successor)) == 1


def test_a_wait_ends_when_work_comes(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.ledger.wake.LOOK_S", 3600)  # by the signal of this process, not by looking at the file
    waiting = threading.Thread(target=ledger.wait, args=(TaskKind.DELIVER, "pacs"), kwargs={"timeout_s": 60})
    waiting.start()
    ledger.accept(instance(), plan())
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_wait_ends_when_another_process_brings_work(ledger: SqlLedger, open_ledger: Callable[[], SqlLedger]) -> None:
    waiting = threading.Thread(target=ledger.wait, args=(TaskKind.DELIVER, "pacs"), kwargs={"timeout_s": 60})
    waiting.start()
    open_ledger().accept(instance(), plan())
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_wait_ends_at_once_when_something_is_due(ledger: SqlLedger) -> None:
    ledger.accept(instance(), plan())
    waiting = threading.Thread(target=ledger.wait, args=(TaskKind.DELIVER, "pacs"), kwargs={"timeout_s": 60})
    waiting.start()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_wait_sleeps_until_a_retry_or_a_lease_is_due(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance("1.1"), plan())
    (task,) = claim(ledger)
    lane = (TaskKind.DELIVER, "pacs")
    assert ledger._due_in_s(lane) == 60
    ledger.defer(task, error="busy", at=clock.now() + timedelta(seconds=7))
    assert ledger._due_in_s(lane) == 7
    clock.forward(8)
    assert ledger._due_in_s(lane) == -1
    assert ledger._due_in_s((TaskKind.DELIVER, "other")) is None


def test_a_wait_ends_when_it_is_called_off(ledger: SqlLedger) -> None:
    waiting = threading.Thread(target=ledger.wait, args=(TaskKind.DELIVER, "pacs"), kwargs={"timeout_s": 60})
    waiting.start()
    for _ in range(200):
        ledger.wake(TaskKind.DELIVER, "pacs")
        waiting.join(0.05)
        if not waiting.is_alive():
            break
    assert not waiting.is_alive()


def test_bytes_are_freed_when_everything_made_of_an_image_is_done_long_enough(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    original, report = instance(), instance("1.2.9", kind=InstanceKind.SR)
    ledger.accept(original, plan(classify=("cxr",)))
    (task,) = claim(ledger, "cxr", kind=TaskKind.CLASSIFY)
    ledger.complete(task, outcome=PREDICTION, produced=(Produced(instance=report, destinations=("pacs",)),))
    first, second = claim(ledger)
    ledger.complete(first)
    clock.forward(1000)
    ledger.renew([second], lease_s=60)
    assert ledger.free(retention_s=100) == [], "the report is still owed"
    ledger.complete(second)
    clock.forward(99)
    assert ledger.free(retention_s=100) == []
    clock.forward(1)
    assert sorted(ledger.free(retention_s=100)) == sorted([original.spool_key, report.spool_key])
    assert ledger.free(retention_s=100) == []
    assert ledger.queries.unheld([original.spool_key]) == {original.spool_key}
    assert whats(ledger)[-2:] == ["freed", "freed"]
    assert ledger.queries.instance_status("1.2.3") is not None, "the row stays"


def test_bytes_of_a_failed_delivery_are_kept(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance(), plan())
    (task,) = claim(ledger)
    ledger.defer(task, error="no", at=None)
    clock.forward(1_000_000)
    assert ledger.free(retention_s=0) == []


def test_an_instance_that_comes_again_after_its_bytes_were_freed_is_delivered_again(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    """An archive lost it, the modality sends it once more: that must not be taken for a duplicate for ever."""
    ledger.accept(instance(), plan())
    (task,) = claim(ledger)
    ledger.complete(task)
    clock.forward(10)
    ledger.free(retention_s=5)
    again = instance()
    assert ledger.accept(again, plan()) is Receipt.NEW
    (task,) = claim(ledger)
    assert task.instance.spool_key == again.spool_key
    assert ledger.queries.unheld([again.spool_key]) == set()


def test_bytes_that_went_missing_are_an_alarm_until_they_come_again(ledger: SqlLedger) -> None:
    ledger.accept(instance(), plan())
    (held,) = ledger.queries.held()
    ledger.mark_missed([held.instance_id])
    assert [m.sop_instance_uid for m in ledger.queries.missed()] == ["1.2.3"]
    (task,) = claim(ledger)
    ledger.defer(task, error="its bytes are gone", at=None)
    again = instance()
    assert ledger.accept(again, plan()) is Receipt.NEW, "the caller must keep these bytes"
    assert ledger.queries.missed() == []
    (task,) = claim(ledger)
    assert task.instance.spool_key == again.spool_key, "and what failed for want of them is tried again"


@pytest.mark.parametrize("kind", [TaskKind.DELIVER, TaskKind.CLASSIFY])
def test_what_failed_is_tried_again_with_the_bytes_that_came_again(ledger: SqlLedger, kind: TaskKind) -> None:
    """Its file may be damaged, and «send it again from its source» is the remedy: the new copy must not be thrown away."""
    first = instance()
    ledger.accept(first, plan(classify=("cxr",)))
    target = "pacs" if kind is TaskKind.DELIVER else "cxr"
    (task,) = ledger.claim(kind, target, lease_s=60, limit=9)
    ledger.defer(task, error="spool file is not what was received: its SHA-256 differs", at=None)
    again = instance()
    assert ledger.accept(again, plan()) is Receipt.NEW, "the caller must keep these bytes"
    (task,) = ledger.claim(kind, target, lease_s=60, limit=9)
    assert task.instance.spool_key == again.spool_key
    assert ledger.queries.unheld([first.spool_key, again.spool_key]) == {first.spool_key}
    assert ledger.accept(instance(), plan()) is Receipt.DUPLICATE, "nothing has failed any more"


def test_lanes_say_how_much_is_owed_and_since_when(ledger: SqlLedger, clock: FakeClock) -> None:
    ledger.accept(instance("1.1"), plan(deliver=("a", "b")))
    clock.forward(10)
    ledger.accept(instance("1.2"), plan(deliver=("a",)))
    (one,) = claim(ledger, "a", limit=1)
    ledger.complete(one)
    a, b = ledger.queries.lanes()
    assert a.counts == {TaskState.DONE: 1, TaskState.READY: 1}
    assert a.oldest_at == START + timedelta(seconds=10)
    assert (b.target, b.counts, b.oldest_at) == ("b", {TaskState.READY: 1}, START)
