"""One instance's way in, and every way it can be refused, as a peer sees it."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading

import pydicom
import pytest
from pydicom.dataset import Dataset

from router.core.rules import Plan
from router.spool.durable import Disk
from tests import samples
from tests.edge.rawpeer import (
    AC,
    ECHO,
    EXPLICIT,
    IMPLICIT,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    associate,
    command,
    context,
    p_data,
    pdu,
    pdv,
    store,
    store_command,
)
from tests.peers import listens
from tests.receive.fakes import MemoryLedger

CT_FILE = samples.pydicom_file("CT_small.dcm")
CT_DATA = samples.dataset_bytes(CT_FILE)
CT_UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


def encoded(**changes) -> bytes:
    """The CT's data set with some elements changed (None: absent), explicit little endian, without pixels."""
    from pynetdicom.dsutils import encode

    ds: Dataset = pydicom.dcmread(CT_FILE)
    del ds.PixelData
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    data = encode(ds, False, True)
    assert data is not None
    return data


def refused(node, uid, data: bytes, **facts) -> tuple[int, str]:
    """Status and Error Comment of a C-STORE that must not be taken; nothing of it may be left."""
    with node.peer() as peer:
        peer.associated()
        peer.send(store(uid, data, **facts))
        response = peer.response()
        peer.send(p_data(pdv(3, 3, ECHO)))
        assert peer.status() == 0x0000, "the association must live on"
    status = int.from_bytes(response[0x0900], "little")
    comment = response[0x0902].decode("ascii")
    assert 0 < len(comment) <= 64
    assert node.files() == []
    assert node.ledger.accepted == []
    (event,) = node.events("instance.refused")
    assert event["status"] == f"0x{status:04X}"
    return status, comment


# ---- the way in


def test_a_stored_instance_is_durable_recorded_and_byte_identical(node) -> None:
    with node.peer() as peer:
        peer.associated(calling=b"CR_ROOM1")
        peer.send(store(CT_UID, CT_DATA))
        response = peer.response()
        assert response[0x0900] == b"\0\0"
        assert response[0x0120] == b"\1\0"
        assert response[0x1000].rstrip(b"\0").decode() == CT_UID
        assert 0x0902 not in response
        peer.send(pdu(RELEASE_RQ, bytes(4)))
        assert peer.pdu()[0] == RELEASE_RP
    instance = node.ledger.one()
    assert node.data_set(instance) == CT_DATA
    assert instance.sop_instance_uid == CT_UID
    assert instance.byte_count == len(CT_DATA)
    assert (instance.calling_ae_title, instance.called_ae_title, instance.peer_host) == (
        "CR_ROOM1",
        "ROUTER",
        "127.0.0.1",
    )
    assert instance.header["Modality"] == "CT"
    read = pydicom.dcmread(node.spool.path(instance.spool_key))
    assert read.file_meta.TransferSyntaxUID == EXPLICIT
    assert read.PixelData == pydicom.dcmread(CT_FILE).PixelData


def test_success_is_answered_only_after_the_ledger_has_accepted_and_the_bytes_are_durable(start_node) -> None:
    reached, go_on = threading.Event(), threading.Event()
    calls: list[str] = []

    class Watching(Disk):
        def sync(self, fd: int) -> None:
            calls.append("sync")
            super().sync(fd)

        def sync_folder(self, path) -> None:
            calls.append("sync_folder")
            super().sync_folder(path)

    def before() -> None:
        calls.append("accept")
        reached.set()
        assert go_on.wait(60)

    node = start_node(ledger=MemoryLedger(before), disk=Watching())
    calls.clear()
    with node.peer(deadline_s=0.3) as peer:
        peer.associated()
        peer.send(store(CT_UID, CT_DATA))
        assert reached.wait(60)
        with pytest.raises(TimeoutError):
            peer.exactly(1)
        peer.socket.settimeout(10)
        go_on.set()
        peer._deadline_s = 10
        assert peer.status() == 0x0000
    assert calls == ["sync_folder", "sync", "accept"], "the name before there are bytes, and both before the ledger"


