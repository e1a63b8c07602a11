"""A destination that writes down every arrival, also the same one twice, and can be slow, silent or in a bad mood."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Self

import pydicom
from pynetdicom import AE, evt

from tests.peers import HOST, free_port
from tests.whole.router_process import destination

_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # CR
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
)
_SYNTAX = "1.2.840.10008.1.2.1"
SR_CLASSES = frozenset(_CLASSES[1:])


@dataclass(frozen=True, slots=True)
class Arrival:
    """One C-STORE that was answered with Success."""

    uid: str
    sop_class_uid: str
    sha256: str
    at_s: float
    """Monotonic."""


class Recorder:
    """A Storage SCP by pynetdicom, in this process."""

    ae_title = "RECORDER"

    def __init__(self, *, port: int | None = None, delay_s: float = 0) -> None:
        self.port = port or free_port()
        self.delay_s = delay_s
        self.arrivals: list[Arrival] = []
        self.data_sets: dict[str, bytes] = {}
        """The last one of each UID."""
        self._lock = threading.Lock()
        self._server: Any = None

    def table(self, name: str = "pacs", **more: Any) -> str:
        """Its [destinations.NAME]."""
        return destination(name, self.ae_title, self.port, **more)

    def start(self) -> None:
        ae = AE(ae_title=self.ae_title)
        ae.maximum_associations = 100
        ae.maximum_pdu_size = 131072
        for sop_class in _CLASSES:
            ae.add_supported_context(sop_class, [_SYNTAX])
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server = ae.start_server((HOST, self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()

    def count(self) -> int:
        with self._lock:
            return len(self.arrivals)

    def objects(self) -> dict[str, set[str]]:
        """SOP Instance UID -> SHA-256 of every data set that came under it."""
        found: dict[str, set[str]] = {}
        with self._lock:
            for arrival in self.arrivals:
                found.setdefault(arrival.uid, set()).add(arrival.sha256)
        return found

    def reported(self) -> dict[str, set[str]]:
        """SOP Instance UID of an image -> those of the Structured Reports about it."""
        with self._lock:
            return references(data for data in self.data_sets.values())

    def again_count(self) -> int:
        """How many arrivals were not the first of their UID."""
        with self._lock:
            return sum(count - 1 for count in Counter(arrival.uid for arrival in self.arrivals).values())

    def _store(self, event: Any) -> int:
        if self.delay_s:
            time.sleep(self.delay_s)
        data = event.encoded_dataset(include_meta=False)
        uid = str(event.request.AffectedSOPInstanceUID)
        arrival = Arrival(
            uid, str(event.request.AffectedSOPClassUID), hashlib.sha256(data).hexdigest(), time.monotonic()
        )
        with self._lock:
            self.arrivals.append(arrival)
            self.data_sets[uid] = data
        return 0x0000

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def references(data_sets: Any) -> dict[str, set[str]]:
    """Image -> Structured Reports about it, of encoded data sets or whole files."""
    found: dict[str, set[str]] = {}
    for data in data_sets:
        ds = pydicom.dcmread(BytesIO(data), force=True, stop_before_pixels=True)
        if ds.get("SOPClassUID") not in SR_CLASSES:
            continue
        for study in ds.CurrentRequestedProcedureEvidenceSequence:
            for series in study.ReferencedSeriesSequence:
                for item in series.ReferencedSOPSequence:
                    found.setdefault(str(item.ReferencedSOPInstanceUID), set()).add(str(ds.SOPInstanceUID))
    return found


class BlackHole:
    """Accepts connections and never says a word."""

    ae_title = "BLACKHOLE"

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def table(self, name: str = "blackhole", **more: Any) -> str:
        """Its [destinations.NAME]."""
        return destination(name, self.ae_title, self.port, **more)

    def connection_count(self) -> int:
        return len(self._connections)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
