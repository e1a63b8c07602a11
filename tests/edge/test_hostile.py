"""What is tried against a DICOM port. After each: the same process serves an honest peer, and nothing is left behind."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from router.dimse.limits import PIPELINED_MAX
from router.dimse.slots import PENDING_PER_PEER_MAX
from router.settings import PeerSettings
from tests.edge.rawpeer import (
    AC,
    ECHO,
    EXPLICIT,
    IMPLICIT,
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
from tests.edge.test_store import CT_DATA, CT_UID
from tests.peers import wait_until
from tests.receive.fakes import MemoryLedger

PROC = Path("/proc/self")


@pytest.fixture
def quick(start_node):
    """A node that waits half a second for what others get ten for."""
    node = start_node(pdu_timeout_s=0.5, idle_timeout_s=1)
    yield node
    honest(node)


@pytest.fixture
def patient(start_node):
    """A node with default time-outs."""
    node = start_node()
    yield node
    honest(node)


def honest(node) -> None:
    """An honest peer is served, and nobody else's bytes are left."""
    wait_until(lambda: len(node.files()) == len(node.ledger.accepted))
    with node.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(3, 3, ECHO)), store(CT_UID, CT_DATA))
        assert peer.status() == 0
        assert peer.status() == 0


def is_cut(peer: RawPeer, data: bytes, *, times: int, pause_s: float = 0) -> bool:
    """True when the other side ends the connection while or after `data` is sent again and again."""
    try:
        for _ in range(times):
            peer.send(data)
            time.sleep(pause_s)
    except ConnectionError:
        return True
    return peer.ending() in ("abort", "closed")


# ---- slow and silent


@pytest.mark.parametrize("begin", [b"", b"\1", associate()[:5], associate()[:6], associate()[:50], associate()[:-1]])
def test_a_connection_without_a_whole_request_is_closed_in_time(quick, begin: bytes) -> None:
    with quick.peer() as peer:
        peer.send(begin)
        assert peer.ending() == "closed"


def test_a_request_that_drips_is_closed_in_time(quick) -> None:
    with quick.peer() as peer:
        stop = threading.Event()

        def drip() -> None:
            for byte in associate():
                if stop.wait(0.1):
                    return
                try:
                    peer.send(bytes((byte,)))
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        ending = peer.ending()
        stop.set()
        thread.join(5)
        assert ending == "closed"


@pytest.mark.parametrize("keep", [1, 5, 6, 7, 500])
def test_half_a_pdu_ends_the_association_in_time(quick, keep: int) -> None:
    with quick.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, CT_DATA)[:keep])
        assert peer.ending() == "abort"
    wait_until(lambda: any("in time" in event["reason"] for event in quick.events("association.ended")))


def test_a_data_set_that_stops_between_fragments_ends_the_association(quick) -> None:
    with quick.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(1, 3, store_command(CT_UID))), p_data(pdv(1, 0, CT_DATA[:1000])))
        assert peer.ending() == "abort"


def test_a_data_set_that_drips_ends_the_association(quick) -> None:
    with quick.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(1, 3, store_command(CT_UID))))
        assert is_cut(peer, p_data(pdv(1, 0, b"0123456789")), times=50, pause_s=0.1)
    wait_until(lambda: any("bytes a second" in event["reason"] for event in quick.events("association.ended")))


def test_an_idle_association_is_closed(quick) -> None:
    with quick.peer() as peer:
        peer.associated()
        assert peer.ending() == "abort"


def test_an_association_that_works_now_and_then_is_not_idle(quick) -> None:
    with quick.peer() as peer:
        peer.associated()
        end = time.monotonic() + 1.6
        while time.monotonic() < end:
            peer.send(p_data(pdv(3, 3, ECHO)))
            assert peer.status() == 0
            time.sleep(0.3)


def test_a_ledger_that_takes_longer_than_the_idle_time_does_not_end_the_association(quick) -> None:
    quick.ledger.before = lambda: time.sleep(1.2)
    with quick.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, CT_DATA))
        assert peer.status() == 0
        quick.ledger.before = lambda: None
        peer.send(p_data(pdv(3, 3, ECHO)))
        assert peer.status() == 0