def test_every_instance_writes_one_line_without_patient_data(node) -> None:
    name = str(pydicom.dcmread(CT_FILE).PatientName)
    with node.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, CT_DATA))
        assert peer.status() == 0
    (line,) = node.events("instance.")
    assert line["event"] == "instance.received"
    assert line["sop_instance_uid"] == CT_UID
    assert line["digest"] == node.ledger.one().digest
    assert line["deliver"] == ["archive"]
    text = node.log.getvalue()
    assert name not in text
    assert pydicom.dcmread(CT_FILE).PatientID not in text


def test_the_same_bytes_again_are_success_and_leave_one_copy(node) -> None:
    for _ in range(2):
        with node.peer() as peer:
            peer.associated()
            peer.send(store(CT_UID, CT_DATA))
            assert peer.status() == 0x0000
    assert len(node.files()) == 1
    assert node.spool.path(node.ledger.one().spool_key).is_file()
    assert len(node.events("instance.duplicate")) == 1


def test_other_bytes_under_the_same_uid_are_kept_apart(node) -> None:
    other = encoded(SOPInstanceUID=CT_UID, PatientComments="another")
    for data in (CT_DATA, other):
        with node.peer() as peer:
            peer.associated()
            peer.send(store(CT_UID, data))
            assert peer.status() == 0x0000
    assert [node.data_set(i) for i in node.ledger.accepted] == [CT_DATA, other]
    assert len(node.events("instance.conflict")) == 1


def test_c_echo_is_answered(node) -> None:
    with node.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(3, 3, ECHO)))
        assert peer.status() == 0x0000


def test_responses_are_cut_to_what_a_peer_takes(node) -> None:
    with node.peer() as peer:
        peer.associated(maximum=20)
        peer.send(p_data(pdv(3, 3, ECHO)))
        lengths, raw = [], b""
        while True:
            kind, body = peer.pdu()
            assert kind == P_DATA
            lengths.append(len(body))
            raw += body[6:]
            if body[5] & 2:
                break
    assert max(lengths) <= 20
    assert raw.endswith(b"\0\0")


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_data_sets_in_odd_fragments_arrive_whole(node, step: int) -> None:
    data = encoded()
    with node.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, data, step=step))
        assert peer.status() == 0x0000
    assert node.data_set(node.ledger.one()) == data


def test_command_and_data_set_in_one_pdu_are_taken(node) -> None:
    data = encoded()
    with node.peer() as peer:
        peer.associated()
        peer.send(
            p_data(pdv(1, 3, store_command(CT_UID)), pdv(1, 0, data[:500]), pdv(1, 0, b""), pdv(1, 2, data[500:]))
        )
        assert peer.status() == 0x0000
    assert node.data_set(node.ledger.one()) == data


def test_requests_sent_without_waiting_are_answered_in_order(node) -> None:
    count = 20
    stream = b""
    for number in range(count):
        uid = f"1.2.3.{number}"
        stream += store(uid, encoded(SOPInstanceUID=uid), message_id=number + 1)
    with node.peer() as peer:
        peer.associated()
        sender = threading.Thread(target=peer.send, args=(stream,))
        sender.start()
        responses = [peer.response() for _ in range(count)]
        sender.join(10)
    assert [int.from_bytes(r[0x0120], "little") for r in responses] == list(range(1, count + 1))
    assert {r[0x0900] for r in responses} == {b"\0\0"}
    assert len(node.ledger.accepted) == count


def test_eight_senders_at_once_are_all_served(node) -> None:
    failures: list[object] = []

    def send(sender: int) -> None:
        try:
            with node.peer() as peer:
                peer.associated()
                for number in range(10):
                    uid = f"1.2.{sender}.{number}"
                    peer.send(store(uid, encoded(SOPInstanceUID=uid)))
                    if peer.status() != 0:
                        failures.append(uid)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len({i.sop_instance_uid for i in node.ledger.accepted}) == 80
    assert len(node.files()) == 80


# ---- refused


