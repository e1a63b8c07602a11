"""What a wire does besides moving bytes: it makes room, wakes up only for a reason, and leaves nothing behind when it fails."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from router.dimse import listener, slots
from router.dimse.exchange import Exchange
from router.receive import intake
from tests.edge.rawpeer import (
    AC,
    ECHO,
    EXPLICIT,
    IMPLICIT,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    RawPeer,
    associate,
    command,
    context,
    element,
    item,
    p_data,
    pdu,
    pdv,
    store,
    store_command,
    us,
)
from tests.edge.test_commitment import CONTEXTS, REQUEST, action, start
from tests.edge.test_hostile import honest
from tests.edge.test_store import CT_DATA, CT_UID
from tests.peers import wait_until

__all__ = ["start"]


@pytest.fixture
def nobody_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SPARED_IDLE_S", 1e-9)  # but who is at work is idle for no time at all


def idle_count(node) -> int:
    return sum(association.idle_s() > 0 for association in node.scp._server._associations())


def echoes(peer: RawPeer) -> bool:
    peer.send(p_data(pdv(3, 3, ECHO)))
    return peer.status() == 0


# ---- making room


def test_the_association_that_has_been_idle_the_longest_makes_room(start_node, nobody_is_spared) -> None:
    node = start_node(associations_max=2)
    with node.peer() as first, node.peer() as second:
        second.associated()
        wait_until(lambda: idle_count(node) == 1, 60)
        first.associated()
        wait_until(lambda: idle_count(node) == 2, 60)
        with node.peer() as third:
            third.associated()
            assert second.ending() == "abort"
            assert echoes(third)
            assert echoes(first)
    wait_until(lambda: len(node.events("association.ended")) == 3, 60)
    reasons = [one["reason"] for one in node.events("association.ended")]
    assert len([reason for reason in reasons if "idle, and node.associations_max" in reason]) == 1


def test_an_association_in_the_middle_of_an_instance_does_not_make_room(start_node, nobody_is_spared) -> None:
    node = start_node(associations_max=1)
    whole = store(CT_UID, CT_DATA)
    with node.peer() as busy:
        busy.associated()
        busy.send(whole[:5000])
        wait_until(node.files, 60)
        with node.peer() as other:
            other.send(associate())
            assert other.ending() == "reject 2 3 2"
        busy.send(whole[5000:])
        assert busy.status() == 0


def test_as_many_associations_as_there_may_be_all_idle_keep_nobody_out(start_node, nobody_is_spared) -> None:
    node = start_node(associations_max=30, associations_per_peer_max=30)
    idle = [node.peer() for _ in range(30)]
    for peer in idle:
        peer.associated()
    wait_until(lambda: idle_count(node) == 30, 60)
    for _ in range(10):
        honest(node)
    for peer in idle:
        peer.socket.close()


@pytest.fixture
def everybody_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine: nobody has been idle for too long."""
    monkeypatch.setattr(slots, "SPARED_IDLE_S", 3600.0)


def test_associations_over_the_limit_are_rejected_for_now_and_taken_when_one_has_ended(
    start_node, everybody_is_spared
) -> None:
    node = start_node(associations_max=2)
    first, second = node.peer(), node.peer()
    first.associated()
    second.associated()
    with node.peer() as third:
        third.send(associate())
        assert third.ending() == "reject 2 3 2"
    first.send(pdu(5, bytes(4)))
    assert first.pdu()[0] == RELEASE_RP
    first.socket.close()
    wait_until(lambda: node.events("association.ended"))
    honest(node)
    second.socket.close()


def test_one_peer_may_not_have_all_associations(start_node, everybody_is_spared) -> None:
    node = start_node(associations_max=10, associations_per_peer_max=1)
    with node.peer() as first, node.peer() as second:
        first.associated()
        second.send(associate())
        assert second.ending() == "reject 2 3 2"


# ---- what is agreed besides contexts


