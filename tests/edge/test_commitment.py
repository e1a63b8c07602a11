"""N-ACTION and N-EVENT-REPORT as hostile peers send them; and a report that crosses a release."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from router.core.admission import Limits
from router.core.commitment import CommitmentReport, CommitmentRequest, Reference
from router.core.lifecycle import TaskState
from router.dimse.command import Command
from router.dimse.commitment import BYTE_COUNT_MAX, encode_report, encode_request
from router.dimse.store import PeerIdentity, ServiceRequest
from router.ledger.store import SqlLedger
from router.receive.commitment import CommitmentDesk
from router.receive.scp import StorageScp
from router.settings import NodeSettings
from tests.edge.rawpeer import (
    ECHO,
    EXPLICIT,
    IMPLICIT,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    RawPeer,
    command,
    context,
    element,
    p_data,
    pdu,
    pdv,
    store,
    us,
)
from tests.peers import wait_until
from tests.receive.fakes import EVERYTHING, FixedClock, SmallSpool

CT = "1.2.840.10008.5.1.4.1.1.2"
PUSH, WELL_KNOWN = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CONTEXTS = (context(1, PUSH, EXPLICIT), context(3, VERIFICATION, IMPLICIT), context(5, CT, EXPLICIT))
REFERENCES = (Reference(CT, "1.2.3"),)
REQUEST = encode_request("2.25.7", REFERENCES, EXPLICIT)

Start = Callable[..., tuple[StorageScp, SqlLedger]]


@pytest.fixture
def start(tmp_path: Path, wire: str) -> Iterator[Start]:
    """start(linger_s=…): a Storage SCP with a desk for commitment and a ledger; everything asked for is committed."""
    started: list[tuple[StorageScp, SqlLedger, SmallSpool]] = []

    def judge(request: CommitmentRequest) -> CommitmentReport:
        return CommitmentReport(transaction_uid=request.transaction_uid, committed=request.references, failed={})

    def start_it(*, linger_s: float = 0.0, **settings) -> tuple[StorageScp, SqlLedger]:
        spool, ledger = SmallSpool(tmp_path / "spool"), SqlLedger(f"sqlite:///{tmp_path}/l.db")
        desk = CommitmentDesk(
            ledger=ledger,
            commitments=ledger.commitments,
            judge=judge,
            clock=FixedClock(),
            enabled=True,
            linger_s=linger_s,
            resends_max=3,
        )
        scp = StorageScp(
            settings=NodeSettings(**{"host": "127.0.0.1", "port": 0, "wire": wire, **settings}),
            peers=(),
            spool=spool,
            ledger=ledger,
            plan=lambda _: EVERYTHING,
            clock=FixedClock(),
            limits=Limits(dataset_byte_count_max=2**30, free_byte_count_min=0),
            desk=desk,
        )
        scp.start()
        started.append((scp, ledger, spool))
        return scp, ledger

    yield start_it
    for scp, ledger, spool in started:
        scp.stop()
        ledger.close()
        spool.close()


def uid(number: int, value: str) -> bytes:
    return element(number, value.encode() + b"\0" * (len(value) % 2))


def action(*, data: bool = True, action_type: int = 1, sop_class: str = PUSH, instance: str = WELL_KNOWN) -> bytes:
    more = uid(0x1001, instance) + element(0x1008, us(action_type))
    return command(0x0130, data=data, more=uid(0x0003, sop_class) + more)


def event_report(event_type: int = 1, *, data: bool = True) -> bytes:
    return command(0x0100, data=data, sop_class=PUSH, more=uid(0x1000, WELL_KNOWN) + element(0x1002, us(event_type)))


def alive(peer: RawPeer) -> bool:
    peer.send(p_data(pdv(3, 3, ECHO)))
    return peer.status() == 0x0000


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ([pdv(1, 3, action(data=False))], 0x0115),
        ([pdv(1, 3, action()), pdv(1, 2, b"noise")], 0x0115),
        ([pdv(1, 3, action()), pdv(1, 2, b"")], 0x0115),
        ([pdv(1, 3, action(action_type=7)), pdv(1, 2, REQUEST)], 0x0123),
        ([pdv(1, 3, action(sop_class="1.2.3")), pdv(1, 2, REQUEST)], 0x0118),
        ([pdv(1, 3, action(instance="1.2.3")), pdv(1, 2, REQUEST)], 0x0112),
        ([pdv(3, 3, action()), pdv(3, 2, REQUEST)], 0x0211),
        ([pdv(5, 3, action()), pdv(5, 2, REQUEST)], 0x0211),
        ([pdv(1, 3, event_report(9)), pdv(1, 2, REQUEST)], 0x0113),
        ([pdv(1, 3, event_report(data=False))], 0x0115),
        ([pdv(1, 3, event_report()), pdv(1, 2, REQUEST)], 0x0115),
        ([pdv(1, 3, action()), pdv(1, 2, REQUEST)], 0x0000),
    ],
    ids=lambda value: None if isinstance(value, list) else f"0x{value:04X}",
)
def test_every_request_is_answered_as_the_standard_says_and_the_association_lives_on(
    start: Start, message: list[bytes], status: int
) -> None:
    scp, ledger = start()
    with RawPeer(scp.port) as peer:
        peer.associated(*CONTEXTS)
        peer.send(p_data(*message))
        response = peer.response()
        assert int.from_bytes(response[0x0900], "little") == status
        if status != 0x0000:
            assert 0 < len(response[0x0902]) <= 64
        assert alive(peer)
    assert len(ledger.queries.owed()) == (1 if status == 0 else 0)


def test_an_answer_names_what_was_asked(start: Start) -> None:
    scp, _ = start()
    with RawPeer(scp.port) as peer:
        peer.associated(*CONTEXTS)
        peer.send(p_data(pdv(1, 3, action()), pdv(1, 2, REQUEST)))
        response = peer.response()
    assert response[0x0002].rstrip(b"\0").decode() == PUSH
    assert response[0x1000].rstrip(b"\0").decode() == WELL_KNOWN
    assert (response[0x0100], response[0x1008]) == (us(0x8130), us(1))


def test_a_request_that_is_too_long_is_refused_and_the_association_lives_on(start: Start) -> None:
    scp, ledger = start()
    with RawPeer(scp.port) as peer:
        peer.associated(*CONTEXTS)
        peer.send(p_data(pdv(1, 3, action())))
        for _ in range(2 * BYTE_COUNT_MAX // 100_000):
            peer.send(p_data(pdv(1, 0, bytes(100_000))))
        peer.send(p_data(pdv(1, 2, b"")))
        assert peer.status() == 0x0213
        assert alive(peer)
    assert ledger.queries.owed() == []


def test_of_a_request_without_end_no_more_is_kept_than_the_limit() -> None:
    peer = PeerIdentity(calling_ae_title="RAW", called_ae_title="ROUTER", host="127.0.0.1")
    asked = Command(field=0x0130, message_id=1, has_data_set=True)
    request = ServiceRequest(command=asked, transfer_syntax_uid=EXPLICIT, peer=peer)
    sink = CommitmentDesk.open(cast(CommitmentDesk, None), request)
    for _ in range(100):
        sink.write([memoryview(bytes(2**16))])
    assert len(sink._data) == BYTE_COUNT_MAX + 1


def test_an_image_on_the_context_of_commitment_is_refused(start: Start) -> None:
    scp, _ = start()
    with RawPeer(scp.port) as peer:
        peer.associated(*CONTEXTS)
        peer.send(store("1.2.3", b"", sop_class=PUSH))
        assert peer.status() == 0x0122


@pytest.mark.parametrize("message_id", [0, 1, 9])
def test_an_answer_to_a_report_that_was_never_sent_ends_the_association(start: Start, message_id: int) -> None:
    scp, _ = start()
    with RawPeer(scp.port) as peer:
        peer.associated(*CONTEXTS)
        parts = element(0x0100, us(0x8100)) + element(0x0120, us(message_id)) + element(0x0800, us(0x0101))
        parts += element(0x0900, us(0))
        peer.send(p_data(pdv(1, 3, element(0, struct.pack("<L", len(parts))) + parts)))
        assert peer.ending() == "abort"


def test_a_report_goes_out_where_the_peer_stays_and_its_answer_settles_it(start: Start) -> None:
    scp, ledger = start(linger_s=0.2)
    with RawPeer(scp.port) as peer:
        peer.associated(*CONTEXTS)
        peer.send(p_data(pdv(1, 3, action()), pdv(1, 2, REQUEST)))
        assert peer.status() == 0x0000
        report = peer.response()
        assert (report[0x0100], report[0x1002]) == (us(0x0100), us(1))
        kind, body = peer.pdu()
        assert kind == P_DATA
        expected = CommitmentReport(transaction_uid="2.25.7", committed=REFERENCES, failed={})
        assert body[6:] == encode_report(expected, EXPLICIT)
        assert len(ledger.queries.owed()) == 1, "nothing is settled before the peer has said so"
        parts = element(0x0100, us(0x8100)) + element(0x0120, report[0x0110]) + element(0x0800, us(0x0101))
        parts += element(0x0900, us(0))
        peer.send(p_data(pdv(1, 3, element(0, struct.pack("<L", len(parts))) + parts)))
        wait_until(lambda: ledger.queries.owed() == [], 10)
        assert alive(peer)


@pytest.mark.parametrize("answer", ["release", "close", "refuse", "silence"])
def test_a_report_that_the_peer_does_not_take_is_owed_to_the_lane_at_once(start: Start, answer: str) -> None:
    scp, ledger = start(linger_s=0.2, idle_timeout_s=1)
    with RawPeer(scp.port) as peer:
        peer.associated(*CONTEXTS)
        peer.send(p_data(pdv(1, 3, action()), pdv(1, 2, REQUEST)))
        assert peer.status() == 0x0000
        if answer == "release":
            peer.send(pdu(RELEASE_RQ, bytes(4)))
            assert peer.pdu()[0] == RELEASE_RP
        elif answer != "close":
            report = peer.response()
            peer.pdu()
            if answer == "refuse":
                parts = element(0x0100, us(0x8100)) + element(0x0120, report[0x0110]) + element(0x0800, us(0x0101))
                parts += element(0x0900, us(0x0110))
                peer.send(p_data(pdv(1, 3, element(0, struct.pack("<L", len(parts))) + parts)))
            wait_until(lambda: ledger.queries.owed()[0].state is TaskState.RETRY, 10)
    wait_until(lambda: ledger.queries.owed()[0].state is TaskState.RETRY, 10)
    (owed,) = ledger.queries.owed()
    assert owed.attempts == 0, "the lane has all its tries"
