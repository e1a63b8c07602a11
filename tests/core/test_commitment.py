"""When may we say that an instance is safe? The decision, as claims."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from router.core.commitment import (
    ALL_COMMITTED,
    CLASS_INSTANCE_CONFLICT,
    DUPLICATE_TRANSACTION_UID,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    SOME_FAILED,
    CommitmentRequest,
    Promise,
    Reference,
    Standing,
    describe_reason,
    report_on,
    verdict,
)

CT, CR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1"
A, B = Reference(CT, "1.1"), Reference(CT, "1.2")


def standing(*, sop_class_uid: str = CT, missed: bool = False, owed: int = 1, done: int = 0) -> Standing:
    return Standing(sop_class_uid=sop_class_uid, missed=missed, owed_count=owed, done_count=done)


def request(*references: Reference, duplicate: bool = False) -> CommitmentRequest:
    return CommitmentRequest(
        transaction_uid="2.25.1",
        references=references,
        calling_ae_title="CR_ROOM1",
        called_ae_title="ROUTER",
        peer_host="10.1.2.3",
        requested_at=datetime(2026, 1, 1, tzinfo=UTC),
        duplicate=duplicate,
    )


@pytest.mark.parametrize(
    ("standings", "durable", "delivered"),
    [
        ([], NO_SUCH_INSTANCE, NO_SUCH_INSTANCE),
        ([standing(owed=2)], 0, None),
        ([standing(owed=1, done=1)], 0, None),
        ([standing(owed=0, done=2)], 0, 0),
        ([standing(missed=True, owed=0, done=2)], PROCESSING_FAILURE, PROCESSING_FAILURE),
        ([standing(owed=0, done=0)], PROCESSING_FAILURE, PROCESSING_FAILURE),
        ([standing(sop_class_uid=CR)], CLASS_INSTANCE_CONFLICT, CLASS_INSTANCE_CONFLICT),
        ([standing(owed=0, done=1), standing(owed=1)], 0, None),
        ([standing(owed=0, done=1), standing(missed=True)], PROCESSING_FAILURE, PROCESSING_FAILURE),
    ],
    ids=[
        "unknown",
        "owed",
        "half",
        "delivered",
        "bytes gone",
        "nobody gets it",
        "class",
        "conflict",
        "one of two gone",
    ],
)
def test_what_is_promised_of_an_instance(standings: list[Standing], durable: int | None, delivered: int | None) -> None:
    assert verdict(A, standings, promise=Promise.DURABLE) == durable
    assert verdict(A, standings, promise=Promise.DELIVERED) == delivered


def test_a_report_lists_every_reference_once_and_says_what_failed_and_why() -> None:
    report = report_on(request(A, B), {"1.1": [standing()]}, promise=Promise.DURABLE, expired=False)
    assert report is not None
    assert (report.event_type, report.committed, report.failed) == (SOME_FAILED, (A,), {B: NO_SUCH_INSTANCE})
    report = report_on(request(A), {"1.1": [standing()]}, promise=Promise.DURABLE, expired=False)
    assert report is not None
    assert (report.event_type, report.failed) == (ALL_COMMITTED, {})


def test_a_report_waits_for_deliveries_until_the_time_is_over() -> None:
    standings = {"1.1": [standing(owed=0, done=1)], "1.2": [standing(owed=1)]}
    assert report_on(request(A, B), standings, promise=Promise.DELIVERED, expired=False) is None
    report = report_on(request(A, B), standings, promise=Promise.DELIVERED, expired=True)
    assert report is not None
    assert (report.committed, report.failed) == ((A,), {B: PROCESSING_FAILURE})


def test_a_transaction_uid_used_for_other_instances_commits_nothing() -> None:
    report = report_on(request(A, duplicate=True), {"1.1": [standing()]}, promise=Promise.DURABLE, expired=False)
    assert report is not None
    assert report.failed == {A: DUPLICATE_TRANSACTION_UID}


def test_a_failure_reason_is_told_in_words() -> None:
    assert describe_reason(0x0112) == "0x0112 (no such object instance)"
    assert describe_reason(0x0999) == "0x0999 (a reason that the Standard does not define)"
