"""A running node, asked for everything by another implementation: it agrees to what its conformance statement lists, and to no more."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom._uid_dict import UID_dictionary
from pynetdicom import AE, build_context, evt, sop_class
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)

from router.cli import cli
from tests.edge.rawpeer import (
    CT,
    EXPLICIT,
    IMPLICIT,
    RJ,
    RawPeer,
    associate,
    context,
    p_data,
    pdv,
    store,
    store_command,
)
from tests.peers import HOST, free_port, wait_until
from tests.report.made import HEADER, encoded
from tests.whole.router_process import RouterProcess, destination

CR = "1.2.840.10008.5.1.4.1.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
PRIVATE, UNKNOWN = "1.2.826.0.1.3680043.8.498.77", "1.2.840.10008.5.1.4.1.1.98765"
STRANGER = "1.2.826.0.1.3680043.8.498.78"
DATASET_BYTE_COUNT_MAX = 60_000
_NODE = """
associations_max = 3
associations_per_peer_max = 2
pdu_byte_count_max = 40960
dataset_byte_count_max = 60000
wire = "{wire}"
"""
_RULE = '[[rules]]\nname = "cr"\nwhen = { Modality = "CR" }\ndeliver = ["files"]\n'
_TO_ARCHIVE = '[[rules]]\nname = "ot"\nwhen = { Modality = "OT" }\ndeliver = ["archive"]\n'
BASELINE, DX, VERIFICATION = "1.2.840.10008.1.2.4.50", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.1.1"


class Statement:
    """Tables of the text that `router conformance` writes for this very node."""

    def __init__(self, text: str) -> None:
        self.text = text

    def rows(self, heading: str) -> list[list[str]]:
        """Cells of the last table whose first column has this heading: what is proposed stands before what is accepted."""
        found = re.findall(rf"^\| {re.escape(heading)} \|.*\n\| ---.*\n((?:\|.*\n)+)", self.text, re.M)
        assert found, heading
        return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in found[-1].splitlines()]

    def part(self, heading: str) -> Statement:
        """What stands below a heading, up to the next one."""
        found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", self.text, re.M | re.S)
        assert found, heading
        return Statement(found[1])

    def policy(self, name: str) -> str:
        return next(value for policy, value in self.rows("Policy") if policy == name)

    def contains(self, text: str) -> bool:
        return text in self.text


class Archive:
    """An SCP by another implementation that takes whatever is proposed, and remembers who proposed what."""

    def __init__(self) -> None:
        self.port = free_port()
        self.requestors: list[Any] = []
        self.received: list[str] = []
        ae = AE(ae_title="ARCHIVE")
        for uid in (CR, DX, VERIFICATION):
            ae.add_supported_context(uid, [IMPLICIT, EXPLICIT, BASELINE])
        handlers = [
            (evt.EVT_ACCEPTED, lambda event: self.requestors.append(event.assoc.requestor)),
            (evt.EVT_C_ECHO, lambda event: 0),
            (evt.EVT_C_STORE, self._store),
        ]
        self.server = ae.start_server((HOST, self.port), block=False, evt_handlers=handlers)

    def _store(self, event: Any) -> int:
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        return 0


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    archive = Archive()
    yield archive
    archive.server.shutdown()


@pytest.fixture(scope="module", params=["fast", "pynetdicom"])
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, archive: Archive
) -> Iterator[RouterProcess]:
    folder = tmp_path_factory.mktemp("conformance")
    files = f'\n[destinations.files]\ntype = "folder"\npath = "{folder / "files"}"\n'
    tables = (files, destination("archive", "ARCHIVE", archive.port))
    wire = _NODE.format(wire=request.param)
    with RouterProcess(folder, *tables, rules=[_RULE, _TO_ARCHIVE], classifier="", node=wire) as node:
        yield node


@pytest.fixture(scope="module")
def stated(node: RouterProcess) -> Statement:
    done = CliRunner().invoke(cli, ["conformance", "--config", str(node.config)], catch_exceptions=False)
    assert done.exit_code == 0
    return Statement(done.stdout)


@pytest.fixture
def ask(node: RouterProcess) -> Iterator[Callable[..., Association]]:
    """ask(contexts, ext_neg): an association, released after the test."""
    opened: list[Association] = []

    def associate(contexts: Sequence[Any], *ext_neg: Any) -> Association:
        ae = AE(ae_title="PROBE")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
        association = ae.associate(HOST, node.port, contexts, ae_title="ROUTER", ext_neg=list(ext_neg))
        opened.append(association)
        assert association.is_established
        return association

    yield associate
    for association in opened:
        association.release()


def every_class() -> list[str]:
    """What pynetdicom knows, what PS3.6 has, a private one and one that nobody has heard of."""
    known = {str(uid) for uid in vars(sop_class).values() if isinstance(uid, sop_class.SOPClass)}
    known |= {uid for uid, (_, kind, *_) in UID_dictionary.items() if "SOP Class" in kind}
    assert len(known) > 300
    return sorted(known | {PRIVATE, UNKNOWN})


def test_exactly_the_listed_sop_classes_are_accepted(stated: Statement, ask: Callable[..., Association]) -> None:
    accepted = set()
    proposed = every_class()
    for start in range(0, len(proposed), 128):
        association = ask([build_context(uid, EXPLICIT) for uid in proposed[start : start + 128]])
        accepted |= {str(cx.abstract_syntax) for cx in association.accepted_contexts}
        association.release()
    services = {row[1] for row in stated.part("Verification and workflow management").rows("SOP class")}
    listed = {row[1] for row in stated.part("Storage").rows("SOP class")}
    assert stated.contains("Private SOP classes and those that PS3.6 does not have are taken")
    # pynetdicom knows some that are newer than the PS3.6 that the statement names.
    unheard_of = {uid for uid in proposed if uid not in UID_dictionary}
    assert {PRIVATE, UNKNOWN} <= unheard_of
    assert accepted == listed | services | unheard_of


def test_exactly_the_listed_transfer_syntaxes_are_accepted(stated: Statement, ask: Callable[..., Association]) -> None:
    every = [uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"] + [STRANGER]
    listed = {row[1] for row in stated.rows("Transfer syntax")}
    of_commitment = next(row[1] for row in stated.rows("Abstract syntax") if COMMITMENT in row[0] and "SCU" in row[2])
    for abstract_syntax, expected in ((CT, listed), (COMMITMENT, set(of_commitment.replace("`", "").split(", ")))):
        association = ask([build_context(abstract_syntax, uid) for uid in every])
        assert {str(cx.transfer_syntax[0]) for cx in association.accepted_contexts} == expected
        association.release()


def test_of_several_transfer_syntaxes_the_stated_one_is_chosen(ask: Callable[..., Association]) -> None:
    implicit, baseline = "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"
    contexts = [build_context(CT, [implicit, EXPLICIT]), build_context(CR, [baseline, EXPLICIT])]
    chosen = {str(cx.abstract_syntax): str(cx.transfer_syntax[0]) for cx in ask(contexts).accepted_contexts}
    assert chosen == {CT: EXPLICIT, CR: baseline}


def test_roles_window_lengths_and_names_are_as_listed(
    node: RouterProcess, stated: Statement, ask: Callable[..., Association]
) -> None:
    roles = []
    for uid in (CT, "1.2.840.10008.1.1", COMMITMENT):
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = uid, True, True
        roles.append(role)
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 99
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"anybody"
    identity.positive_response_requested = True
    contexts = [build_context(uid, EXPLICIT) for uid in (CT, "1.2.840.10008.1.1", COMMITMENT)]
    said = ask(contexts, *roles, window, identity).acceptor

    rows = [
        row
        for row in stated.part("Accepted presentation contexts").rows("Abstract syntax")
        if "role selection" in row[3]
    ]
    assert [row[0].split("`")[1] for row in rows] == list(map(str, said.role_selection))
    (granted,) = said.role_selection.values()
    assert (granted.scu_role, granted.scp_role) == (True, True)
    assert (
        stated.policy("Maximum length of a PDU that we receive, announced as acceptor")
        == f"{said.maximum_length} bytes"
    )
    assert stated.policy("Implementation Class UID") == said.implementation_class_uid
    assert stated.policy("Implementation Version Name") == said.implementation_version_name
    listed = re.match(r"up to (\d+) operations that the requestor invokes, (\d+)", stated.policy(_WINDOW))
    expected = (int(listed[1]), int(listed[2])) if listed else (1, 1)  # nothing said: one each (PS3.7 D.3.3.3)
    assert said.asynchronous_operations == expected
    assert said.user_identity is None


_WINDOW = "Asynchronous operations window, as acceptor"


class From(RawPeer):
    """A peer at one of the addresses that this machine has."""

    def __init__(self, port: int, source: str) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=60, source_address=(source, 0))
        self._deadline_s = 60.0

    def at_work(self) -> From:
        """In the middle of a C-STORE, so that nobody takes it for idle."""
        self.associated(context(1, CR, EXPLICIT))
        self.send(p_data(pdv(1, 3, store_command("1.2.3", sop_class=CR)), pdv(1, 0, b"\x08\x00")))
        return self


def test_what_is_proposed_to_a_destination_is_as_listed(
    node: RouterProcess, stated: Statement, archive: Archive
) -> None:
    archive.requestors.clear()
    with RawPeer(node.port) as peer:
        peer.associated(context(1, CR, EXPLICIT), context(3, DX, BASELINE))
        for number, (context_id, sop_class) in enumerate({1: CR, 3: DX}.items()):
            uid = f"1.2.3.{node.port}.{number}"
            header = {**HEADER, "Modality": b"OT", "SOPClassUID": sop_class.encode(), "SOPInstanceUID": uid.encode()}
            peer.send(store(uid, encoded(header), context_id=context_id, sop_class=sop_class))
            assert peer.status() == 0
            wait_until(lambda uid=uid: uid in archive.received, 60)
    assert CliRunner().invoke(cli, ["echo", "archive", "--config", str(node.config)]).exit_code == 0

    own, decompressed, verification, *_ = stated.part("Proposed presentation contexts").rows("Abstract syntax")
    assert own == [
        "SOP class of each instance to be sent",
        "the one in which the instance came, alone in its context",
        "SCU",
        "none",
    ]
    assert decompressed[1].replace("`", "") == f"{EXPLICIT}, in a further context of a compressed instance"
    assert verification == [f"Verification `{VERIFICATION}", IMPLICIT, "SCU", "none"]
    proposed = [
        (str(cx.abstract_syntax), tuple(map(str, cx.transfer_syntax)))
        for one in archive.requestors
        for cx in one.requested_contexts
    ]
    assert set(proposed) == {
        (CR, (EXPLICIT,)),
        (DX, (BASELINE,)),
        (DX, (EXPLICIT,)),
        (VERIFICATION, (IMPLICIT,)),
    }
    length = re.search(r"We receive PDUs of up to (\d+) bytes as requestor", stated.text)
    asked = re.search(
        r"at most (\d+) invoked, (\d+) performed", stated.policy("Asynchronous operations window, as requestor")
    )
    assert length
    assert asked
    for one in archive.requestors:
        assert one.maximum_length == int(length[1])
        assert (one.ae_title, one.role_selection, one.user_identity) == ("ROUTER", {}, None)
        assert one.implementation_class_uid == stated.policy("Implementation Class UID")
    assert {one.asynchronous_operations for one in archive.requestors} <= {(int(asked[1]), int(asked[2])), (1, 1)}
    assert (int(asked[1]), int(asked[2])) in [one.asynchronous_operations for one in archive.requestors]


def nested(depth: int) -> bytes:
    """An item within an item within …: sequences of undefined length."""
    data = b""
    for _ in range(depth):
        item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + data + b"\xfe\xff\x0d\xe0\0\0\0\0"
        data = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return data


def rejection(peer: RawPeer, **facts: Any) -> list[str]:
    """Result, source and reason, as the statement's table has them."""
    with peer:
        peer.send(associate(context(1, CR, EXPLICIT), **facts))
        kind, body = peer.pdu()
    assert kind == RJ
    return [str(byte) for byte in body[1:]]


