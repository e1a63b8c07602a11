"""Storage SCU: what is proposed, what answers mean, what broken peers do, and real peers."""

from __future__ import annotations

import contextlib
import errno
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID
from pynetdicom.presentation import AllStoragePresentationContexts

from router.core.ports import Delivered
from router.errors import (
    AssociationBroke,
    AssociationRejected,
    NoAcceptedContext,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
    TransientError,
)
from tests import peers
from tests.deliver.made import (
    CT,
    EXPLICIT,
    IMPLICIT,
    ScriptedScp,
    delivery,
    dicom_destination,
    drawn,
    scripted_scp,
    send,
)
from tests.peers import HOST, free_port, wait_until
from tests.samples import dataset_bytes, storable


@pytest.fixture
def scp() -> Iterator[ScriptedScp]:
    with scripted_scp() as scp:
        yield scp


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (0x0000, Delivered, ""),
        (0xB000, Delivered, "coerced"),
        (0xB006, Delivered, "discarded"),
        (0xB007, Delivered, "does not match"),
        (0x0111, Delivered, "before"),
        (0xA700, PeerBusy, "out of resources"),
        (0xA7FF, PeerBusy, "out of resources"),
        (0x0110, PeerBusy, "processing failure"),
        (0xA900, PeerRefused, "does not match the SOP class"),
        (0xC000, PeerRefused, "cannot understand"),
        (0xC123, PeerRefused, "cannot understand"),
        (0x0122, PeerRefused, "does not support the SOP class"),
        (0x0124, PeerRefused, "not authorised"),
        (0xD001, PeerBusy, "does not name"),
    ],
)
def test_every_status_has_its_meaning_in_words(
    scp: ScriptedScp, tmp_path: Path, status: int, kind: type, words: str
) -> None:
    scp.statuses["1.2.3.1"] = status
    (outcome,) = send(dicom_destination(scp.port, keep_open_s=0), [drawn(tmp_path, "1.2.3.1")])
    assert type(outcome) is kind
    text = outcome.note if isinstance(outcome, Delivered) else str(outcome)
    assert words in text
    if isinstance(outcome, PeerBusy | PeerRefused):
        assert outcome.status == status
        assert f"{status:#06x}" in text.lower()


def test_the_peers_own_words_are_kept_apart_from_what_is_logged(scp: ScriptedScp, tmp_path: Path) -> None:
    scp.statuses["1.2.3.1"], scp.comment = 0xC000, "PatientName Doe^John"
    (outcome,) = send(dicom_destination(scp.port, keep_open_s=0), [drawn(tmp_path, "1.2.3.1")])
    assert isinstance(outcome, PeerRefused)
    assert "Doe" not in str(outcome)
    assert outcome.__notes__ == ["its comment: PatientName Doe^John"]


