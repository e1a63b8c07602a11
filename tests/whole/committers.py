"""Both ends of storage commitment, made of pynetdicom: a modality that asks us, an archive that we ask."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, StoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from router.ledger.store import SqlLedger
from tests.peers import HOST, free_port
from tests.samples import pydicom_file
from tests.whole.router_process import RouterProcess

PUSH = StorageCommitmentPushModel
WELL_KNOWN = "1.2.840.10008.1.20.1.1"
DEADLINE_S = 30.0


@dataclass
class Report:
    """An N-EVENT-REPORT as the modality got it."""

    event_type: int
    transaction_uid: str
    committed: list[str]
    failed: dict[str, int]


class Modality:
    """A requestor of storage commitment that hears reports on its own association or on a port of its own."""

    ae_title = "CR_ROOM1"

    def __init__(self, node: RouterProcess) -> None:
        self.node = node
        self.reports: queue.Queue[Report] = queue.Queue()
        self._unanswered: list[Report] = []
        self.roles: list[tuple[bool, bool]] = []
        self.port = free_port()

    def _heard(self, event: Any) -> tuple[int, None]:
        info: Dataset = event.event_information
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in info.get("FailedSOPSequence", ())
        }
        committed = [str(item.ReferencedSOPInstanceUID) for item in info.get("ReferencedSOPSequence", ())]
        self._unanswered.append(Report(event.event_type, str(info.TransactionUID), committed, failed))
        return 0x0000, None

    def _sent(self, _event: Any) -> None:
        """Something went out: with it the answer to what was heard. A test that knew of it earlier would release the
        association before, and pynetdicom breaks down over that.
        """
        while self._unanswered:
            self.reports.put(self._unanswered.pop(0))

    @property
    def _handlers(self) -> list[Any]:
        return [(evt.EVT_N_EVENT_REPORT, self._heard), (evt.EVT_DATA_SENT, self._sent)]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes associations on its port, as Annex J wants: as SCU of the service, told so by role selection."""
        ae = AE(ae_title=self.ae_title)
        ae.add_supported_context(PUSH, scu_role=True, scp_role=True)

        def negotiated(event: Any) -> None:
            for role in event.assoc.requestor.role_selection.values():
                self.roles.append((role.scu_role, role.scp_role))

        handlers = [*self._handlers, (evt.EVT_ACCEPTED, negotiated)]
        server = ae.start_server((HOST, self.port), block=False, evt_handlers=handlers)
        try:
            yield
        finally:
            server.shutdown()

    @contextmanager
    def association(self) -> Iterator[Any]:
        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(PUSH)
        assoc = ae.associate(HOST, self.node.port, ae_title="ROUTER", evt_handlers=self._handlers)
        assert assoc.is_established
        try:
            yield assoc
        finally:
            if assoc.is_established:
                assoc.release()

    def ask(self, assoc: Any, references: Sequence[tuple[str, str]], **changes: Any) -> tuple[int, str]:
        """Status of the N-ACTION and the Transaction UID."""
        info = Dataset()
        info.TransactionUID = changes.get("transaction_uid") or generate_uid()
        info.ReferencedSOPSequence = []
        for sop_class_uid, sop_instance_uid in references:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
            info.ReferencedSOPSequence.append(item)
        if "without" in changes:
            delattr(info, changes["without"])
        status, _ = assoc.send_n_action(info, changes.get("action", 1), PUSH, changes.get("instance", WELL_KNOWN))
        return int(status.Status), str(info.get("TransactionUID", ""))

    def next_report(self, deadline_s: float = DEADLINE_S) -> Report:
        return self.reports.get(timeout=deadline_s)


class Archive:
    """A destination that stores everything and answers requests for commitment as a test says."""

    ae_title = "ARCHIVE"

    def __init__(self) -> None:
        self.port = free_port()
        self.asked: queue.Queue[tuple[str, list[tuple[str, str]]]] = queue.Queue()
        self.status = 0x0000
        self.same_association: Any = None
        self.stored: list[str] = []

    @contextmanager
    def listening(self, *, offers: bool = True) -> Iterator[None]:
        ae = AE(ae_title=self.ae_title)
        ae.supported_contexts = StoragePresentationContexts[:120]
        if offers:
            ae.add_supported_context(PUSH)

        def store(event: Any) -> int:
            self.stored.append(str(event.request.AffectedSOPInstanceUID))
            return 0

        def act(event: Any) -> tuple[int, None]:
            info = event.action_information
            references = [
                (str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in info.ReferencedSOPSequence
            ]
            self.asked.put((str(info.TransactionUID), references))
            if self.same_association is not None:
                report = self.report(str(info.TransactionUID), references)
                threading.Timer(0.2, lambda: self.same_association(event.assoc, report)).start()
            return self.status, None

        server = ae.start_server(
            (HOST, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_N_ACTION, act)]
        )
        try:
            yield
        finally:
            server.shutdown()

    @staticmethod
    def report(
        transaction_uid: str, committed: Sequence[tuple[str, str]], failed: Sequence[tuple[str, str, int]] = ()
    ) -> Dataset:
        info = Dataset()
        info.TransactionUID = transaction_uid
        for keyword, rows in (("ReferencedSOPSequence", committed), ("FailedSOPSequence", failed)):
            items = []
            for row in rows:
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = row[0], row[1]
                if len(row) > 2:
                    item.FailureReason = row[2]
                items.append(item)
            if items:
                setattr(info, keyword, items)
        return info

    def tell(self, node: RouterProcess, info: Dataset) -> int:
        """An N-EVENT-REPORT on an association of its own, with role selection; the status."""
        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(PUSH)
        assoc = ae.associate(HOST, node.port, ae_title="ROUTER", ext_neg=[build_role(PUSH, scp_role=True)])
        assert assoc.is_established
        event_type = 2 if "FailedSOPSequence" in info else 1
        status, _ = assoc.send_n_event_report(info, event_type, PUSH, WELL_KNOWN)
        assoc.release()
        return int(status.Status)


CT = pydicom_file("CT_small.dcm")
MR = pydicom_file("MR_small.dcm")
PEER = '\n[[peers]]\nae_title = "CR_ROOM1"\nport = {port}\n\n[[peers]]\nae_title = "DCMSEND"\n'


def reference(path: Path) -> tuple[str, str]:
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    return str(ds.SOPClassUID), str(ds.SOPInstanceUID)


def tasks(node: RouterProcess, path: Path) -> list[tuple[str, str]]:
    (status,) = node.statuses([reference(path)[1]])
    return [(task.kind.value, task.state.value) for task in status.tasks] if status else []


def trail(node: RouterProcess, path: Path) -> list[str]:
    ledger = SqlLedger(node.ledger_url)
    try:
        return [line.what for line in ledger.queries.trace(reference(path)[1])]
    finally:
        ledger.close()