def test_limits_are_the_listed_ones_and_rejections_have_the_listed_reasons(
    node: RouterProcess, stated: Statement
) -> None:
    listed = {row[0]: row[1:] for row in stated.rows("Rejected when")}
    full = listed["node.associations_max or node.associations_per_peer_max is reached"]
    at_once = int(stated.policy("Associations accepted at one time"))
    of_one = int(stated.policy("Associations accepted at one time from one address"))
    assert rejection(RawPeer(node.port), called=b"NOBODY") == listed["called AE title is not ROUTER (node.ae_title)"]
    assert rejection(RawPeer(node.port), application="1.2.3") == listed["application context name not supported"]
    assert rejection(RawPeer(node.port), version=2) == listed["protocol version not supported"]
    working = [From(node.port, "127.0.0.1").at_work() for _ in range(of_one)]
    try:
        assert rejection(From(node.port, "127.0.0.1")) == full, "no more from this address"
        working += [From(node.port, "127.0.0.2").at_work() for _ in range(at_once - of_one)]
        assert rejection(From(node.port, "127.0.0.3")) == full, "no more at all"
    finally:
        for peer in working:
            peer.socket.close()


def test_c_store_is_answered_by_the_listed_statuses(node: RouterProcess, stated: Statement) -> None:
    listed = {int(row[0], 16) for row in stated.rows("Status of C-STORE")}
    uid = HEADER["SOPInstanceUID"].decode()
    good = encoded(HEADER)
    big = encoded({**HEADER, "PixelData": ("OW", bytes(DATASET_BYTE_COUNT_MAX))})
    limits = re.search(r"Data sets up to (\d+) bytes, nested up to (\d+) deep", stated.text)
    assert limits
    assert int(limits[1]) == DATASET_BYTE_COUNT_MAX
    depth = int(limits[2])
    deep = {count: encoded({**HEADER, "SOPInstanceUID": uid.encode()}) + nested(count) for count in (depth, depth + 1)}
    with RawPeer(node.port) as peer:
        peer.associated(context(1, CR, EXPLICIT))
        said = {}
        for name, sop_instance_uid, data in (
            ("taken", uid, good),
            ("again", uid, good),
            ("too large", uid, big),
            ("another instance", "1.2.3", good),
            ("no data set", uid, b"no DICOM at all"),
            ("no rule", uid, encoded({**HEADER, "Modality": b"MR"})),
            ("as deep as may be", uid, deep[depth]),
            ("deeper", uid, deep[depth + 1]),
        ):
            peer.send(store(sop_instance_uid, data, sop_class=CR))
            said[name] = peer.status()
    assert said == {
        "taken": 0x0000,
        "again": 0x0000,
        "too large": 0xA700,
        "another instance": 0xA900,
        "no data set": 0xC000,
        "no rule": 0x0122,
        "as deep as may be": 0x0000,
        "deeper": 0xC000,
    }
    assert set(said.values()) | {0x0110} == listed, "0x0110 is a programming error of ours, which nobody can ask for"