@pytest.mark.parametrize(
    ("asked", "granted"),
    [((0, 0), (16, 1)), ((5, 3), (5, 1)), ((1, 1), (1, 1)), ((60_000, 1), (16, 1)), (None, None)],
)
def test_asynchronous_operations_are_granted_as_far_as_we_serve_them(node, wire: str, asked, granted) -> None:
    user = item(0x53, struct.pack(">HH", *asked)) if asked else b""
    with node.peer() as peer:
        peer.send(associate(user=user))
        kind, body = peer.pdu()
        assert kind == AC
        at = body.find(b"\x53\0\0\4")
        answered = struct.unpack(">HH", body[at + 4 : at + 8]) if at >= 0 else None
        # Who is not answered has one operation at a time (PS3.7 D.3.3.3), which is what pynetdicom says.
        assert answered == (granted if wire == "fast" else None)
        peer.send(p_data(pdv(3, 3, ECHO)) * 5)
        assert [peer.status() for _ in range(5)] == [0] * 5


def test_the_acceptance_says_what_we_take_and_who_we_are(node) -> None:
    with node.peer() as peer:
        peer.send(associate(calling=b"CR ROOM 1"))
        kind, body = peer.pdu()
    assert (kind, body[4:20], body[20:36]) == (AC, b"ROUTER".ljust(16), b"CR ROOM 1".ljust(16))
    assert item(0x10, b"1.2.840.10008.3.1.1.1") in body
    assert item(0x51, struct.pack(">L", 131072)) in body
    assert b"\x52\0\0" in body


def test_128_contexts_with_every_syntax_are_answered_one_by_one(node) -> None:
    syntaxes = [f"1.2.840.10008.1.2.4.{n}" for n in range(50, 82)]
    asked = [context(2 * n + 1, f"1.2.840.10008.5.1.4.1.1.{n}.9", *syntaxes, EXPLICIT, IMPLICIT) for n in range(128)]
    with node.peer() as peer:
        answers = peer.associated(*asked)
    assert answers == {2 * n + 1: (0, "1.2.840.10008.1.2.4.50") for n in range(128)}


def test_a_context_with_its_abstract_syntax_after_the_others_is_understood(node) -> None:
    odd = item(0x20, b"\1\0\0\0" + item(0x40, IMPLICIT.encode()) + item(0x30, VERIFICATION.encode()))
    with node.peer() as peer:
        assert peer.associated(odd) == {1: (0, IMPLICIT)}


# ---- one thing at a time


def test_a_release_in_the_middle_of_an_instance_is_answered_and_leaves_nothing(node) -> None:
    with node.peer() as peer:
        peer.associated()
        peer.send(
            p_data(pdv(1, 3, store_command(CT_UID))), p_data(pdv(1, 0, CT_DATA[:1000])), pdu(RELEASE_RQ, bytes(4))
        )
        assert peer.pdu()[0] == RELEASE_RP
    wait_until(lambda: node.events("association.ended"), 60)
    assert node.files() == []


def test_requests_in_one_pdu_and_over_pdus_are_each_answered(node) -> None:
    echo = pdv(3, 3, ECHO)
    half = pdv(3, 1, ECHO[:30])
    with node.peer() as peer:
        peer.associated()
        peer.send(p_data(echo, echo, half), p_data(pdv(3, 3, ECHO[30:]), echo))
        assert [peer.status() for _ in range(4)] == [0] * 4


def test_a_draining_node_with_a_report_that_is_due_sleeps_until_its_message_is_there(start, monkeypatch) -> None:
    scp, ledger = start(linger_s=1, drain_timeout_s=60)  # due when it drains, and not sent before
    looks = 0
    due_in_s = Exchange.due_in_s.fget

    def counting(self: Exchange) -> float:
        nonlocal looks
        looks += 1
        return due_in_s(self)

    with RawPeer(scp.port, deadline_s=60) as peer:
        peer.associated(*CONTEXTS)
        # The request for a report and the beginning of an instance: it is inside a message when the report is due.
        peer.send(
            p_data(pdv(1, 3, action()), pdv(1, 2, REQUEST), pdv(5, 3, store_command(CT_UID)), pdv(5, 0, CT_DATA[:100]))
        )
        assert peer.status() == 0
        drained = threading.Thread(target=scp.drain)
        monkeypatch.setattr(Exchange, "due_in_s", property(counting))
        drained.start()
        drained.join(1.5)
        assert drained.is_alive()
        assert looks < 50
        peer.send(p_data(pdv(5, 2, CT_DATA[100:])))
        assert peer.status() == 0
        assert peer.ending() == "abort"
    drained.join(60)
    assert len(ledger.queries.owed()) == 2, "the delivery, and the report, which is the lane's now"