def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_not_damaged(
    scp: ScriptedScp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = drawn(tmp_path, "1.2.3.1"), drawn(tmp_path, "1.2.3.2")
    really_open = Path.open

    def out_of_descriptors(path: Path, *arguments: Any, **more: Any) -> Any:
        if path == one.path:
            raise OSError(errno.EMFILE, "Too many open files")
        return really_open(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", out_of_descriptors)
    first, second = send(dicom_destination(scp.port, keep_open_s=0), [one, two])
    assert type(first) is TransientError, "it is tried again; nobody is woken for it"
    assert second == Delivered()


def test_a_disk_error_while_a_data_set_is_on_the_wire_ends_the_association_and_settles_everybody(
    scp: ScriptedScp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.RawIOBase):
        def readinto(self, _: Any) -> int:
            raise OSError(errno.EIO, "Input/output error")

    one, two = drawn(tmp_path, "1.2.3.1"), drawn(tmp_path, "1.2.3.2")
    with monkeypatch.context() as patched:
        patched.setattr("router.deliver.dicom.intact_to_its_end", lambda _: contextlib.nullcontext(Broken()))
        first, second = send(dicom_destination(scp.port, keep_open_s=0), [one, two])
    assert isinstance(first, PeerUnreachable)
    assert isinstance(second, PeerUnreachable)
    assert "could not be read to its end (Input/output error)" in str(first)


def test_a_class_and_syntax_that_the_peer_does_not_take_are_named(scp: ScriptedScp, tmp_path: Path) -> None:
    fits, other = drawn(tmp_path, "1.2.3.1"), drawn(tmp_path, "1.2.3.2", sop_class_uid="1.2.840.10008.5.1.4.1.1.1")
    first, second = send(dicom_destination(scp.port, keep_open_s=0), [other, fits])
    assert isinstance(first, NoAcceptedContext)
    assert "Computed Radiography Image Storage in Explicit VR Little Endian" in str(first)
    assert second == Delivered()


def test_more_classes_than_one_association_can_carry_go_by_several(tmp_path: Path) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts][:150]
    pairs = [(sop_class_uid, syntax) for syntax in (EXPLICIT, IMPLICIT) for sop_class_uid in classes]
    with scripted_scp(contexts=pairs) as scp:
        batch = [
            drawn(tmp_path, f"1.2.3.{number}", sop_class_uid=uid, transfer_syntax_uid=syntax, byte_count=10)
            for number, (uid, syntax) in enumerate(pairs)
        ]
        destination = dicom_destination(scp.port)
        assert send(destination, batch) == [Delivered()] * 300
        destination.close()
        assert scp.association_count == 3
        assert scp.order == [f"1.2.3.{number}" for number in range(300)], "in order"


def test_only_what_is_sent_is_proposed(tmp_path: Path) -> None:
    seen: list[list[tuple[str, list[str]]]] = []
    with scripted_scp() as scp:
        from pynetdicom import evt

        scp._server.bind(
            evt.EVT_REQUESTED,
            lambda e: seen.append(
                [(c.abstract_syntax, list(c.transfer_syntax)) for c in e.assoc.requestor.requested_contexts]
            ),
        )
        send(dicom_destination(scp.port, keep_open_s=0), [drawn(tmp_path, "1.2.3.1"), drawn(tmp_path, "1.2.3.2")])
    assert seen == [[(CT, [EXPLICIT])]]


def test_sends_that_follow_each_other_share_an_association(scp: ScriptedScp, tmp_path: Path) -> None:
    destination = dicom_destination(scp.port, keep_open_s=60)
    for number in range(5):
        assert send(destination, [drawn(tmp_path, f"1.2.3.{number}")]) == [Delivered()]
    assert scp.association_count == 1
    destination.close()


def test_an_association_without_work_is_released(scp: ScriptedScp, tmp_path: Path) -> None:
    destination = dicom_destination(scp.port, keep_open_s=0.05)
    send(destination, [drawn(tmp_path, "1.2.3.1")])
    wait_until(lambda: not scp._ae.active_associations, what="release")


def test_a_parked_association_that_the_peer_gave_up_costs_nothing(scp: ScriptedScp, tmp_path: Path) -> None:
    destination = dicom_destination(scp.port, keep_open_s=60)
    send(destination, [drawn(tmp_path, "1.2.3.1")])
    scp.stop()
    with scripted_scp(port=scp.port) as again:
        assert send(destination, [drawn(tmp_path, "1.2.3.2")]) == [Delivered()]
        assert list(again.received) == ["1.2.3.2"]
        destination.close()


def test_a_parked_association_that_breaks_on_use_is_replaced_and_blames_no_instance(
    scp: ScriptedScp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from router.deliver.association import Association

    destination = dicom_destination(scp.port, keep_open_s=60)
    send(destination, [drawn(tmp_path, "1.2.3.1")])
    monkeypatch.setattr(Association, "alive", lambda _: True)
    scp.stop()
    with scripted_scp(port=scp.port):
        assert send(destination, [drawn(tmp_path, "1.2.3.2")]) == [Delivered()]
        destination.close()


def test_the_instance_under_way_when_the_association_breaks_is_told_from_those_behind_it(
    scp: ScriptedScp, tmp_path: Path
) -> None:
    scp.abort_at.add("1.2.3.2")
    outcomes = send(dicom_destination(scp.port), [drawn(tmp_path, f"1.2.3.{n}") for n in (1, 2, 3)])
    assert [type(outcome) for outcome in outcomes] == [Delivered, AssociationBroke, PeerUnreachable]


def test_a_rejection_says_what_to_change(scp: ScriptedScp, tmp_path: Path) -> None:
    wrong = dicom_destination(scp.port, ae_title="NOBODY")
    (outcome,) = send(wrong, [drawn(tmp_path, "1.2.3.1")])
    assert isinstance(outcome, AssociationRejected)
    assert "its AE title is not NOBODY" in str(outcome)
    scp.require_calling("SOMEONE")
    with pytest.raises(AssociationRejected, match="does not know our calling AE title: add ROUTER"):
        dicom_destination(scp.port).echo()


def test_the_calling_ae_title_can_be_set(scp: ScriptedScp) -> None:
    scp.require_calling("SOMEONE")
    dicom_destination(scp.port, calling_ae_title="SOMEONE").echo()


def test_nothing_that_listens_is_said_so() -> None:
    with pytest.raises(PeerUnreachable, match=r"nothing listens on 127\.0\.0\.1"):
        dicom_destination(free_port()).echo()


@contextmanager
def talker(*, say: bytes = b"", read_first: bool = True, close: bool = False) -> Iterator[int]:
    """A TCP server that reads once, says something, and then stays silent or closes."""
    server = socket.create_server((HOST, 0))
    done = threading.Event()
    held: list[socket.socket] = []

    def run() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            if read_first:
                peer.recv(65536)
            if say:
                peer.sendall(say)
            if close:
                peer.close()
            else:
                held.append(peer)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        done.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for peer in held:
            peer.close()


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({}, "did not answer our association request within 0.3 s"),
        ({"say": b"\2\0\0\0"}, "did not answer our association request within 0.3 s"),
        ({"say": b"\2\0\0\0\1\0" + b"\0" * 100}, "did not answer our association request within 0.3 s"),
        ({"say": b"\2\0\xff\xff\xff\xff"}, "is not DICOM"),
        ({"say": b"HTTP/1.1 400 Bad Request\r\n\r\n"}, "is not DICOM"),
        ({"say": b"\2\0\0\0\0\x50" + b"\xff" * 0x50}, "is not a valid A-ASSOCIATE-AC"),
        ({"say": b"\4\0\0\0\0\2xx"}, "is not an answer to our association request"),
        ({"say": b"\7\0\0\0\0\4\0\0\2\0"}, "aborted the association"),
        ({"close": True}, "closed the connection"),
    ],
)
def test_a_peer_that_is_no_proper_dicom_node_is_told_in_words_and_in_time(
    tmp_path: Path, behaviour: dict[str, object], words: str
) -> None:
    with talker(**behaviour) as port:  # type: ignore[arg-type]
        (outcome,) = send(dicom_destination(port, response_timeout_s=0.3), [drawn(tmp_path, "1.2.3.1")])
    assert type(outcome) is PeerUnreachable
    assert words in str(outcome)


