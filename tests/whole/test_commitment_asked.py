"""Peers ask a real node for storage commitment: which answer they get, where, and whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE

from router.core.lifecycle import TaskKind, TaskState
from router.ledger.store import SqlLedger
from tests.peers import HOST, Orthanc, StoreScp, dcmsend, free_port, success_count, wait_until
from tests.whole.committers import (
    CT,
    DEADLINE_S,
    MR,
    PEER,
    PUSH,
    Modality,
    Report,
    reference,
    trail,
)
from tests.whole.router_process import EVERYTHING_RULE, RouterProcess, destination

pytestmark = pytest.mark.peer("orthanc", "dcmtk")


@pytest.fixture
def scp_node(tmp_path: Path, storescp: StoreScp) -> Iterator[RouterProcess]:
    """Delivers to a storescp; reports linger 0.3 s; CR_ROOM1 listens nowhere that the configuration knows."""
    with RouterProcess(
        tmp_path / "node",
        destination("pacs", storescp.ae_title, storescp.port),
        "\n[commitment]\nlinger_s = 0.3\n",
        rules=(EVERYTHING_RULE,),
    ) as node:
        yield node


def test_a_modality_that_keeps_its_association_open_hears_of_it_there(scp_node: RouterProcess) -> None:
    assert success_count(dcmsend(scp_node.port, CT)) == 1
    modality = Modality(scp_node)
    with modality.association() as assoc:
        status, transaction_uid = modality.ask(assoc, [reference(CT)])
        assert status == 0x0000
        report = modality.next_report()
    assert report == Report(1, transaction_uid, [reference(CT)[1]], {})
    wait_until(lambda: scp_node.events("commitment.reported"), DEADLINE_S)
    wait_until(lambda: "commitment_reported" in trail(scp_node, CT), DEADLINE_S)
    assert trail(scp_node, CT).count("commitment_asked") == 1


def test_what_the_router_never_had_is_event_type_2_with_its_reason(scp_node: RouterProcess) -> None:
    dcmsend(scp_node.port, CT, MR)
    sop_class_uid, uid = reference(CT)
    wrong_class = (sop_class_uid, reference(MR)[1])
    modality = Modality(scp_node)
    with modality.association() as assoc:
        modality.ask(assoc, [(sop_class_uid, uid), (sop_class_uid, "1.2.3.4.5"), wrong_class])
        report = modality.next_report()
    assert (report.event_type, report.committed) == (2, [uid])
    assert report.failed == {"1.2.3.4.5": 0x0112, wrong_class[1]: 0x0119}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action": 2}, 0x0123),
        ({"instance": "1.2.3"}, 0x0112),
        ({"without": "TransactionUID"}, 0x0115),
        ({"without": "ReferencedSOPSequence"}, 0x0115),
    ],
)
def test_a_request_that_breaks_the_rules_is_refused_and_the_association_lives_on(
    scp_node: RouterProcess, changes: dict[str, Any], status: int
) -> None:
    modality = Modality(scp_node)
    with modality.association() as assoc:
        assert modality.ask(assoc, [reference(CT)], **changes)[0] == status
        assert modality.ask(assoc, [reference(CT)])[0] == 0x0000


def test_the_same_request_again_is_answered_again_and_other_instances_under_its_uid_are_not_committed(
    scp_node: RouterProcess,
) -> None:
    dcmsend(scp_node.port, CT, MR)
    modality = Modality(scp_node)
    with modality.association() as assoc:
        _, uid = modality.ask(assoc, [reference(CT)])
        assert modality.next_report() == Report(1, uid, [reference(CT)[1]], {})
        assert modality.ask(assoc, [reference(CT)], transaction_uid=uid)[0] == 0x0000
        assert modality.next_report() == Report(1, uid, [reference(CT)[1]], {})
        assert modality.ask(assoc, [reference(MR)], transaction_uid=uid)[0] == 0x0000
        assert modality.next_report() == Report(2, uid, [], {reference(MR)[1]: 0x0131})


def test_a_modality_nobody_can_call_hears_when_it_asks_again(scp_node: RouterProcess) -> None:
    dcmsend(scp_node.port, CT, MR)
    modality = Modality(scp_node)
    with modality.association() as assoc:
        _, first_uid = modality.ask(assoc, [reference(CT)])
    wait_until(lambda: scp_node.events("commitment.not_reported"), DEADLINE_S)
    assert "give its [[peers]] entry a port" in scp_node.events("commitment.not_reported")[0]["reason"]
    assert "requestors" in scp_node.run("queue").stdout, "people see it"
    # Not in the moment in which it is tried again, when a worker has it: after the second try that is 5 s away and more.
    wait_until(lambda: len(scp_node.events("commitment.not_reported")) > 1, DEADLINE_S)
    with modality.association() as assoc:
        _, second_uid = modality.ask(assoc, [reference(MR)])
        heard = {modality.next_report().transaction_uid, modality.next_report().transaction_uid}
    assert heard == {first_uid, second_uid}


@contextmanager
def calling_node(tmp_path: Path, storescp: StoreScp, port: int, **commitment: Any) -> Iterator[RouterProcess]:
    """Knows where CR_ROOM1 listens."""
    settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in commitment.items())
    with RouterProcess(
        tmp_path / "node",
        destination("pacs", storescp.ae_title, storescp.port),
        f"\n[commitment]\n{settings}",
        PEER.format(port=port),
        rules=(EVERYTHING_RULE,),
    ) as node:
        yield node


def test_a_modality_that_hangs_up_is_called_with_the_roles_that_annex_j_wants(
    tmp_path: Path, storescp: StoreScp
) -> None:
    port = free_port()
    with calling_node(tmp_path, storescp, port, linger_s=0) as node:
        modality = Modality(node)
        modality.port = port
        dcmsend(node.port, CT)
        with modality.listening():
            with modality.association() as assoc:
                _, uid = modality.ask(assoc, [reference(CT)])
            assert modality.next_report() == Report(1, uid, [reference(CT)[1]], {})
        assert modality.roles == [(False, True)]


def test_a_modality_that_is_off_hears_when_it_is_on_again(tmp_path: Path, storescp: StoreScp) -> None:
    port = free_port()
    with calling_node(tmp_path, storescp, port, linger_s=0.1) as node:
        modality = Modality(node)
        modality.port = port
        dcmsend(node.port, CT)
        with modality.association() as assoc:
            _, uid = modality.ask(assoc, [reference(CT)])
        wait_until(lambda: node.events("commitment.not_reported"), DEADLINE_S)
        with modality.listening():
            assert modality.next_report(60) == Report(1, uid, [reference(CT)[1]], {})


def test_a_report_survives_the_kill_of_the_node_after_the_response(tmp_path: Path, storescp: StoreScp) -> None:
    port = free_port()
    with calling_node(tmp_path, storescp, port, linger_s=60) as node:
        modality = Modality(node)
        modality.port = port
        dcmsend(node.port, CT)
        with modality.association() as assoc:
            status, uid = modality.ask(assoc, [reference(CT)])
            assert status == 0x0000
            node.kill()  # while the report waits for its moment
        assert modality.reports.empty()
        with modality.listening():
            node.start()
            assert modality.next_report() == Report(1, uid, [reference(CT)[1]], {})


def test_when_delivered_the_report_waits_for_the_destination(tmp_path: Path, storescp: StoreScp) -> None:
    port = free_port()
    storescp.kill()
    with calling_node(tmp_path, storescp, port, linger_s=0.1, when="delivered") as node:
        modality = Modality(node)
        modality.port = port
        dcmsend(node.port, CT)
        with modality.listening():
            with modality.association() as assoc:
                _, uid = modality.ask(assoc, [reference(CT)])
            wait_until(lambda: _report_state(node) is TaskState.RETRY, DEADLINE_S)
            assert modality.reports.empty()
            storescp.start()
            assert modality.next_report(60) == Report(1, uid, [reference(CT)[1]], {})
            assert reference(CT)[1] in storescp.received()


def test_what_is_not_delivered_in_time_is_reported_as_failed(tmp_path: Path, storescp: StoreScp) -> None:
    port = free_port()
    storescp.kill()
    with calling_node(tmp_path, storescp, port, linger_s=0.1, when="delivered", give_up_s=2) as node:
        modality = Modality(node)
        modality.port = port
        dcmsend(node.port, CT)
        with modality.listening():
            with modality.association() as assoc:
                _, uid = modality.ask(assoc, [reference(CT)])
            assert modality.next_report() == Report(2, uid, [], {reference(CT)[1]: 0x0110})


def _report_state(node: RouterProcess) -> TaskState | None:
    ledger = SqlLedger(node.ledger_url)
    try:
        return next((task.state for task in ledger.queries.owed() if task.kind is TaskKind.REPORT), None)
    finally:
        ledger.close()


def test_a_node_that_does_not_offer_it_does_not_accept_its_context(tmp_path: Path, storescp: StoreScp) -> None:
    with calling_node(tmp_path, storescp, 1, enabled=False) as node:
        ae = AE(ae_title="CR_ROOM1")
        ae.add_requested_context(PUSH)
        assoc = ae.associate(HOST, node.port, ae_title="ROUTER")
        assert not assoc.accepted_contexts
        assoc.abort()


def test_orthanc_itself_asks_the_router_and_is_answered(tmp_path: Path, storescp: StoreScp) -> None:
    port = free_port()
    with Orthanc(folder=tmp_path / "orthanc", modalities={"router": ("ROUTER", port)}) as orthanc:
        tables = (
            destination("orthanc", orthanc.ae_title, orthanc.port),
            destination("pacs", storescp.ae_title, storescp.port),
        )
        with RouterProcess(tmp_path / "node", *tables, rules=(EVERYTHING_RULE,), port=port) as node:
            dcmsend(node.port, CT)
            body = {"DicomInstances": [list(reference(CT)), [reference(CT)[0], "1.2.3.4.5"]]}
            answer = orthanc.request("POST", "/modalities/router/storage-commitment", json.dumps(body).encode())
            place = json.loads(answer)["Path"]
            report = wait_until(lambda: (r := orthanc.get(place))["Status"] != "Pending" and r, DEADLINE_S)
            assert report["Status"] == "Failure"
            assert [one["SOPInstanceUID"] for one in report["Success"]] == [reference(CT)[1]]
            (failure,) = report["Failures"]
            assert failure["SOPInstanceUID"] == "1.2.3.4.5"
            assert failure["FailureReason"] == 0x0112