def test_silent_connections_do_not_keep_honest_peers_out(patient) -> None:
    """Ten of them switch a stock pynetdicom SCP off for ever. Here the oldest make room, long before their time is over."""
    silent = [patient.peer(deadline_s=5) for _ in range(PENDING_PER_PEER_MAX + 60)]
    honest(patient)
    assert [peer.ending() for peer in silent[:60]] == ["closed"] * 60
    for peer in silent:
        peer.socket.close()


def test_a_peer_that_does_not_read_its_responses_is_cut_off(quick) -> None:
    with quick.peer() as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.associated()
        peer.socket.settimeout(0.5)
        with pytest.raises(OSError):  # ours fills, then theirs, then the connection is gone
            for _ in range(400):
                peer.send(p_data(pdv(3, 3, ECHO)) * 500)
        wait_until(lambda: quick.events("association.ended"))


# ---- too long


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 7, 8, 0, 255])
def test_four_gigabytes_announced_at_the_beginning_end_the_connection_at_once(patient, kind: int) -> None:
    with patient.peer(deadline_s=5) as peer:
        peer.send(pdu(kind, b"x" * 100, length=2**32 - 1))
        assert peer.ending() == "abort"


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 7, 8])
def test_four_gigabytes_announced_in_an_association_end_it_at_once(patient, kind: int) -> None:
    with patient.peer(deadline_s=5) as peer:
        peer.associated()
        peer.send(pdu(kind, b"x" * 100, length=2**32 - 1))
        assert peer.ending() == "abort"


def test_p_data_longer_than_we_announced_is_not_read(start_node) -> None:
    node = start_node(pdu_byte_count_max=4096)
    with node.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(1, 3, store_command(CT_UID))), pdu(4, b"", length=5000))
        assert peer.ending() == "abort"
    honest_small = start_node(pdu_byte_count_max=20_000)
    honest(honest_small)


def test_a_command_without_end_is_cut(patient) -> None:
    with patient.peer() as peer:
        peer.associated()
        assert is_cut(peer, p_data(pdv(1, 1, bytes(8000))), times=200)


def test_a_data_set_without_end_is_cut_and_takes_neither_memory_nor_disk(start_node) -> None:
    node = start_node(dataset_byte_count_max=1_000_000)
    fragment = p_data(pdv(1, 0, bytes(100_000)))
    with node.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(1, 3, store_command(CT_UID))))
        assert is_cut(peer, fragment, times=200)
    honest(node)


def test_requests_are_not_collected_while_one_is_served(start_node) -> None:
    """A peer that does not wait for answers may not fill disk or memory with requests."""
    reached, go_on = threading.Event(), threading.Event()

    def before() -> None:
        reached.set()
        assert go_on.wait(20)

    node = start_node(ledger=MemoryLedger(before))
    with node.peer() as peer:
        peer.associated()
        sent = threading.Thread(target=peer.send, args=[store(CT_UID, CT_DATA, message_id=n + 1) for n in range(300)])
        sent.start()
        assert reached.wait(10)
        sent.join(1)
        assert sent.is_alive(), "everything was read though nothing was answered"
        assert len(node.files()) <= PIPELINED_MAX
        go_on.set()
        assert [peer.status() for _ in range(300)] == [0] * 300
        sent.join(10)


def test_memory_does_not_grow_with_a_data_set(patient) -> None:
    def resident() -> int:
        return int(PROC.joinpath("statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not PROC.exists():
        pytest.skip("no /proc")
    fragment = p_data(pdv(1, 0, bytes(120_000)))
    with patient.peer(deadline_s=60) as peer:
        peer.associated()
        peer.send(p_data(pdv(1, 3, store_command(CT_UID))))
        before = resident()
        for _ in range(1000):
            peer.send(fragment)
        assert resident() - before < 32_000_000
        peer.send(p_data(pdv(1, 2, b"")))
        assert peer.status() == 0xC000


# ---- not DICOM, or not as agreed


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
        os.urandom(4000),
        pdu(1, b""),
        pdu(1, bytes(67)),
        pdu(4, pdv(1, 3, ECHO)),
        pdu(5, bytes(4)),
        pdu(7, bytes(4)),
        pdu(2, associate()[6:]),
    ],
)
def test_what_is_no_request_is_ended(quick, data: bytes) -> None:
    with quick.peer() as peer:
        peer.send(data)
        assert peer.ending() in ("abort", "closed")


def syntaxes(count: int) -> bytes:
    return context(1, VERIFICATION, *(f"1.2.3.{n}" for n in range(count)))