@pytest.mark.parametrize(
    "uid",
    [
        "../../../../etc/cron.d/evil",
        "/tmp/evil",
        "1.2.3/../../x",
        "..",
        "",
        "1." + "2" * 64,
        "1.2.3\n4",
        "1.2.ü",
        "1" * 10240,
    ],
)
def test_a_uid_that_is_no_uid_is_refused_and_never_becomes_a_path(node, uid: str) -> None:
    before = set(node.folder.parent.rglob("*"))
    assert refused(node, uid.encode("latin_1"), encoded())[0] == 0xC000
    assert {p for p in set(node.folder.parent.rglob("*")) - before if p.is_file()} == set()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"SOPInstanceUID": "1.2.3.4"}, 0xA900),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, 0xA900),
        ({"SOPInstanceUID": None, "StudyInstanceUID": None, "SeriesInstanceUID": ""}, 0xC000),
    ],
)
def test_a_data_set_that_is_not_what_the_command_says_is_refused(node, changes, status: int) -> None:
    assert refused(node, CT_UID, encoded(**changes))[0] == status


@pytest.mark.parametrize(
    "changes",
    [
        {"SOPInstanceUID": None},
        {"StudyInstanceUID": None},
        {"StudyInstanceUID": ["1.2.3", "1.2.4"]},
        {"SeriesInstanceUID": ""},
        {"StudyInstanceUID": "../evil"},
        {"StudyInstanceUID": "1." * 2000 + "1"},
    ],
)
@pytest.mark.filterwarnings("ignore:.*UI.*:UserWarning")
def test_a_defective_study_or_series_is_passed_on_as_it_is(node, changes) -> None:
    data = encoded(**changes)
    with node.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, data))
        assert peer.status() == 0x0000
    (instance,) = node.ledger.accepted
    assert instance.sop_instance_uid == CT_UID
    assert instance.byte_count == len(data)
    assert "evil" not in str(node.events("instance.received")), "what is no UID may be anything, and is not logged"
    assert not [path for path in node.folder.rglob("*") if "evil" in path.name]


def test_a_class_other_than_that_of_the_presentation_context_is_refused(node) -> None:
    assert refused(node, CT_UID, encoded(), sop_class="1.2.840.10008.5.1.4.1.1.4")[0] == 0xA900


def test_c_store_on_a_verification_context_is_refused(node) -> None:
    assert refused(node, CT_UID, encoded(), context_id=3)[0] == 0x0122


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 4, CT_DATA[:-1000], CT_DATA[:700], CT_DATA[500:], b"GARBAGE" * 99, CT_FILE.read_bytes()]
)
def test_empty_truncated_headless_and_garbage_data_sets_are_refused(node, data: bytes) -> None:
    assert refused(node, CT_UID, data)[0] == 0xC000


def test_a_data_set_in_another_syntax_than_agreed_is_refused(node) -> None:
    with node.peer() as peer:
        peer.associated(context(1, "1.2.840.10008.5.1.4.1.1.2", IMPLICIT))
        peer.send(store(CT_UID, CT_DATA))
        assert peer.status() == 0xC000


def test_an_instance_that_no_rule_takes_is_refused_with_the_reason(start_node) -> None:
    node = start_node(plan=lambda _: Plan(rules=()))
    status, comment = refused(node, CT_UID, CT_DATA)
    assert status == 0x0122
    assert "no rule" in comment


def test_a_plan_that_fails_is_not_success(start_node) -> None:
    def plan(_):
        raise ZeroDivisionError

    node = start_node(plan=plan)
    with node.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, CT_DATA))
        assert peer.status() == 0x0110
    assert node.files() == []
    assert node.events("instance.refused")[0]["exception"] == "ZeroDivisionError"


def test_a_short_disk_is_told_and_the_next_instance_goes_when_there_is_room_again(start_node) -> None:
    node = start_node(free_byte_count_min=1000)
    node.spool.free = 999
    status, comment = refused(node, CT_UID, CT_DATA)
    assert (status, "free" in comment) == (0xA700, True)
    assert node.events("spool.short")
    node.spool.free = None
    with node.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, CT_DATA))
        assert peer.status() == 0x0000


def test_a_disk_that_gets_short_while_a_data_set_arrives_is_noticed(start_node) -> None:
    node = start_node(free_byte_count_min=1000)
    big = CT_DATA + bytes(8)
    with node.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(1, 3, store_command(CT_UID))), p_data(pdv(1, 0, big[:16000])))
        peer_sent = 16000
        node.spool.free = 999
        while peer_sent < 2**24:
            peer.send(p_data(pdv(1, 0, bytes(100_000))))
            peer_sent += 100_000
        peer.send(p_data(pdv(1, 2, b"\0\0")))
        assert peer.status() == 0xA700
    assert node.files() == []