def test_a_peer_that_hangs_in_the_middle_of_its_response_is_left_in_time(scp: ScriptedScp, tmp_path: Path) -> None:
    """pynetdicom's own SCU waits for ever here."""
    go = threading.Event()

    def half(event: object) -> int:
        event.assoc.dul.socket.socket.sendall(b"\4\0\0\0\0\x50\0\0\0\x4c\1\3")  # type: ignore[attr-defined]
        go.wait(30)
        return 0

    from pynetdicom import evt

    scp._server.bind(evt.EVT_C_STORE, half)
    first, second = send(
        dicom_destination(scp.port, response_timeout_s=0.3), [drawn(tmp_path, "1.2.3.1"), drawn(tmp_path, "1.2.3.2")]
    )
    go.set()
    assert type(first) is AssociationBroke
    assert "did not answer within 0.3 s" in str(first)
    assert type(second) is PeerUnreachable


def test_a_peer_that_stops_reading_is_left_in_time(tmp_path: Path) -> None:
    from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

    server = socket.create_server((HOST, 0))

    def accept_and_sleep() -> None:
        peer, _ = server.accept()
        kept.append(peer)
        request = A_ASSOCIATE_RQ()
        request.decode(peer.recv(65536))
        primitive = request.to_primitive()
        primitive.result, primitive.result_source = 0, 1
        contexts = primitive.presentation_context_definition_list
        for context in contexts:
            context.result = 0
        primitive.presentation_context_definition_results_list = contexts
        peer.sendall(A_ASSOCIATE_AC(primitive).encode())

    kept: list[socket.socket] = []
    thread = threading.Thread(target=accept_and_sleep, daemon=True)
    thread.start()
    big = drawn(tmp_path, "1.2.3.1", byte_count=40_000_000)
    (outcome,) = send(dicom_destination(server.getsockname()[1], response_timeout_s=0.3), [big])
    thread.join(10)
    for peer in kept:
        peer.close()
    server.close()
    assert type(outcome) is AssociationBroke
    assert "did not take more data within 0.3 s" in str(outcome)