@pytest.mark.parametrize(
    "request_pdu",
    [
        associate(context(2, VERIFICATION, IMPLICIT)),
        associate(context(1, VERIFICATION, IMPLICIT), context(1, VERIFICATION, EXPLICIT)),
        associate(context(1, VERIFICATION)),
        associate(item(0x20, b"\1\0\0\0")),
        associate(item(0x20, b"")),
        associate(item(0x20, b"\1\0\0\0" + item(0x40, IMPLICIT.encode()))),
        associate(item(0x20, b"\1\0\0\0" + struct.pack(">BxH", 0x30, 999) + b"x")),
        pdu(1, associate()[6:] + struct.pack(">BxH", 0x50, 60000)),
        pdu(1, associate()[6:-1]),
        pdu(1, associate()[6:74]),
    ],
)
def test_a_malformed_request_is_aborted(quick, request_pdu: bytes) -> None:
    with quick.peer() as peer:
        peer.send(request_pdu)
        assert peer.ending() == "abort"


@pytest.mark.parametrize(
    "request_pdu",
    [
        associate(syntaxes(3000), context(3, VERIFICATION, IMPLICIT)),
        associate(*(context(2 * n + 1, VERIFICATION, IMPLICIT) for n in range(128))),
        associate(context(1, "", IMPLICIT), context(3, VERIFICATION, IMPLICIT)),
        associate(context(1, "ü" * 200, IMPLICIT), context(3, VERIFICATION, IMPLICIT)),
        associate(context(1, VERIFICATION, "", "x" * 500, IMPLICIT)),
        associate(
            context(1, VERIFICATION, IMPLICIT), user=item(0x58, b"\1\1" + struct.pack(">H", 60000) + bytes(60000))
        ),
        associate(
            context(1, VERIFICATION, IMPLICIT), user=item(0x58, b"") + item(0x56, b"\xff\xff") + item(0x99, b"x")
        ),
        associate(context(1, VERIFICATION, IMPLICIT), user=item(0x53, b"\0\0\0\0") + item(0x54, b"\xff\xffx")),
        associate(context(1, VERIFICATION, IMPLICIT), user=item(0x52, b"not a uid") + item(0x55, b"\xff" * 400)),
        associate(context(1, VERIFICATION, IMPLICIT), version=3),
    ],
)
def test_an_odd_request_is_answered_for_what_can_be_understood_of_it(patient, request_pdu: bytes) -> None:
    with patient.peer() as peer:
        peer.send(request_pdu)
        assert peer.pdu()[0] == AC


@pytest.mark.parametrize(
    ("facts", "ending"),
    [
        ({"called": b"OTHER"}, "reject 1 1 7"),
        ({"called": b"router"}, "reject 1 1 7"),
        ({"called": b""}, "reject 1 1 7"),
        ({"called": b"\xff\xfe\0\1"}, "reject 1 1 7"),
        ({"application": "1.2.3"}, "reject 1 1 2"),
        ({"version": 2}, "reject 1 2 2"),
    ],
)
def test_what_we_do_not_speak_is_rejected_with_the_right_reason(patient, facts, ending: str) -> None:
    with patient.peer() as peer:
        peer.send(associate(**facts))
        assert peer.ending() == ending
    assert patient.events("association.rejected")[0]["reason"]


def test_any_called_ae_title_is_taken_where_the_settings_say_so(start_node) -> None:
    node = start_node(any_called_ae=True)
    with node.peer() as peer:
        peer.associated(called=b"WHATEVER")
        peer.send(store(CT_UID, CT_DATA))
        assert peer.status() == 0
    assert node.ledger.one().called_ae_title == "WHATEVER"


def test_only_listed_peers_are_taken_once_one_is_listed(start_node) -> None:
    node = start_node(
        peers=(
            PeerSettings(ae_title="CR_ROOM1"),
            PeerSettings(ae_title="CR_ROOM2", hosts=("10.1.2.0/24",)),
            PeerSettings(ae_title="CR_ROOM3", hosts=("127.0.0.0/8",)),
        )
    )
    endings = {}
    for title in (b"CR_ROOM1", b"CR_ROOM2", b"CR_ROOM3", b"cr_room1", b"", b"\x00\xff"):
        with node.peer() as peer:
            peer.send(associate(calling=title))
            kind, body = peer.pdu()
            endings[title] = "accepted" if kind == AC else f"reject {body[1]} {body[2]} {body[3]}"
    assert endings == {
        b"CR_ROOM1": "accepted",
        b"CR_ROOM2": "reject 1 1 3",
        b"CR_ROOM3": "accepted",
        b"cr_room1": "reject 1 1 3",
        b"": "reject 1 1 3",
        b"\x00\xff": "reject 1 1 3",
    }