# ---- programming errors and want of threads


def test_an_unforeseen_error_ends_its_association_and_no_other(node, monkeypatch) -> None:
    answer, failed = Exchange.answer, threading.Event()

    def fails_once(self, message) -> None:
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError
        answer(self, message)

    monkeypatch.setattr(Exchange, "answer", fails_once)
    with node.peer() as bystander, node.peer() as peer:
        bystander.associated()
        peer.associated()
        peer.send(store(CT_UID, CT_DATA))
        assert peer.ending() in ("abort", "closed")
        assert echoes(bystander)
    wait_until(lambda: len(node.events("association.ended")) == 2, 60)
    assert "internal error: ZeroDivisionError" in [one["reason"] for one in node.events("association.ended")]
    assert node.events("association.failed")[0]["exception"] == "ZeroDivisionError"
    assert node.files() == []
    honest(node)


def test_an_unforeseen_error_while_a_request_arrives_ends_its_association_and_no_other(node, monkeypatch) -> None:
    with monkeypatch.context() as bent:
        bent.setattr(intake, "InstanceSink", lambda *_: 1 // 0)
        with node.peer() as peer:
            peer.associated()
            peer.send(store(CT_UID, CT_DATA))
            assert peer.ending() in ("abort", "closed")
        wait_until(lambda: node.events("association.ended"), 60)
    honest(node)


def test_without_a_thread_for_it_a_connection_is_closed_and_the_next_one_served(node, monkeypatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as bent:
        bent.setattr(listener.threading, "Thread", NoThread)
        with node.peer() as peer:
            assert peer.ending() == "closed"
    wait_until(lambda: node.events("association.rejected"), 60)
    assert "can't start new thread" in node.events("association.rejected")[0]["reason"]
    honest(node)


def test_without_a_thread_for_an_association_of_pynetdicom_nothing_of_it_stays(
    start_node, wire: str, monkeypatch
) -> None:
    if wire == "fast":
        return  # it needs no further one
    from router.dimse.guard import GuardedAssociation

    def no_thread(self: object) -> None:
        raise RuntimeError("can't start new thread")

    node = start_node(associations_max=1)
    with monkeypatch.context() as bent:
        bent.setattr(GuardedAssociation, "start", no_thread)
        with node.peer() as peer:
            peer.send(associate())
            assert peer.ending() == "closed"
    wait_until(lambda: node.events("association.ended"), 60)
    honest(node)


def test_connections_that_are_not_associations_yet_end_with_the_node(start_node) -> None:
    node = start_node()
    with node.peer() as peer:
        peer.send(associate()[:20])
        node.scp.drain()
        node.scp.stop()
        assert peer.ending() == "closed"


def test_an_answer_to_a_report_may_come_between_two_instances(start) -> None:
    scp, ledger = start(linger_s=0.01)
    with RawPeer(scp.port, deadline_s=60) as peer:
        peer.associated(*CONTEXTS)
        peer.send(p_data(pdv(1, 3, action()), pdv(1, 2, REQUEST)))
        assert peer.status() == 0
        report = peer.response()
        peer.pdu()
        parts = element(0x0100, us(0x8100)) + element(0x0120, report[0x0110]) + element(0x0800, us(0x0101))
        parts += element(0x0900, us(0))
        peer.send(store(CT_UID, CT_DATA, context_id=5))
        assert peer.status() == 0
        peer.send(p_data(pdv(1, 3, element(0, struct.pack("<L", len(parts))) + parts)))
        wait_until(lambda: [owed.target for owed in ledger.queries.owed()] == ["archive"], 60)
        peer.send(p_data(pdv(3, 3, command(0x0030, sop_class=VERIFICATION))))
        assert peer.status() == 0


def test_a_peer_that_shuts_its_side_down_after_its_request_still_hears_the_answer(start_node, wire: str) -> None:
    if wire == "pynetdicom":
        return  # whose state machine hangs up at once, as PS3.8 9.2 has it
    node = start_node()
    with node.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, CT_DATA))
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.status() == 0
        assert peer.ending() == "closed"
