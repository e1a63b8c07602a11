"""Notices in sentences, with links and without."""

from __future__ import annotations

import pytest

from router.core.notices import Fact, Notice, NoticeEvent
from router.notify.message import Writer, headline
from tests.ledger.made import START

LINKED, BARE = Writer(ae_title="ROUTER", public_url="https://router.example"), Writer(ae_title="ROUTER")
FINDING = {"classifier": "cxr", "label": "Pneumothorax", "score": 0.91, "threshold": 0.5, "demonstration": False}
FAILED = {"task_id": 7, "kind": "deliver", "target": "pacs", "advice": "Let pacs take it."}
DETAILS = {
    NoticeEvent.DESTINATION_DOWN: {"since": "2026-03-01T12:00:00+00:00", "reason": "nothing listens on 10.0.0.1:104"},
    NoticeEvent.DESTINATION_UP: {"since": "2026-03-01T12:00:00+00:00", "until": "2026-03-01T14:00:00+00:00"},
    NoticeEvent.TASK_FAILED: FAILED,
    NoticeEvent.DISK_SHORT: {"free_byte_count": 1, "free_byte_count_min": 2, "refused_under_byte_count": 2},
    NoticeEvent.DISK_ENOUGH: {"since": "2026-03-01T12:00:00+00:00", "until": "2026-03-01T14:00:00+00:00"},
    NoticeEvent.FINDING: FINDING,
    NoticeEvent.TEST: {},
}


def notice(event: NoticeEvent, *, subject: str = "pacs", count: int = 1, shown: int = 1) -> Notice:
    fact = Fact(at=START, detail=DETAILS[event])
    if event in (NoticeEvent.FINDING, NoticeEvent.TASK_FAILED):
        fact = Fact(
            at=START,
            detail=DETAILS[event],
            sop_instance_uid="1.2.3",
            study_instance_uid="1.2",
            calling_ae_title="CR_ROOM1",
            instance_id=5,
        )
    return Notice(uid="abc", event=event, subject=subject, created_at=START, fact_count=count, facts=(fact,) * shown)


@pytest.mark.parametrize("event", NoticeEvent)
def test_every_event_has_a_line_sentences_and_a_link_where_the_pages_are_known(event: NoticeEvent) -> None:
    message = LINKED.message(notice(event), name="night")
    assert message.subject.startswith("ROUTER: ")
    assert "\n" not in message.subject
    assert message.data["link"].startswith("https://router.example/")
    assert message.data["link"] in message.text
    assert "?" not in message.subject
    assert "http" not in BARE.message(notice(event), name="night").text
    assert "link" not in BARE.message(notice(event), name="night").data
    assert headline(Notice(uid="", event=event, subject="pacs", created_at=START, fact_count=0)), "also without facts"


def test_a_finding_names_image_score_and_that_it_is_no_diagnosis() -> None:
    message = LINKED.message(notice(NoticeEvent.FINDING, subject="cxr"), name="night")
    assert message.subject == "ROUTER: Pneumothorax 0.91 by cxr"
    for text in ("not a probability of disease", "1.2.3", "CR_ROOM1", "score 0.910", "https://router.example/images/5"):
        assert text in message.text, text
    (item,) = message.data["items"]
    assert (item["label"], item["score"], item["sop_instance_uid"]) == ("Pneumothorax", 0.91, "1.2.3")


def test_what_is_not_listed_is_counted_and_advice_stands_once() -> None:
    message = LINKED.message(notice(NoticeEvent.TASK_FAILED, subject="deliver pacs", count=30, shown=20), name="night")
    assert message.subject == "ROUTER: deliver pacs: 30 tasks failed"
    assert message.text.count("Let pacs take it.") == 1
    assert "and 10 more" in message.text
    assert message.data["link"] == "https://router.example/failed?kind=deliver&target=pacs"


def test_a_name_with_a_line_break_makes_no_second_header() -> None:
    message = BARE.message(notice(NoticeEvent.DESTINATION_DOWN, subject="pacs\r\nBcc: all@example"), name="night")
    assert message.subject == "ROUTER: destination pacs Bcc: all@example is down"