# ---- breaking the message exchange


@pytest.mark.parametrize(
    "data",
    [
        pdu(4, b""),
        p_data(pdv(1, 3, ECHO, length=0)),
        p_data(pdv(1, 3, ECHO, length=1)),
        p_data(pdv(1, 3, ECHO, length=2**32 - 1)),
        p_data(pdv(1, 3, ECHO, length=len(ECHO) + 3)),
        p_data(b"\0\0\0"),
        p_data(pdv(99, 3, ECHO)),
        p_data(pdv(2, 3, ECHO)),
        p_data(pdv(1, 2, b"a data set before its command")),
        p_data(pdv(1, 3, store_command(CT_UID)), pdv(3, 2, CT_DATA[:100])),
        p_data(pdv(1, 3, store_command(CT_UID)), pdv(1, 3, ECHO)),
        p_data(pdv(1, 1, ECHO[:20]), pdv(3, 3, ECHO[20:])),
        p_data(pdv(1, 1, ECHO[:20]), pdv(1, 2, ECHO[20:])),
        p_data(pdv(1, 3, b"")),
        p_data(pdv(1, 3, b"garbage garbage garbage")),
        p_data(pdv(1, 3, ECHO[:-3])),
        p_data(pdv(1, 3, element(0x0100, us(0x30)) + element(0x0800, us(0x0101)))),
        p_data(pdv(1, 3, element(0x0110, us(1)) + element(0x0800, us(0x0101)))),
        p_data(pdv(1, 3, element(0x0100, us(0x30)) + element(0x0110, us(1)))),
        p_data(pdv(1, 3, ECHO + element(0x0110, us(2)))),
        p_data(pdv(1, 3, struct.pack("<HHL", 0, 0x0002, 0xFFFFFFFF) + ECHO)),
        p_data(pdv(1, 3, struct.pack("<HHL", 8, 0x0018, 2) + b"1." + ECHO)),
        p_data(pdv(1, 3, command(0x8001).replace(b"\0\0\x10\x01", b"\0\0\x20\x01"))),
        associate(),
        pdu(2, associate()[6:]),
        pdu(3, bytes((0, 1, 1, 1))),
        pdu(6, bytes(4)),
        pdu(9, bytes(4)),
    ],
)
def test_a_broken_exchange_ends_the_association_and_nothing_else(patient, data: bytes) -> None:
    with patient.peer() as peer:
        peer.associated()
        peer.send(data)
        assert peer.ending() == "abort"


def test_an_abort_and_garbage_after_a_release_harm_nobody(patient) -> None:
    for last in (pdu(7, bytes(4)), pdu(5, bytes(4)) + os.urandom(500), pdu(5, bytes(4)) + store(CT_UID, CT_DATA)):
        with patient.peer() as peer:
            peer.associated()
            peer.send(last)
            assert peer.ending() in ("closed", "abort")


def test_a_reset_before_the_response_leaves_a_whole_instance_or_none(patient) -> None:
    for _ in range(5):
        peer = patient.peer()
        peer.associated()
        peer.send(store(CT_UID, CT_DATA))
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()


def test_many_short_connections_leave_no_thread_and_no_descriptor(patient) -> None:
    def descriptors() -> int:
        return len(list(PROC.joinpath("fd").iterdir())) if PROC.exists() else 0

    honest(patient)
    wait_until(lambda: len(patient.events("association.ended")) == 1)
    threads, files = threading.active_count(), descriptors()
    for number in range(150):
        with patient.peer() as peer:
            if number % 3 == 0:
                peer.send(associate(called=b"OTHER"))
                peer.ending()
            elif number % 3 == 1:
                peer.send(associate())
                peer.pdu()
    wait_until(lambda: threading.active_count() <= threads, 20)
    wait_until(lambda: descriptors() <= files, 20)


def test_nothing_is_said_about_a_connection_that_says_nothing(patient) -> None:
    for _ in range(50):
        patient.peer().socket.close()
    honest(patient)
    assert [e for e in patient.events("association.rejected") if e["level"] != "debug"] == []