def test_a_data_set_over_the_limit_is_drained_and_refused(start_node) -> None:
    node = start_node(dataset_byte_count_max=30_000)
    status, comment = refused(node, CT_UID, CT_DATA)
    assert status == 0xA700
    assert "dataset_byte_count_max" in comment


@pytest.mark.parametrize("call", ["create", "write", "sync", "close", "sync_folder"])
def test_a_failing_disk_is_never_success_and_leaves_nothing(start_node, call: str) -> None:
    class Failing(Disk):
        armed = False

    def fail(self, *arguments):
        if self.armed:
            if call == "close":
                Disk.close(self, *arguments)
            raise OSError(errno.ENOSPC, "No space left on device")
        return getattr(Disk, call)(self, *arguments)

    disk = type("Failing", (Failing,), {call: fail})()
    node = start_node(disk=disk)
    disk.armed = True
    status, comment = refused(node, CT_UID, CT_DATA)
    assert status == 0xA700
    assert "No space left" in comment


def test_a_failing_ledger_is_never_success_and_the_file_waits_for_the_janitor(start_node) -> None:
    """Whether a row exists after an error during a commit nobody knows: a row without a file would be a lost image."""

    class DatabaseError(Exception):
        pass

    def before() -> None:
        raise DatabaseError

    node = start_node(ledger=MemoryLedger(before))
    with node.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, CT_DATA))
        response = peer.response()
    assert response[0x0900] == b"\x00\xa7"
    assert b"ledger" in response[0x0902]
    (key,) = [found for found, _ in node.spool.keys()]  # noqa: SIM118 - not a mapping
    assert node.files() == [node.spool.path(key)]
    assert node.events("instance.received") == []
    assert node.events("instance.refused")[0]["exception"] == "DatabaseError"


@pytest.mark.parametrize("field", [0x0020, 0x0021, 0x0010, 0x0130, 0x0140, 0x7777])
def test_services_that_are_not_offered_are_answered_so(node, field: int) -> None:
    with node.peer() as peer:
        peer.associated()
        peer.send(
            p_data(pdv(1, 3, command(field, data=True, sop_class=VERIFICATION))), p_data(pdv(1, 2, b"identifier"))
        )
        response = peer.response()
    assert response[0x0900] == b"\x11\x02"
    assert int.from_bytes(response[0x0100], "little") == field | 0x8000


def test_c_store_without_a_data_set_is_refused(node) -> None:
    with node.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(1, 3, command(1, sop_class=VERIFICATION))))
        assert peer.status() == 0xC000


def test_c_cancel_for_nothing_is_ignored(node) -> None:
    cancel = command(0x0FFF).replace(b"\0\0\x10\x01", b"\0\0\x20\x01")
    with node.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(1, 3, cancel)) * 50, p_data(pdv(3, 3, ECHO)))
        assert peer.status() == 0x0000


# ---- leaving nothing behind


def test_a_peer_that_vanishes_in_a_data_set_leaves_nothing(node, wait_until) -> None:
    with node.peer() as peer:
        peer.associated()
        peer.send(p_data(pdv(1, 3, store_command(CT_UID))), p_data(pdv(1, 0, bytes(100_000))))
        wait_until(node.files)
    wait_until(lambda: not node.files())
    wait_until(lambda: node.events("association.ended"))
    assert node.ledger.accepted == []


def test_drain_answers_what_is_in_work_and_takes_nothing_new(start_node) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def before() -> None:
        reached.set()
        assert go_on.wait(60)

    node = start_node(ledger=MemoryLedger(before))
    with node.peer() as busy, node.peer() as idle:
        busy.associated()
        idle.associated()
        busy.send(store(CT_UID, CT_DATA))
        assert reached.wait(60)
        drained: list[bool] = []
        thread = threading.Thread(target=lambda: drained.append(node.scp.drain()))
        thread.start()
        assert idle.ending() == "abort"
        with pytest.raises(ConnectionRefusedError):
            node.peer()
        go_on.set()
        assert busy.status() == 0x0000
        assert busy.ending() == "abort"
    thread.join(60)
    assert drained == [True]
    assert len(node.ledger.accepted) == 1


