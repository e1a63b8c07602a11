"""The exam of core.ports.Commitments, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest

from router.core.commitment import CommitmentReport, CommitmentRequest, Reference
from router.core.lifecycle import TaskKind, TaskState
from router.core.ports import ReportTask, Task
from router.errors import LeaseLost
from router.ledger.commitments import REPORT_TARGET
from router.ledger.store import SqlLedger
from tests.ledger.made import CT, START, FakeClock, instance, plan

A, B = Reference(CT, "1.1"), Reference(CT, "1.2")


def request(*references: Reference, uid: str = "2.25.1", peer: str = "CR_ROOM1") -> CommitmentRequest:
    return CommitmentRequest(
        transaction_uid=uid,
        references=references or (A,),
        calling_ae_title=peer,
        called_ae_title="ROUTER",
        peer_host="10.1.2.3",
        requested_at=START,
    )


def reports(ledger: SqlLedger, limit: int = 9) -> list[ReportTask]:
    return ledger.commitments.claim(TaskKind.REPORT, REPORT_TARGET, lease_s=60, limit=limit)


def delivered(ledger: SqlLedger, *uids: str) -> None:
    """Delivered to a destination that must now commit."""
    for uid in uids:
        ledger.accept(instance(uid), plan())
    tasks = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=99)
    assert ledger.delivered([(task, "") for task in tasks], commit=True) == []


def to_ask(ledger: SqlLedger) -> list[Task]:
    return ledger.claim(TaskKind.COMMIT, "pacs", lease_s=60, limit=99)


def kept(*references: Reference, uid: str = "2.25.9", **failed: int) -> CommitmentReport:
    lost = {Reference(CT, name.replace("_", ".").strip(".")): reason for name, reason in failed.items()}
    return CommitmentReport(transaction_uid=uid, committed=references, failed=lost)


def whats(ledger: SqlLedger, uid: str = "1.1") -> list[str]:
    return [line.what for line in ledger.queries.trace(uid)]


# ---- what peers ask


def test_a_request_is_written_down_with_the_report_that_it_is_owed(ledger: SqlLedger) -> None:
    ledger.accept(instance("1.1"), plan())
    assert ledger.commitments.take(request(A, B), lease_s=0) == []
    (task,) = reports(ledger)
    assert (task.request, task.uid, task.kind) == (request(A, B), "2.25.1", TaskKind.REPORT)
    assert reports(ledger) == []
    assert whats(ledger) == ["received", "commitment_asked"]


def test_a_report_can_be_claimed_by_the_association_that_asked(ledger: SqlLedger, clock: FakeClock) -> None:
    (task,) = ledger.commitments.take(request(), lease_s=30)
    assert reports(ledger) == []
    clock.forward(31)
    (again,) = reports(ledger)
    assert again.attempts == 2
    with pytest.raises(LeaseLost):
        ledger.commitments.reported(task, kept(A))
    ledger.commitments.reported(again, kept(A))
    assert reports(ledger) == []


def test_what_was_reported_stands_in_the_trail_of_each_instance(ledger: SqlLedger) -> None:
    ledger.accept(instance("1.1"), plan())
    ledger.accept(instance("1.2"), plan())
    (task,) = ledger.commitments.take(request(A, B), lease_s=30)
    ledger.commitments.reported(task, kept(A, _1_2=0x0110))
    lines = {line.sop_instance_uid: line for line in ledger.queries.trace("1.2") if line.what == "commitment_reported"}
    assert lines["1.1"].detail == "committed, to CR_ROOM1"
    assert lines["1.2"].detail == "0x0110 (processing failure), to CR_ROOM1"


def test_the_same_request_again_owes_one_report(ledger: SqlLedger) -> None:
    ledger.commitments.take(request(A, B), lease_s=0)
    ledger.commitments.take(request(B, A), lease_s=0)
    (task,) = reports(ledger)
    ledger.commitments.reported(task, kept(A, B))
    ledger.commitments.take(request(A, B), lease_s=0)
    (task,) = reports(ledger)
    assert not task.request.duplicate


def test_other_instances_under_a_used_transaction_uid_are_marked_unless_another_peer_asks(ledger: SqlLedger) -> None:
    ledger.commitments.take(request(A), lease_s=0)
    ledger.commitments.take(request(B), lease_s=0)
    ledger.commitments.take(request(B, peer="CR_ROOM2"), lease_s=0)
    assert [task.request.duplicate for task in reports(ledger)] == [False, True, False]


def test_a_peer_that_comes_again_gets_what_waits_for_it_and_nobody_elses(ledger: SqlLedger, clock: FakeClock) -> None:
    for number, peer in enumerate(("CR_ROOM1", "CR_ROOM1", "CR_ROOM2")):
        ledger.commitments.take(request(uid=f"2.25.{number}", peer=peer), lease_s=0)
    waiting, failing, other = reports(ledger)
    ledger.defer(waiting, error="nobody listens", at=clock.now() + timedelta(hours=1))
    ledger.defer(failing, error="nobody listens", at=None)
    ledger.defer(other, error="nobody listens", at=None)
    claimed = ledger.commitments.take(request(uid="2.25.7"), lease_s=30)
    assert {task.uid for task in claimed} == {"2.25.0", "2.25.1", "2.25.7"}
    assert reports(ledger) == []


def test_reports_that_wait_or_failed_are_seen_by_people(ledger: SqlLedger) -> None:
    ledger.commitments.take(request(), lease_s=0)
    (owed,) = ledger.queries.owed()
    assert (owed.kind, owed.sop_instance_uid) == (TaskKind.REPORT, "2.25.1")
    (task,) = reports(ledger)
    ledger.defer(task, error="nobody listens", at=None)
    (failed,) = ledger.queries.failed()
    assert failed.error == "nobody listens"
    assert ledger.requeue([failed.task_id]) == 1
    assert len(reports(ledger)) == 1


def test_a_request_of_ten_thousand_instances_is_one_row(ledger: SqlLedger) -> None:
    references = tuple(Reference(CT, f"1.9.{number}") for number in range(10_000))
    (task,) = ledger.commitments.take(request(*references), lease_s=30)
    assert task.request.references == references
    assert ledger.commitments.standings([one.sop_instance_uid for one in references]) == {}


def test_standings_say_what_is_owed_done_and_gone(ledger: SqlLedger) -> None:
    ledger.accept(instance("1.1"), plan(deliver=("pacs", "archive"), classify=("cxr",)))
    ledger.accept(instance("1.2"), plan(deliver=()))
    (standing,) = ledger.commitments.standings(["1.1", "9"])["1.1"]
    assert (standing.sop_class_uid, standing.owed_count, standing.done_count, standing.missed) == (CT, 2, 0, False)
    (task,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9)
    ledger.delivered([(task, "")], commit=True)
    (standing,) = ledger.commitments.standings(["1.1"])["1.1"]
    assert (standing.owed_count, standing.done_count) == (2, 1), "the other delivery, and the destination's commitment"
    (held,) = [h for h in ledger.queries.held() if h.sop_instance_uid == "1.2"]
    ledger.mark_missed([held.instance_id])
    (standing,) = ledger.commitments.standings(["1.2"])["1.2"]
    assert (standing.owed_count, standing.done_count, standing.missed) == (0, 0, True)


def test_two_objects_under_one_uid_stand_side_by_side(ledger: SqlLedger) -> None:
    ledger.accept(instance("1.1", data=b"one"), plan())
    ledger.accept(instance("1.1", data=b"two"), plan(deliver=()))
    assert sorted(s.owed_count for s in ledger.commitments.standings(["1.1"])["1.1"]) == [0, 1]


# ---- what we ask


def test_bytes_are_kept_until_the_destination_has_committed(ledger: SqlLedger, clock: FakeClock) -> None:
    delivered(ledger, "1.1")
    clock.forward(1000)
    assert ledger.free(retention_s=0) == []
    tasks = to_ask(ledger)
    ledger.commitments.ask("2.25.9", "pacs", tasks)
    ledger.commitments.postpone(tasks, error="no answer", at=clock.now() + timedelta(seconds=600))
    assert ledger.free(retention_s=0) == []
    answered = ledger.commitments.answered(kept(A), resends_max=3)
    assert (answered.target, answered.committed) == ("pacs", ("1.1",))
    assert whats(ledger)[-2:] == ["deferred", "committed"]
    clock.forward(10)
    assert len(ledger.free(retention_s=5)) == 1


def test_what_the_destination_lacks_is_delivered_again_and_asked_again(ledger: SqlLedger) -> None:
    delivered(ledger, "1.1", "1.2")
    ledger.commitments.ask("2.25.9", "pacs", to_ask(ledger))
    answered = ledger.commitments.answered(kept(A, _1_2=0x0112), resends_max=3)
    assert (answered.committed, answered.resent) == (("1.1",), ("1.2",))
    (task,) = ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9)
    assert (task.instance.sop_instance_uid, task.options) == ("1.2", {"resent": 1})
    ledger.delivered([(task, "")], commit=True)
    (again,) = to_ask(ledger)
    assert again.options == {"resent": 1}
    assert "not_committed" in whats(ledger, "1.2")


def test_resends_end_and_people_are_told(ledger: SqlLedger) -> None:
    delivered(ledger, "1.1")
    for number in range(3):
        ledger.commitments.ask(f"2.25.{number}", "pacs", to_ask(ledger))
        answered = ledger.commitments.answered(kept(uid=f"2.25.{number}", _1_1=0x0112), resends_max=2)
        for task in ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9):
            ledger.delivered([(task, "")], commit=True)
    assert answered.failed == ("1.1",)
    (failed,) = ledger.queries.failed()
    assert failed.error == "pacs does not commit to it after it was sent 3 times: 0x0112 (no such object instance)"
    assert ledger.free(retention_s=0) == []


def test_a_destination_that_cannot_say_is_asked_later_and_sent_nothing(ledger: SqlLedger, clock: FakeClock) -> None:
    delivered(ledger, "1.1")
    ledger.commitments.ask("2.25.9", "pacs", to_ask(ledger))
    assert ledger.commitments.answered(kept(_1_1=0x0110), resends_max=3).asked_again == ("1.1",)
    assert ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=9) == []
    assert to_ask(ledger) == []
    clock.forward(60)
    assert len(to_ask(ledger)) == 1


def test_an_answer_comes_before_the_asker_has_settled_and_both_agree(ledger: SqlLedger, clock: FakeClock) -> None:
    delivered(ledger, "1.1")
    tasks = to_ask(ledger)
    ledger.commitments.ask("2.25.9", "pacs", tasks)
    ledger.commitments.answered(kept(A), resends_max=3)
    ledger.commitments.postpone(tasks, error="no answer", at=clock.now())
    status = ledger.queries.instance_status("1.1")
    assert status is not None
    assert [task.state for task in status.tasks] == [TaskState.DONE, TaskState.DONE]


def test_a_late_answer_to_an_earlier_question_counts_and_twice_is_once(ledger: SqlLedger, clock: FakeClock) -> None:
    delivered(ledger, "1.1")
    for uid in ("2.25.8", "2.25.9"):
        tasks = to_ask(ledger)
        ledger.commitments.ask(uid, "pacs", tasks)
        ledger.commitments.postpone(tasks, error="no answer", at=clock.now())
    assert ledger.commitments.answered(kept(A, uid="2.25.8"), resends_max=3).committed == ("1.1",)
    assert ledger.commitments.answered(kept(A, uid="2.25.8"), resends_max=3).committed == ()
    assert ledger.commitments.answered(kept(uid="2.25.9", _1_1=0x0112), resends_max=3).resent == ()
    assert to_ask(ledger) == []
    assert whats(ledger).count("committed") == 1


def test_an_answer_to_what_was_never_asked_is_an_error_and_touches_nothing(ledger: SqlLedger) -> None:
    delivered(ledger, "1.1")
    with pytest.raises(KeyError):
        ledger.commitments.answered(kept(A), resends_max=3)
    assert len(to_ask(ledger)) == 1


def test_an_answer_commits_only_what_was_asked(ledger: SqlLedger) -> None:
    delivered(ledger, "1.1", "1.2")
    first, second = to_ask(ledger)
    ledger.commitments.ask("2.25.9", "pacs", [first])
    assert ledger.commitments.answered(kept(A, B), resends_max=3).committed == ("1.1",)
    ledger.commitments.postpone([second], error="no answer", at=START)
    assert [task.uid for task in to_ask(ledger)] == ["1.2"]


def test_a_question_that_could_not_be_asked_burns_no_attempt(ledger: SqlLedger, clock: FakeClock) -> None:
    delivered(ledger, "1.1")
    for _ in range(5):
        tasks = to_ask(ledger)
        assert tasks[0].attempts == 1
        ledger.commitments.postpone(tasks, error="it is down", at=clock.now(), tried=False)
    assert "deferred" not in whats(ledger)
    ledger.commitments.postpone(to_ask(ledger), error="it does not offer it", at=None)
    (failed,) = ledger.queries.failed()
    assert failed.kind is TaskKind.COMMIT


def test_a_destination_that_is_asked_no_more_holds_no_bytes(ledger: SqlLedger, clock: FakeClock) -> None:
    delivered(ledger, "1.1", "1.2")
    first, second = to_ask(ledger)
    ledger.commitments.postpone([first], error="no answer", at=clock.now())
    ledger.commitments.postpone([second], error="it does not offer it", at=None)
    assert ledger.commitments.waive(asking=["pacs"]) == 0
    assert ledger.commitments.waive(asking=["archive"]) == 2
    assert ledger.commitments.waive(asking=[]) == 0
    clock.forward(1)
    assert len(ledger.free(retention_s=0)) == 2
