"""Several C-STOREs on their way at once, where the peer agrees (PS3.7 D.3.3.3): what is sent, what answers mean, what breaks."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from router.core.ports import Delivered
from router.deliver.association import Address
from router.deliver.connection import Connection
from router.deliver.fragments import data_set_parts
from router.deliver.negotiation import NotAnAcceptance, encode_request, parse_acceptance
from router.deliver.send import send as send_sources
from router.deliver.sources import Source, find
from router.dimse.pdu import parse_associate_request
from router.errors import AssociationBroke, PeerRefused, PeerUnreachable, SpoolDamaged
from tests.deliver.made import CT, EXPLICIT, IMPLICIT, delivery, dicom_destination, drawn, scripted_scp, send
from tests.deliver.window_scp import Answers, Stored, answer, window_scp
from tests.edge.rawpeer import item
from tests.peers import HOST
from tests.samples import dataset_bytes


def in_groups(count: int, batch_count: int) -> Answers:
    """Nothing is answered until `count` wait (or all have come), and then the last first."""
    seen = 0

    def answers(waiting: Sequence[Stored]) -> tuple[list[list[bytes]], list[Stored]]:
        nonlocal seen
        seen += 1
        if len(waiting) < count and seen < batch_count:
            return [], []
        group = list(reversed(waiting))
        return [[answer(one)] for one in group], group

    return answers


def test_as_many_as_the_peer_allows_wait_for_answers_that_may_come_in_any_order(tmp_path: Path) -> None:
    batch = [drawn(tmp_path, f"1.2.3.{n}", byte_count=40_000) for n in range(1, 11)]
    with window_scp(grants=4, answers=in_groups(4, 10)) as scp:
        destination = dicom_destination(scp.port)
        assert send(destination, batch) == [Delivered()] * 10
        destination.close()
    assert scp.proposed == [8]
    assert scp.outstanding_max == 4
    assert scp.order == [f"1.2.3.{n}" for n in range(1, 11)], "they leave in order all the same"
    assert scp.received == {d.instance.sop_instance_uid: dataset_bytes(d.path) for d in batch}


@pytest.mark.parametrize(("grants", "expected"), [(None, 1), (1, 1), (3, 3), (0, 8), (99, 8)])
def test_never_more_wait_than_were_asked_for_and_granted(tmp_path: Path, grants: int | None, expected: int) -> None:
    """A peer that answers only when so many wait would hang if there were fewer, and counts when there are more."""
    batch = [drawn(tmp_path, f"1.2.3.{n}", byte_count=10) for n in range(16)]
    with window_scp(grants=grants, answers=in_groups(expected, 16)) as scp:
        destination = dicom_destination(scp.port)
        assert send(destination, batch) == [Delivered()] * 16
        destination.close()
    assert scp.outstanding_max == expected


def test_a_setting_of_one_asks_for_nothing(tmp_path: Path) -> None:
    with window_scp(grants=4) as scp:
        destination = dicom_destination(scp.port, operations_max=1)
        assert send(destination, [drawn(tmp_path, f"1.2.3.{n}", byte_count=10) for n in range(3)]) == [Delivered()] * 3
        destination.close()
    assert scp.proposed == [0]
    assert scp.outstanding_max == 1


def test_a_peer_of_pynetdicom_that_agrees_to_nothing_is_sent_one_by_one(tmp_path: Path) -> None:
    with scripted_scp() as scp:
        destination = dicom_destination(scp.port, keep_open_s=0)
        assert send(destination, [drawn(tmp_path, f"1.2.3.{n}") for n in range(3)]) == [Delivered()] * 3
    assert scp.order == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]


def test_an_answer_belongs_to_the_instance_whose_message_id_it_has(tmp_path: Path) -> None:
    def answers(waiting: Sequence[Stored]) -> tuple[list[list[bytes]], list[Stored]]:
        if len(waiting) < 3:
            return [], []
        first, second, third = waiting
        return [[answer(third), answer(second, 0xC000)], [answer(first, 0xB000)]], [first, second, third]

    with window_scp(grants=3, answers=answers) as scp:
        destination = dicom_destination(scp.port)
        first, second, third = send(destination, [drawn(tmp_path, f"1.2.3.{n}") for n in range(3)])
        destination.close()
    assert isinstance(first, Delivered)
    assert "coerced" in first.note
    assert isinstance(second, PeerRefused)
    assert third == Delivered()


def test_an_answer_to_nothing_that_was_asked_ends_the_association(tmp_path: Path) -> None:
    def answers(waiting: Sequence[Stored]) -> tuple[list[list[bytes]], list[Stored]]:
        return [[answer(one, message_id=one.message_id + 100) for one in waiting]], list(waiting)

    with window_scp(grants=None, answers=answers) as scp:
        (outcome,) = send(dicom_destination(scp.port), [drawn(tmp_path, "1.2.3.1")])
    assert isinstance(outcome, AssociationBroke)
    assert "no response to anything that was asked" in str(outcome)


def test_of_several_on_their_way_when_an_association_breaks_the_one_to_blame_is_found(tmp_path: Path) -> None:
    batch = [drawn(tmp_path, f"1.2.3.{n}", byte_count=10) for n in range(1, 7)]

    def answers(waiting: Sequence[Stored]) -> tuple[list[list[bytes]], list[Stored]] | None:
        if waiting[-1].uid == "1.2.3.3":
            return None
        if len(scp.proposed) == 1:
            return [], []
        return [[answer(one)] for one in waiting], list(waiting)

    with window_scp(grants=4, answers=answers) as scp:
        destination = dicom_destination(scp.port)
        outcomes = send(destination, batch)
        assert [type(outcome) for outcome in outcomes] == [
            Delivered,
            Delivered,
            AssociationBroke,
            PeerUnreachable,
            PeerUnreachable,
            PeerUnreachable,
        ]
        assert send(destination, batch[3:]) == [Delivered()] * 3
        destination.close()
    assert scp.proposed == [8, 0, 0], "and for a while nothing more than one at a time is asked for"


def test_a_parked_association_that_breaks_on_use_blames_none_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from router.deliver.association import Association

    def answers(waiting: Sequence[Stored]) -> tuple[list[list[bytes]], list[Stored]] | None:
        if len(scp.proposed) == 1 and waiting[-1].uid != "1.2.3.0":
            return None
        return [[answer(one)] for one in waiting], list(waiting)

    monkeypatch.setattr(Association, "alive", lambda _: True)
    with window_scp(grants=4, answers=answers) as scp:
        destination = dicom_destination(scp.port, keep_open_s=60)
        assert send(destination, [drawn(tmp_path, "1.2.3.0", byte_count=10)]) == [Delivered()]
        more = [drawn(tmp_path, f"1.2.3.{n}", byte_count=10) for n in range(1, 7)]
        assert send(destination, more) == [Delivered()] * 6
        destination.close()
    assert scp.proposed == [8, 8], "nobody is to blame, so the window stays"


def test_an_instance_that_cannot_be_sent_proves_nothing_of_a_parked_association(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from router.deliver.association import Association

    def answers(waiting: Sequence[Stored]) -> tuple[list[list[bytes]], list[Stored]] | None:
        if len(scp.proposed) == 1 and waiting[-1].uid != "1.2.3.0":
            return None
        return [[answer(one)] for one in waiting], list(waiting)

    monkeypatch.setattr(Association, "alive", lambda _: True)
    with window_scp(grants=None, answers=answers) as scp:
        destination = dicom_destination(scp.port, keep_open_s=60)
        assert send(destination, [drawn(tmp_path, "1.2.3.0", byte_count=10)]) == [Delivered()]
        damaged, good = (drawn(tmp_path, f"1.2.3.{n}", byte_count=10) for n in (1, 2))
        damaged.path.write_bytes(b"x" * damaged.path.stat().st_size)
        outcomes = send(destination, [damaged, good])
        destination.close()
    assert [type(outcome) for outcome in outcomes] == [SpoolDamaged, Delivered], "the peer had gone before it was used"


@pytest.mark.parametrize("grants", [None, 4])
def test_a_long_instance_that_is_damaged_is_on_its_way_but_never_whole(tmp_path: Path, grants: int | None) -> None:
    batch = [drawn(tmp_path, f"1.2.3.{n}", byte_count=3_000_000 if n in (2, 4) else 10) for n in range(1, 6)]
    data = bytearray(batch[1].path.read_bytes())
    data[-1] ^= 1
    batch[1].path.write_bytes(data)
    with window_scp(grants=grants) as scp:
        destination = dicom_destination(scp.port)
        outcomes = send(destination, batch)
        destination.close()
    assert isinstance(outcomes[1], SpoolDamaged)
    assert [outcome for n, outcome in enumerate(outcomes) if n != 1] == [Delivered()] * 4
    assert sorted(scp.received) == ["1.2.3.1", "1.2.3.3", "1.2.3.4", "1.2.3.5"]
    assert scp.half_count == 1, "the peer saw it begin and never end"


def test_router_send_uses_the_window_too(tmp_path: Path) -> None:
    paths = [drawn(tmp_path, f"1.2.3.{n}", byte_count=400_000).path for n in range(6)]
    sources = [one for one in find(paths) if isinstance(one, Source)]
    with window_scp(grants=3, answers=in_groups(3, 6)) as scp:
        address = Address(ae_title="SCP", host=HOST, port=scp.port, calling_ae_title="US")
        sent = list(send_sources(address, sources))
    assert {one.source.sop_instance_uid: one.status for one in sent} == {f"1.2.3.{n}": "sent" for n in range(6)}
    assert scp.outstanding_max == 3
    assert scp.received == {delivery(path).instance.sop_instance_uid: dataset_bytes(path) for path in paths}


def test_router_send_repeats_what_was_not_answered_when_an_association_breaks(tmp_path: Path) -> None:
    def answers(waiting: Sequence[Stored]) -> tuple[list[list[bytes]], list[Stored]] | None:
        if len(scp.proposed) == 1:
            if waiting[-1].uid == "1.2.3.3":
                return None
            return ([[answer(waiting[-1])]], [waiting[-1]]) if waiting[-1].uid == "1.2.3.1" else ([], [])
        return [[answer(one)] for one in waiting], list(waiting)

    sources = [one for one in find([drawn(tmp_path, f"1.2.3.{n}").path for n in range(6)]) if isinstance(one, Source)]
    with window_scp(grants=4, answers=answers) as scp:
        address = Address(ae_title="SCP", host=HOST, port=scp.port, calling_ae_title="US")
        sent = [(one.source.sop_instance_uid, one.status) for one in send_sources(address, sources)]
    assert sorted(sent) == [(f"1.2.3.{n}", "sent") for n in range(6)]
    assert sent[0][0] == "1.2.3.1"


def test_a_mapped_file_that_shrinks_while_it_is_sent_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(bytes(1_000_000))
    with socket.create_server((HOST, 0)) as server, path.open("rb") as file:
        taker = threading.Thread(target=lambda: _swallow(server), daemon=True)
        taker.start()
        connection = Connection(host=HOST, port=server.getsockname()[1], connect_timeout_s=60, response_timeout_s=60)
        parts = [part for some in data_set_parts(1, file, room=16378) for part in some]
        assert sum(map(len, parts)) > 1_000_000
        path.write_bytes(b"")
        with pytest.raises(OSError) as caught:
            connection.send(parts)
        connection.close()
        taker.join(60)
    assert caught.value.errno == errno.EFAULT


def _swallow(server: socket.socket) -> None:
    peer, _ = server.accept()
    with peer:
        while peer.recv(65536):
            pass


def test_a_proposal_is_what_our_own_scp_reads() -> None:
    contexts = [(CT, EXPLICIT), (CT, IMPLICIT)]
    request = encode_request(
        calling_ae_title="US",
        called_ae_title="THEM",
        contexts=contexts,
        pdu_byte_count_max=65536,
        operations_max=8,
        scp_of=["1.2.840.10008.1.20.1"],
    )
    read = parse_associate_request(request[6:])
    assert (read.calling_ae_title, read.called_ae_title, read.version_1) == ("US", "THEM", True)
    assert [(one.context_id, one.abstract_syntax, *one.transfer_syntaxes) for one in read.contexts] == [
        (1, CT, EXPLICIT),
        (3, CT, IMPLICIT),
    ]
    assert read.pdu_byte_count_max == 65536
    assert read.roles == (("1.2.840.10008.1.20.1", False, True),)
    assert b"\x53\0\0\4\0\x08\0\1" in request


@pytest.mark.parametrize(
    "items",
    [
        b"\x21",
        b"\x21\0\0\2\1\0",
        b"\x21\0\0\xff\1\0\0\0",
        item(0x50, b"\x51\0\0\x09abcd"),
        item(0x21, b"\1\0\0\0" + b"\x40\0\0\xff1.2"),
    ],
)
def test_a_broken_acceptance_is_told_from_a_whole_one(items: bytes) -> None:
    whole = item(0x21, b"\1\0\0\0" + item(0x40, EXPLICIT.encode()))
    assert parse_acceptance(bytes(68) + whole).transfer_syntaxes == {1: EXPLICIT}
    with pytest.raises(NotAnAcceptance):
        parse_acceptance(bytes(68) + whole + items)
    with pytest.raises(NotAnAcceptance):
        parse_acceptance(bytes(67))