@pytest.mark.parametrize("maximum", [4096, 16384, 0])
def test_the_peers_maximum_pdu_length_is_kept(tmp_path: Path, maximum: int) -> None:
    with scripted_scp() as scp:
        from pynetdicom import evt

        lengths: list[int] = []
        scp._server.ae.maximum_pdu_size = maximum
        scp._server.bind(evt.EVT_DATA_RECV, lambda e: lengths.append(len(e.data)))
        sent = drawn(tmp_path, "1.2.3.1", byte_count=300_000)
        assert send(dicom_destination(scp.port, keep_open_s=0), [sent]) == [Delivered()]
        assert scp.received["1.2.3.1"] == dataset_bytes(sent.path)
        assert max(lengths) <= (maximum or 2**17) + 6


@pytest.mark.parametrize("more", [-2, 0, 2])
def test_a_data_set_that_just_fits_its_fragments_arrives_whole(tmp_path: Path, more: int) -> None:
    """The last fragment must be marked, also when the data set ends exactly where a fragment does."""
    with scripted_scp() as scp:
        scp._server.ae.maximum_pdu_size = 4096
        rest_byte_count = drawn(tmp_path, "1.2.3.1", byte_count=2).instance.byte_count - 2
        sent = drawn(tmp_path, "1.2.3.1", byte_count=3 * 4090 + more - rest_byte_count)
        assert sent.instance.byte_count == 3 * (4096 - 6) + more
        assert send(dicom_destination(scp.port, keep_open_s=0), [sent]) == [Delivered()]
        assert scp.received["1.2.3.1"] == dataset_bytes(sent.path)


