"""What people search for: one row for each combination of study, patient ID, accession number and calling AE title that came.

Nearly always that is one row a study, so it stays small and quick however many instances there are, and a study that came
with two accession numbers is found by both. It is written once and not for every instance of a study.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from sqlalchemy.dialects import postgresql, sqlite

from router.core.instance import SopInstance
from router.ledger.instants import to_us
from router.ledger.schema import catalogue
from router.ledger.writer import Transaction

# Statements are made once: making one anew costs SQLAlchemy more than SQLite needs to run it.
_NEW = {
    dialect.__name__.rsplit(".", 1)[-1]: dialect.insert(catalogue).on_conflict_do_nothing(
        index_elements=["study_instance_uid", "patient_id", "accession_number", "calling_ae_title"]
    )
    for dialect in (postgresql, sqlite)
}
_KNOWN_MAX = 2000
#: A row that another process has removed is there again after this time, at the latest.
_KNOWN_S = 60.0

Key = tuple[str, str, str, str]


def key_of(instance: SopInstance) -> Key:
    """Study Instance UID, patient ID, accession number, calling AE title."""
    header = instance.header
    return (
        instance.study_instance_uid,
        header.get("PatientID", ""),
        header.get("AccessionNumber", ""),
        instance.calling_ae_title,
    )


class Catalogue:
    """Enters originals; remembers for a while what is there already."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Key, float] = OrderedDict()

    def enter(self, tx: Transaction, instance: SopInstance) -> None:
        """Inside the transaction of the receipt."""
        key = key_of(instance)
        with self._lock:
            known_s = self._known.get(key)
        if known_s is not None and time.monotonic() - known_s < _KNOWN_S:
            return
        names = ("study_instance_uid", "patient_id", "accession_number", "calling_ae_title")
        tx.connection.execute(
            _NEW[tx.connection.dialect.name],
            {**dict(zip(names, key, strict=True)), "first_at": to_us(instance.received_at)},
        )

    def committed(self, instance: SopInstance) -> None:
        """It is durable: not before that may it be taken for known."""
        key = key_of(instance)
        now_s = time.monotonic()
        with self._lock:
            known_s = self._known.get(key)
            if known_s is not None and now_s - known_s < _KNOWN_S:
                return
            self._known[key] = now_s
            self._known.move_to_end(key)
            while len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
