"""Deliveries of real files, and a Storage SCP that does what a test tells it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification

from router.core.instance import SopInstance
from router.core.ports import Delivered, Delivery, Destination
from router.deliver.dicom import DicomDestination
from router.spool.part10 import file_head
from tests.ledger.made import START
from tests.peers import HOST, free_port, wait_until
from tests.samples import dataset_bytes

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


def delivery(path: Path) -> Delivery:
    """Of a DICOM file as it lies there."""
    meta = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    data = dataset_bytes(path)
    return Delivery(
        path=path,
        instance=SopInstance(
            sop_instance_uid=str(meta.SOPInstanceUID),
            sop_class_uid=str(meta.SOPClassUID),
            study_instance_uid=str(meta.StudyInstanceUID),
            series_instance_uid=str(meta.SeriesInstanceUID),
            transfer_syntax_uid=str(meta.file_meta.TransferSyntaxUID),
            digest=hashlib.sha256(data).hexdigest(),
            byte_count=len(data),
            spool_key=path.name,
            received_at=START,
        ),
    )


def drawn(
    folder: Path,
    uid: str,
    *,
    sop_class_uid: str = CT,
    transfer_syntax_uid: str = EXPLICIT,
    byte_count: int = 100_000,
) -> Delivery:
    """Of a small instance made up for the purpose: UIDs, a patient ID, and noise as pixel data."""
    ds = pydicom.Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class_uid, uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4", "1.2.3.5"
    ds.PatientID, ds.Modality = "TEST", "CT"
    noise = hashlib.shake_128(uid.encode()).digest(byte_count)
    ds.add_new(0x7FE00010, "OW", noise)
    path = folder / f"{uid}.dcm"
    folder.mkdir(parents=True, exist_ok=True)
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, transfer_syntax_uid == IMPLICIT
    pydicom.filewriter.write_dataset(buffer, ds)
    head = file_head(sop_class_uid=sop_class_uid, sop_instance_uid=uid, transfer_syntax_uid=transfer_syntax_uid)
    path.write_bytes(head + buffer.getvalue())
    return delivery(path)


def send(destination: Destination, deliveries: Sequence[Delivery]) -> list[Delivered | Exception]:
    """The outcomes in order; each must have been settled exactly once."""
    outcomes: dict[int, Delivered | Exception] = {}

    def settled(index: int, outcome: Delivered | Exception) -> None:
        assert index not in outcomes, "settled twice"
        outcomes[index] = outcome

    destination.send(deliveries, settled)
    assert sorted(outcomes) == list(range(len(deliveries))), "not all settled"
    return [outcomes[index] for index in range(len(deliveries))]


class ScriptedScp:
    """A Storage SCP on pynetdicom: takes what it is told to take, and answers as it is told."""

    def __init__(self, contexts: Sequence[tuple[str, str]] = ((CT, EXPLICIT),), *, port: int | None = None) -> None:
        self.port = port or free_port()
        self.statuses: dict[str, int] = {}
        """SOP Instance UID -> what to answer instead of Success."""
        self.abort_at: set[str] = set()
        self.received: dict[str, bytes] = {}
        self.order: list[str] = []
        self.association_count = 0
        self.comment = ""
        self._lock = threading.Lock()
        self._stopped = False
        self._ae = AE(ae_title="SCRIPTED")
        self._ae.require_called_aet = True
        for sop_class_uid, transfer_syntax_uid in contexts:
            self._ae.add_supported_context(sop_class_uid, transfer_syntax_uid)
        self._ae.add_supported_context(Verification)
        self._server = self._ae.start_server(
            (HOST, self.port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._on_store), (evt.EVT_ACCEPTED, self._on_accepted)],
        )

    def require_calling(self, ae_title: str) -> None:
        self._ae.require_calling_aet = [ae_title]

    def _on_accepted(self, _: Event) -> None:
        with self._lock:
            self.association_count += 1

    def _on_store(self, event: Event) -> object:
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid in self.abort_at:
            event.assoc.abort()
            return 0xC000
        with self._lock:
            self.order.append(uid)
            status = self.statuses.get(uid, 0x0000)
            if status == 0x0000 or status >> 12 == 0xB:
                self.received[uid] = event.request.DataSet.getvalue()
        answer = pydicom.Dataset()
        answer.Status = status
        if self.comment:
            answer.ErrorComment = self.comment
        return answer

    def stop(self) -> None:
        """Ends its associations too. May be called twice."""
        if not self._stopped:
            self._stopped = True
            # pynetdicom's state machine raises in its thread when it is to abort what it has just rejected (Evt15 in Sta13).
            wait_until(lambda: not any(one.is_rejected for one in self._ae.active_associations), 10)
            self._ae.shutdown()


@contextmanager
def scripted_scp(**more: object) -> Iterator[ScriptedScp]:
    scp = ScriptedScp(**more)  # type: ignore[arg-type]
    try:
        yield scp
    finally:
        scp.stop()


def dicom_destination(port: int, ae_title: str = "SCRIPTED", **more: object) -> DicomDestination:
    settings = DicomDestination.Settings(
        ae_title=ae_title, host=HOST, port=port, **{"connect_timeout_s": 5, "response_timeout_s": 10, **more}
    )
    return DicomDestination(name="pacs", settings=settings, node_ae_title="ROUTER")