def test_parallel_sends_use_an_association_each(scp: ScriptedScp, tmp_path: Path) -> None:
    destination = dicom_destination(scp.port)
    batches = [[drawn(tmp_path, f"1.2.{lane}.{n}") for n in range(10)] for lane in range(4)]
    outcomes: list[object] = []
    threads = [threading.Thread(target=lambda b=b: outcomes.extend(send(destination, b))) for b in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    destination.close()
    assert outcomes == [Delivered()] * 40
    assert len(scp.received) == 40


# ---- real peers


def _variety() -> list[Path]:
    """At least one file of every transfer syntax at hand, small ones first."""
    chosen: dict[str, Path] = {}
    for path in sorted(storable(), key=lambda p: p.stat().st_size):
        syntax = str(pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID)
        chosen.setdefault(syntax, path)
    return list(chosen.values())


@pytest.mark.peer("storescp")
def test_storescp_gets_every_transfer_syntax_byte_for_byte(storescp: peers.StoreScp) -> None:
    files = _variety()
    batch = [delivery(path) for path in files]
    destination = dicom_destination(storescp.port, ae_title="STORESCP")
    outcomes = send(destination, batch)
    destination.close()
    taken = {
        d.instance.sop_instance_uid: d for d, outcome in zip(batch, outcomes, strict=True) if outcome == Delivered()
    }
    refused = {UID(d.instance.transfer_syntax_uid).name for d in batch if d.instance.sop_instance_uid not in taken}
    # storescp +xa of dcmtk 3.6.7 takes neither HT-J2K nor JPEG lossless with another selection value than 1.
    assert all("High-Throughput" in name or name.endswith("(Process 14)") for name in refused), refused
    syntaxes = {d.instance.transfer_syntax_uid for d in taken.values()}
    assert {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"} <= syntaxes
    assert len(syntaxes) >= 8, "compressed ones too"
    received = storescp.received()
    for uid, sent in taken.items():
        assert dataset_bytes(received[uid]) == dataset_bytes(sent.path), sent.path.name


@pytest.mark.peer("orthanc")
def test_orthanc_gets_every_transfer_syntax_with_nothing_changed(orthanc: peers.Orthanc) -> None:
    """Orthanc writes lengths of sequences anew; so elements are compared here, and bytes with storescp."""
    files = _variety()
    batch = [delivery(path) for path in files]
    destination = dicom_destination(orthanc.port, ae_title="ORTHANC")
    destination.echo()
    outcomes = send(destination, batch)
    assert send(destination, batch) == outcomes, "the same again is harmless"
    destination.close()
    delivered = [d for d, outcome in zip(batch, outcomes, strict=True) if isinstance(outcome, Delivered)]
    assert len(delivered) >= 8
    assert not any(isinstance(outcome, PeerUnreachable) for outcome in outcomes)
    for sent in delivered:
        there = pydicom.dcmread(BytesIO(orthanc.file(sent.instance.sop_instance_uid)))
        here = pydicom.dcmread(sent.path)
        here.pop("DataSetTrailingPadding", None)
        assert there == here, sent.path.name
        assert there.file_meta.TransferSyntaxUID == sent.instance.transfer_syntax_uid


@pytest.mark.peer("orthanc")
def test_orthanc_that_was_down_is_delivered_to_when_it_is_up(tmp_path: Path, tool: Callable[[str], Path]) -> None:
    tool("Orthanc")
    peer = peers.Orthanc(folder=tmp_path / "orthanc")
    batch = [drawn(tmp_path / "spool", f"1.2.3.{n}") for n in range(3)]
    destination = dicom_destination(peer.port, ae_title="ORTHANC")
    assert all(isinstance(outcome, PeerUnreachable) for outcome in send(destination, batch))
    with peer:
        assert send(destination, batch) == [Delivered()] * 3
        destination.close()
        assert peer.instance_count() == 3


@pytest.mark.peer("storescp")
@pytest.mark.parametrize("option", ["--abort-during", "--abort-after", "--refuse"])
def test_storescp_told_to_misbehave_loses_nothing(tmp_path: Path, tool: Callable[[str], Path], option: str) -> None:
    tool("storescp")
    with peers.StoreScp(folder=tmp_path / "scp", options=("+xa", option)) as peer:
        batch = [drawn(tmp_path / "spool", f"1.2.3.{n}") for n in range(3)]
        outcomes = send(dicom_destination(peer.port, ae_title="STORESCP"), batch)
    assert not any(isinstance(outcome, Delivered) for outcome in outcomes)
    kinds = {"--refuse": AssociationRejected}
    assert isinstance(outcomes[0], kinds.get(option, AssociationBroke))
