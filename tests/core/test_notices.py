"""Who is told of what and when, as values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from router.core.findings import Finding
from router.core.lifecycle import TaskKind
from router.core.notices import (
    Episode,
    FailedTopic,
    FindingTopic,
    Gathering,
    NoticeEvent,
    Step,
    Subscription,
    is_short,
    step,
)
from router.settings.notify import TaskFailedSettings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOON = Gathering(first_s=60, again_s=3600)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_the_first_message_is_due_after_the_gathering_time_and_the_next_one_not_before_its_distance() -> None:
    assert SOON.due_at(NOW, None) == after(60)
    assert SOON.due_at(NOW, after(-60)) == after(3540)
    assert SOON.due_at(NOW, after(-86400)) == after(60)


@pytest.mark.parametrize(
    ("known", "trouble", "becomes"),
    [
        (False, None, Step.NOTHING),
        (False, False, Step.NOTHING),
        (False, True, Step.BEGIN),
        (True, None, Step.NOTHING),
        (True, True, Step.GO_ON),
        (True, False, Step.END),
    ],
)
def test_an_episode_begins_with_what_is_seen_and_ends_only_with_what_is_seen(
    known: bool, trouble: bool | None, becomes: Step
) -> None:
    episode = Episode(episode_id=1, event=NoticeEvent.DESTINATION_DOWN, subject="pacs", began_at=NOW)
    assert step(episode if known else None, trouble) is becomes


def test_each_is_told_once_after_the_time_that_it_waits() -> None:
    episode = Episode(
        episode_id=1, event=NoticeEvent.DESTINATION_DOWN, subject="pacs", began_at=NOW, told=frozenset({"quick"})
    )
    waits = {"quick": 0.0, "night": 600.0, "boss": 7200.0}
    assert episode.owed(after(599), waits) == ()
    assert episode.owed(after(600), waits) == ("night",)
    assert episode.owed(after(7200), waits) == ("night", "boss")


def test_a_disk_at_the_edge_is_neither_short_nor_well() -> None:
    assert [is_short(free, 1000) for free in (999, 1000, 1099, 1100)] == [True, None, None, False]


def test_a_failed_task_is_wanted_by_kind_and_target_and_a_failed_notification_by_nobody() -> None:
    everything, some = FailedTopic(gathering=SOON), FailedTopic(gathering=SOON, kinds=("deliver",), targets=("pacs",))
    assert [kind for kind in TaskKind if not everything.wants(kind, "pacs")] == [TaskKind.NOTIFY]
    assert some.wants(TaskKind.DELIVER, "pacs")
    assert not some.wants(TaskKind.DELIVER, "archive")
    assert not some.wants(TaskKind.COMMIT, "pacs")


def test_every_kind_of_work_but_notifications_can_be_named_in_the_configuration() -> None:
    others = [kind.value for kind in TaskKind if kind is not TaskKind.NOTIFY]
    assert TaskFailedSettings.model_validate({"kinds": others}).kinds == tuple(others)
    with pytest.raises(ValidationError, match="notify"):
        TaskFailedSettings.model_validate({"kinds": ["notify"]})


def test_findings_are_wanted_at_their_operating_point_or_at_a_score_of_ones_own() -> None:
    findings = (
        Finding(label="Effusion", score=0.5, raw=0.4),
        Finding(label="Nodule", score=0.49, raw=0.4),
        Finding(label="Mass", score=0.9, raw=0.4, threshold=0.95),
    )
    own = FindingTopic(classifier="cxr", gathering=SOON)
    high = FindingTopic(classifier="cxr", gathering=Gathering(first_s=0, again_s=0), labels=("Mass",), score_min=0.9)
    assert [one.label for one in own.chosen("cxr", findings)] == ["Effusion"]
    assert own.chosen("other", findings) == ()
    both = Subscription(name="night", findings=(high, own)).chosen("cxr", findings)
    assert {label: gathering.first_s for label, (_, gathering) in both.items()} == {"Mass": 0, "Effusion": 60}