def test_drain_lets_a_half_received_instance_end(node, wait_until) -> None:
    with node.peer() as peer:
        peer.associated()
        whole = store(CT_UID, CT_DATA)
        peer.send(whole[:-5000])
        wait_until(node.files, 60)  # what has not begun to arrive is none of the messages in work
        drained: list[bool] = []
        thread = threading.Thread(target=lambda: drained.append(node.scp.drain()))
        thread.start()
        wait_until(lambda: not listens(node.port))
        peer.send(whole[-5000:])
        assert peer.status() == 0x0000
    thread.join(60)
    assert drained == [True]


def test_what_has_arrived_is_on_its_way_to_the_disk_before_the_rest_comes(node, wait_until) -> None:
    data = encoded(DataSetTrailingPadding=bytes(range(256)) * 16_384)  # 4 MiB
    with node.peer() as peer:
        peer.associated()
        whole = store(CT_UID, data, step=60_000)
        peer.send(whole[: len(whole) // 2])
        wait_until(lambda: sum(file.stat().st_size for file in node.files()) > 2**20, 60)
        peer.send(whole[len(whole) // 2 :])
        assert peer.status() == 0x0000
    assert node.data_set(node.ledger.one()) == data


def test_stop_ends_what_does_not_end_by_itself_and_acknowledges_nothing(start_node, wait_until) -> None:
    node = start_node(drain_timeout_s=0.2)
    with node.peer() as peer:
        peer.associated()
        peer.send(store(CT_UID, CT_DATA)[:-10])
        wait_until(node.files)  # it has begun
        assert node.scp.drain() is False
        node.scp.stop()
        assert peer.ending() in ("closed", "abort")
    assert node.files() == []
    assert node.ledger.accepted == []


def test_a_port_that_is_taken_is_a_configuration_error(node, start_node) -> None:
    from router.errors import ConfigError

    with pytest.raises(ConfigError, match=r"node\.port"):
        start_node(port=node.port)


def test_the_receiving_process_loads_no_network(tmp_path) -> None:
    """Reception must not pay for torch (3 s, 800 MB), and a codec that crashes must not take it along."""
    program = (
        "import sys, router.receive.scp\n"
        "heavy = {'torch', 'torchxrayvision', 'highdicom', 'onnxruntime', 'openvino', 'sqlalchemy', 'skimage'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_association_negotiation_answers_each_context(node) -> None:
    with node.peer() as peer:
        answers = peer.associated(
            context(1, "1.2.840.10008.5.1.4.1.1.2", EXPLICIT, IMPLICIT),
            context(3, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.70", EXPLICIT),
            context(5, "1.2.840.10008.5.1.4.1.1.2", IMPLICIT, EXPLICIT),
            context(7, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.113619.5.2"),
            context(9, "1.2.840.10008.5.1.4.1.2.1.1", IMPLICIT),
            context(11, "1.3.12.2.1107.5.9.1", EXPLICIT),
            context(13, VERIFICATION, IMPLICIT),
            context(15, "no uid at all", IMPLICIT),
        )
    assert answers[1] == (0, EXPLICIT)
    assert answers[3] == (0, "1.2.840.10008.1.2.4.70")
    assert answers[5] == (0, EXPLICIT)
    assert answers[7][0] == 4
    assert answers[9][0] == 3
    assert answers[11] == (0, EXPLICIT)
    assert answers[13] == (0, IMPLICIT)
    assert answers[15][0] == 3


def test_an_association_without_any_acceptable_context_is_accepted_and_says_so_for_each(node) -> None:
    with node.peer() as peer:
        assert {r for r, _ in peer.associated(context(1, "1.2.840.10008.5.1.4.31", IMPLICIT)).values()} == {3}


def test_128_contexts_are_answered(node) -> None:
    contexts = [context(2 * n + 1, f"1.2.840.10008.5.1.4.1.1.{n}.99", EXPLICIT, IMPLICIT) for n in range(128)]
    with node.peer() as peer:
        peer.send(associate(*contexts))
        assert peer.pdu()[0] == AC
