"""The page of notifications: what was told, what waits, what failed."""

from __future__ import annotations

from router.core.lifecycle import TaskKind
from router.core.notices import FailedTopic, Gathering, Subscription
from tests.ledger.made import instance, plan
from tests.web.site import Site


def test_it_says_what_waits_what_was_sent_and_what_failed_with_its_reason_and_nothing_of_patients(site: Site) -> None:
    notices, client = site.ledger.notices, site.signed_in("vera")
    assert "Nobody had to be told of anything." in client.get("/notifications").text
    at_once = FailedTopic(gathering=Gathering(first_s=0, again_s=0))
    notices.subscribe([Subscription(name="night", failed=at_once)], advise=lambda *_: "")
    header = {"PatientID": "PID-4711", "PatientName": "Gerda^G"}
    for number, told in enumerate(("sent", "refused", "waits")):
        site.ledger.accept(instance(f"1.2.{number}", header=header), plan(deliver=("pacs",)))
        (task,) = site.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1)
        site.ledger.defer(task, error="PACS says no to PID-4711", at=None)
        if told != "waits":
            (message,) = notices.claim(TaskKind.NOTIFY, "night", lease_s=60, limit=1)
        if told == "sent":
            notices.sent(message, note="not taken for dr@hospital.example")
        elif told == "refused":
            site.ledger.defer(message, error="the mail server refuses it (552)", at=None)
    page = client.get("/notifications").text
    for text in (
        "deliver pacs: 1 task failed",
        "not taken for dr@hospital.example",
        "the mail server refuses it (552)",
        'href="/failed?kind=notify&amp;target=night"',
        'href="/images/1"',
        ">waits<",
    ):
        assert text in page, text
    assert "4711" not in page
    failed = client.get("/failed", params={"kind": "notify", "target": "night"}).text
    assert "router notify --test night" in failed
