"""Notifications in the ledger, on each engine: written down with the fact, once each, many of a kind in one message."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from router.core.findings import ClassifierIdentity, Finding, NotAnalysed, Prediction
from router.core.lifecycle import TaskKind, TaskState
from router.core.notices import FailedTopic, FindingTopic, Gathering, NoticeEvent, Subscription
from router.core.ports import NoticeTask
from router.ledger.notices import FACTS_TOLD
from router.ledger.store import SqlLedger
from tests.ledger.made import START, FakeClock, instance, plan

GATHERING = Gathering(first_s=60, again_s=3600)
NIGHT = Subscription(
    name="night",
    failed=FailedTopic(gathering=GATHERING),
    findings=(FindingTopic(classifier="cxr", gathering=GATHERING, labels=("Pneumothorax",), score_min=0.8),),
)
IDENTITY = ClassifierIdentity(
    name="cxr", algorithm="a", version="1", manufacturer="m", weights_sha256="ab" * 32, parameters={}
)


def found(**scores: float) -> Prediction:
    findings = tuple(Finding(label=label, score=score, raw=score) for label, score in scores.items())
    return Prediction(classifier=IDENTITY, findings=findings)


@pytest.fixture
def ledger(ledger: SqlLedger) -> SqlLedger:
    ledger.notices.subscribe([NIGHT], advise=lambda kind, target, reason: f"look at {target}")
    return ledger


def fail(ledger: SqlLedger, count: int = 1, *, target: str = "pacs", begin: int = 0) -> None:
    for number in range(begin, begin + count):
        ledger.accept(instance(f"1.2.{target.encode().hex()}.{number}"), plan(deliver=(target,)))
    for task in ledger.claim(TaskKind.DELIVER, target, lease_s=60, limit=count):
        ledger.defer(task, error="refused: the name is Gerda^G", at=None)


def messages(ledger: SqlLedger, name: str = "night") -> list[NoticeTask]:
    return ledger.notices.claim(TaskKind.NOTIFY, name, lease_s=60, limit=99)


def test_a_failed_task_is_told_once_with_what_helps_and_never_with_the_peers_own_words(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    fail(ledger)
    assert messages(ledger) == [], "others may follow"
    clock.forward(60)
    (task,) = messages(ledger)
    assert (task.notice.event, task.notice.subject, task.notice.fact_count) == (
        NoticeEvent.TASK_FAILED,
        "deliver pacs",
        1,
    )
    (fact,) = task.notice.facts
    assert fact.detail["advice"] == "look at pacs"
    assert fact.sop_instance_uid.startswith("1.2.")
    assert "Gerda" not in str(task.notice)
    ledger.notices.sent(task, note="taken")
    clock.forward(1e6)
    assert messages(ledger) == []
    (status,) = ledger.notices.newest()
    assert (status.state, status.note, status.notice.uid) == (TaskState.DONE, "taken", task.uid)


def test_a_storm_is_one_message_with_a_count_and_the_next_one_comes_an_hour_later(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    fail(ledger, 30)
    clock.forward(60)
    (first,) = messages(ledger)
    assert (first.notice.fact_count, len(first.notice.facts)) == (30, FACTS_TOLD)
    ledger.notices.sent(first)
    fail(ledger, 5, begin=30)
    fail(ledger, 1, target="archive")
    clock.forward(3599)
    assert [task.notice.subject for task in messages(ledger)] == ["deliver archive"], "another group does not wait"
    clock.forward(1)
    (second,) = messages(ledger)
    assert (second.notice.fact_count, second.uid != first.uid) == (5, True)


def test_what_was_tried_once_is_sealed_so_that_a_second_copy_says_the_same(ledger: SqlLedger, clock: FakeClock) -> None:
    fail(ledger)
    clock.forward(60)
    (tried,) = messages(ledger)
    ledger.defer(tried, error="the mail server is away", at=clock.now())
    fail(ledger, begin=1)
    (again,) = messages(ledger)
    assert again.notice == tried.notice
    assert again.attempts == 2


def test_a_finding_is_told_at_or_above_its_score_and_once_however_often_the_image_is_looked_at(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    for outcome in (found(Pneumothorax=0.79, Effusion=0.99), found(Pneumothorax=0.8), found(Pneumothorax=0.95)):
        ledger.accept(replace(instance("1.2.3"), digest=f"{outcome.findings[0].score}"), plan(classify=("cxr",)))
        for one in ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1):
            ledger.complete(one, outcome=outcome)
    clock.forward(3600)
    (message,) = messages(ledger)
    assert [fact.detail["score"] for fact in message.notice.facts] == [0.8, 0.95], "three instances, two above"
    assert message.notice.facts[0].calling_ae_title == "CR_ROOM1"


def test_a_second_look_at_the_same_image_tells_nothing_new(ledger: SqlLedger, clock: FakeClock) -> None:
    first = instance("1.2.3")
    for _ in range(2):
        ledger.accept(replace(first, spool_key=instance("x").spool_key), plan(classify=("cxr",), deliver=()))
        (task,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
        ledger.complete(task, outcome=found(Pneumothorax=0.9))
        clock.forward(7200)
        assert ledger.free(retention_s=3600), "so that the same bytes count as new"
    (message,) = messages(ledger)
    assert message.notice.fact_count == 1


def test_nothing_is_told_of_what_was_rolled_back_or_not_analysed_or_by_a_failed_notification(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    ledger.accept(instance("1.2.3"), plan(classify=("cxr",), deliver=()))
    (task,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    with pytest.raises(Exception, match="taken over"):
        ledger.complete(replace(task, lease="another"), outcome=found(Pneumothorax=0.9))
    ledger.complete(task, outcome=NotAnalysed(code="lateral_view", reason="lateral"))
    assert ledger.notices.newest() == []
    fail(ledger)
    clock.forward(60)
    (message,) = messages(ledger)
    ledger.defer(message, error="the mail server refuses it", at=None)
    assert len(ledger.notices.newest()) == 1, "it shows as failed, and makes no further message"
    (failed,) = ledger.search.failed(kind="notify")
    assert (failed.target, failed.error) == ("night", "the mail server refuses it")
    assert [status.sop_instance_uid for status in ledger.queries.failed(target="night")] == [message.uid]
    assert ledger.requeue(kind=TaskKind.NOTIFY) == 1
    assert messages(ledger)[0].notice == message.notice


def test_an_episode_is_told_once_to_each_also_after_a_restart_and_its_end_once(
    ledger: SqlLedger, ledger_url: str, clock: FakeClock
) -> None:
    begun = ledger.notices.begin(NoticeEvent.DESTINATION_DOWN, "pacs", START)
    ledger.notices.tell(begun, ["night", "day"], {"reason": "nothing listens"})
    again = SqlLedger(ledger_url, clock=clock)
    (known,) = again.notices.episodes()
    again.notices.tell(known, ["night"], {"reason": "nothing listens"})
    assert (known, known.told) == (replace(begun, told=frozenset({"night", "day"})), {"night", "day"})
    for _ in range(2):
        again.notices.end(known, told=NoticeEvent.DESTINATION_UP, targets=known.told, detail={})
    assert again.notices.episodes() == []
    again.close()
    (down,) = messages(ledger)
    assert down.notice.event is NoticeEvent.DESTINATION_DOWN
    ledger.defer(down, error="the mail server is away", at=clock.now() + timedelta(seconds=600))
    clock.forward(599)
    assert messages(ledger) == [], "nobody hears that it is back who has not heard that it was down"
    clock.forward(1)
    (down,) = messages(ledger)
    ledger.notices.sent(down)
    clock.forward(1)
    (up,) = messages(ledger)
    assert (up.notice.event, up.attempts) == (NoticeEvent.DESTINATION_UP, 1)


def test_what_waits_for_somebody_who_is_told_of_nothing_any_more_is_done(ledger: SqlLedger, clock: FakeClock) -> None:
    fail(ledger)
    assert ledger.notices.waive(telling=["night"]) == 0
    assert ledger.notices.waive(telling=["day"]) == 1
    clock.forward(60)
    assert messages(ledger) == []


def test_who_was_told_of_nothing_for_a_while_hears_of_what_happens_afterwards(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    """What happens then must not join a message that nobody sends any more."""
    fail(ledger)
    assert ledger.notices.waive(telling=["day"]) == 1
    fail(ledger, begin=1)
    clock.forward(2 * 3600)
    (task,) = messages(ledger)
    assert task.notice.fact_count == 1


def test_a_forgotten_study_is_in_no_message_and_old_messages_go_with_their_time(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    fail(ledger)
    known = ledger.forgetting.mark("1.2", force=True)
    assert known is not None
    ledger.forgetting.remove(known)
    clock.forward(60)
    (message,) = messages(ledger)
    assert (message.notice.fact_count, message.notice.facts) == (0, ())
    ledger.notices.sent(message)
    ledger.forgetting.expire(retention_s=60)
    assert len(ledger.notices.newest()) == 1
    clock.forward(61)
    ledger.forgetting.expire(retention_s=60)
    assert ledger.notices.newest() == []
