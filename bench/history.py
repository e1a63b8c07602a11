"""A ledger as a node has it after years: written in bulk, past the node, into the ledger's own tables.

A cycle is 40 studies of two chest radiographs, one of which was classified and reported, and one study of 180 slices: 300
instances. Now and then a delivery has failed, and an instance came with another one's UID. Everything else was delivered and
its bytes were freed.
"""

from __future__ import annotations

import io
import itertools
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select

from router.classify.phantom import phantom_dicom
from router.core.findings import (
    ClassifierIdentity,
    Finding,
    NotAnalysed,
    Prediction,
    outcome_from_json,
    outcome_to_json,
)
from router.core.instance import InstanceKind
from router.core.lifecycle import TaskKind, TaskState
from router.ledger.engine import open_engines
from router.ledger.schema import METADATA, catalogue, computation, event, instance, outcome, tally, task
from router.ledger.store import SqlLedger
from router.spool.files import FileSpool
from tests.ledger import made

CYCLE = 300
_CHEST_STUDIES, _SLICES, _ROOMS = 40, 180, 8
#: Between two instances: a million are three years.
_STEP_US = 94_000_000
_DAY_US = 86_400_000_000
_ROWS_MAX = 20_000
_ROOT = "1.2.826.0.1.3680043.10.1338.7"
_CR, _CT, _SR = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.34"
_REASONS = (
    "SINK answered 0x0124: that we are not authorised",
    "SINK does not take CR Image Storage in any transfer syntax",
    "SINK answered 0xA900: that the data set is not of the SOP class",
)
#: Column -> value, always in the same order.
_Values = dict[str, Any]
#: One chest study in so many has a delivery that failed; one in so many came a second time with other bytes.
_FAILED_EVERY, _CONFLICT_EVERY = 250, 2500


@dataclass(frozen=True, slots=True)
class Study:
    """What somebody may know of a study, and where it stands in the ledger."""

    number: int
    ae_title: str
    first_id: int
    """Of its first image."""

    @property
    def uid(self) -> str:
        """Study Instance UID."""
        return f"{_ROOT}.1.{self.number}"

    @property
    def patient_id(self) -> str:
        """One in three patients came twice."""
        return f"P{self.number - self.number % 3 // 2:09d}"

    @property
    def accession_number(self) -> str:
        """One each."""
        return f"A{self.number:010d}"

    @property
    def image_uid(self) -> str:
        """Of its first image."""
        return f"{_ROOT}.2.{self.first_id}"


def studies(count: int) -> Iterator[Study]:
    """Those that `fill` writes, in order."""
    number = first_id = 1
    for cycle in range(count // CYCLE):
        for chest in range(_CHEST_STUDIES):
            yield Study(number, f"CR_ROOM{chest % _ROOMS}", first_id)
            number, first_id = number + 1, first_id + 3
        yield Study(number, f"CT{cycle % 2}", first_id)
        number, first_id = number + 1, first_id + _SLICES


def is_chest(study: Study) -> bool:
    """Else it is one of slices."""
    return study.ae_title.startswith("CR")


def fill(url: str, spool: Path, count: int) -> None:
    """Makes the ledger at `url` and writes `count` instances (whole cycles); bytes that are still owed lie in `spool`."""
    SqlLedger(url).close()
    indexes = [index for table in METADATA.sorted_tables for index in table.indexes]
    with (
        closing(FileSpool(spool)) as files,
        closing(open_engines(url)) as engines,
        engines.write.begin() as connection,
    ):
        for index in indexes:
            index.drop(connection)
        _Writer(connection, files, count, sqlite=engines.sqlite).write()
        for index in indexes:
            index.create(connection)
        if not engines.sqlite:
            _number_on(connection)
            connection.exec_driver_sql("ANALYZE")  # as PostgreSQL does by itself, after a while


class _Writer:
    """Gathers rows and writes them in bulk."""

    def __init__(self, connection: Connection, files: FileSpool, count: int, *, sqlite: bool) -> None:
        self._count = count
        self._files = files
        self._put: Callable[[Table, Sequence[_Values]], None] = _insert(connection) if sqlite else _copy(connection)
        self._begun_us = int(time.time() * 1e6) - count * _STEP_US - 2 * _DAY_US
        self._rows: dict[Table, list[_Values]] = {
            t: [] for t in (instance, catalogue, task, outcome, tally, computation, event)
        }
        self._task_id = 0
        self._to_be_freed: deque[tuple[int, int, int]] = deque()
        """When, its original, itself."""

    def write(self) -> None:
        self._tallies()
        for study in studies(self._count):
            self._catalogue(study)
            if is_chest(study):
                self._chest(study)
            else:
                for slice_id in range(study.first_id, study.first_id + _SLICES):
                    self._original(study, slice_id, _CT, slice_id - study.first_id + 1)
                    self._task(slice_id, slice_id, TaskKind.DELIVER, "sink")
            if len(self._rows[event]) >= _ROWS_MAX:
                self._flush()
        self._flush()

    def _flush(self) -> None:
        for table, rows in self._rows.items():
            if rows:
                self._put(table, rows)
                rows.clear()

    def _at(self, instance_id: int) -> int:
        return self._begun_us + instance_id * _STEP_US

    def _catalogue(self, study: Study) -> None:
        self._rows[catalogue].append(
            {
                "catalogue_id": study.number,
                "study_instance_uid": study.uid,
                "patient_id": study.patient_id,
                "accession_number": study.accession_number,
                "calling_ae_title": study.ae_title,
                "first_at": self._at(study.first_id),
            }
        )

    def _tallies(self) -> None:
        """As the ledger would have counted: a row for each day, calling AE title and classifier; copies of one of its own."""
        counted, computed = _counted()
        self._rows[computation] += computed
        days = range(self._begun_us // _DAY_US, self._at(self._count) // _DAY_US + 1)
        for day, room, row in itertools.product(days, range(_ROOMS), counted):
            self._rows[tally].append({**row, "day": day, "calling_ae_title": f"CR_ROOM{room}"})

    def _chest(self, study: Study) -> None:
        frontal, lateral, report = study.first_id, study.first_id + 1, study.first_id + 2
        fails = study.number % _FAILED_EVERY == 0
        twice = study.number % _CONFLICT_EVERY == 1
        self._original(study, frontal, _CR, 1, held=fails)
        self._original(study, lateral, _CR, 2, same_as=frontal if twice else None)
        for image, code, told in ((frontal, "analysed", _prediction()), (lateral, "view", _refusal())):
            self._task(image, image, TaskKind.DELIVER, "sink", failed=fails and image == frontal)
            self._task(
                image, image, TaskKind.CLASSIFY, "cxr", what="analysed" if code == "analysed" else "not_analysed"
            )
            self._rows[outcome].append(
                {"instance_id": image, "classifier": "cxr", "at": self._at(image), "code": code, "outcome": told}
            )
        self._instance(study, report, InstanceKind.SR, _SR, root_id=frontal, header=_header(study, "SR", 1))
        self._event(frontal, report, "made", TaskKind.CLASSIFY, "cxr", "by cxr")
        self._task(report, frontal, TaskKind.DELIVER, "sink")

    def _original(
        self,
        study: Study,
        instance_id: int,
        sop_class: str,
        number: int,
        *,
        held: bool = False,
        same_as: int | None = None,
    ) -> None:
        header = _header(study, "CT" if sop_class == _CT else "CR", number)
        uid = f"{_ROOT}.2.{same_as}" if same_as is not None else ""
        self._instance(study, instance_id, InstanceKind.ORIGINAL, sop_class, header=header, held=held, uid=uid)
        self._event(
            instance_id, instance_id, "conflict" if uid else "received", detail=f"from {study.ae_title} at 10.1.2.3"
        )

    def _instance(
        self,
        study: Study,
        instance_id: int,
        kind: InstanceKind,
        sop_class: str,
        *,
        header: str,
        root_id: int | None = None,
        held: bool = False,
        uid: str = "",
    ) -> None:
        at = self._at(instance_id)
        key = self._files.put(_bytes()) if held else f"{at // 1000:012x}{instance_id:016x}"
        freed_at = None if held else at + _DAY_US
        self._rows[instance].append(
            {
                "instance_id": instance_id,
                "root_id": root_id,
                "kind": kind.value,
                "sop_instance_uid": uid or f"{_ROOT}.2.{instance_id}",
                "sop_class_uid": sop_class,
                "study_instance_uid": study.uid,
                "series_instance_uid": f"{_ROOT}.3.{study.number}.{sop_class[-2:]}",
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "digest": f"{instance_id:064x}",
                "byte_count": 7_200_000,
                "spool_key": key,
                "received_at": at,
                "calling_ae_title": study.ae_title,
                "called_ae_title": "ROUTER",
                "peer_host": "10.1.2.3",
                "made_by_router": kind is not InstanceKind.ORIGINAL,
                "header": header,
                "rules": '["chest radiographs", "everything"]',
                "notes": "[]",
                "conflict": bool(uid),
                "bytes_freed_at": freed_at,
            }
        )
        if freed_at is not None:
            self._to_be_freed.append((freed_at, root_id or instance_id, instance_id))

    def _task(
        self,
        instance_id: int,
        root_id: int,
        kind: TaskKind,
        target: str,
        *,
        what: str = "delivered",
        failed: bool = False,
    ) -> None:
        self._task_id += 1
        at = self._at(root_id)
        error = _REASONS[root_id % 3] if failed else ""
        state = TaskState.FAILED if failed else TaskState.DONE
        self._rows[task].append(
            {
                "task_id": self._task_id,
                "kind": kind.value,
                "target": target,
                "instance_id": instance_id,
                "root_id": root_id,
                "options": "{}",
                "state": state.value,
                "created_at": at,
                "attempts": 1,
                "settled_at": at + 400_000,
                "error": error,
            }
        )
        self._event(root_id, instance_id, "failed" if failed else what, kind, target, error, at=at + 400_000)

    def _event(
        self,
        root_id: int,
        instance_id: int,
        what: str,
        kind: str = "",
        target: str = "",
        detail: str = "",
        *,
        at: int | None = None,
    ) -> None:
        at = at if at is not None else self._at(root_id)
        while (
            self._to_be_freed and self._to_be_freed[0][0] < at
        ):  # events are numbered in the order in which they happen
            freed_at, root_of_freed, freed_id = self._to_be_freed.popleft()
            self._happened(root_of_freed, freed_id, freed_at, "freed")
        self._happened(root_id, instance_id, at, what, kind, target, detail)

    def _happened(
        self, root_id: int, instance_id: int, at: int, what: str, kind: str = "", target: str = "", detail: str = ""
    ) -> None:
        self._rows[event].append(
            {
                "root_id": root_id,
                "instance_id": instance_id,
                "at": at,
                "what": what,
                "kind": str(kind),
                "target": target,
                "attempt": int(bool(kind)),
                "detail": detail,
            }
        )


def _insert(connection: Connection) -> Callable[[Table, Sequence[_Values]], None]:
    def put(table: Table, rows: Sequence[_Values]) -> None:
        names = ", ".join(rows[0])
        places = ", ".join("?" * len(rows[0]))
        values = [tuple(row.values()) for row in rows]
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}) VALUES ({places})", values)

    return put


def _copy(connection: Connection) -> Callable[[Table, Sequence[_Values]], None]:
    driver: Any = connection.connection.driver_connection

    def put(table: Table, rows: Sequence[_Values]) -> None:
        names = ", ".join(rows[0])
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(tuple(row.values()))

    return put


def _number_on(connection: Connection) -> None:
    for table, key in ((instance, "instance_id"), (catalogue, "catalogue_id"), (task, "task_id")):
        sequence = f"pg_get_serial_sequence('{table.name}', '{key}')"
        connection.exec_driver_sql(f"SELECT setval({sequence}, (SELECT max({key}) FROM {table.name}))")


def _header(study: Study, modality: str, number: int) -> str:
    return json.dumps(
        {
            "SpecificCharacterSet": "ISO_IR 100",
            "ImageType": "ORIGINAL\\PRIMARY",
            "Modality": modality,
            "Manufacturer": "drawn",
            "InstitutionName": "bench",
            "StudyDescription": "Thorax",
            "SeriesDescription": "p.a. and lateral",
            "BodyPartExamined": "CHEST",
            "PatientID": study.patient_id,
            "AccessionNumber": study.accession_number,
            "StudyDate": "20260101",
            "SeriesNumber": "1",
            "InstanceNumber": str(number),
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": "2000",
            "Columns": "1800",
            "BitsAllocated": "16",
            "BitsStored": "12",
        }
    )


@cache
def _counted() -> tuple[list[_Values], list[_Values]]:
    """Rows of `tally` and of `computation` that a ledger writes for an image with findings and for one without."""
    with tempfile.TemporaryDirectory() as folder, closing(SqlLedger(f"sqlite:///{folder}/ledger.db")) as ledger:
        for number, told in enumerate((_prediction(), _refusal())):
            ledger.accept(made.instance(f"1.{number}"), made.plan(classify=("cxr",)))
            (looked_at,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
            ledger.complete(looked_at, outcome=outcome_from_json(json.loads(told)))
        with closing(open_engines(f"sqlite:///{folder}/ledger.db")) as engines, engines.read.connect() as connection:
            rows = [connection.execute(select(table)).mappings().all() for table in (tally, computation)]
    for_copies = [{key: _text(value) for key, value in row.items() if key != "tally_id"} for row in rows[0]]
    return for_copies, [{key: _text(value) for key, value in row.items()} for row in rows[1]]


def _text(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value


@cache
def _prediction() -> str:
    identity = ClassifierIdentity(
        name="cxr",
        algorithm="densenet121-res224-all",
        version="bench",
        manufacturer="bench",
        weights_sha256="ab" * 32,
        parameters={"preprocessing": "1"},
    )
    findings = [Finding(label=f"Finding_{n}", score=n / 18, raw=n / 20, threshold=0.5) for n in range(18)]
    return json.dumps(outcome_to_json(Prediction(classifier=identity, findings=tuple(findings))))


@cache
def _refusal() -> str:
    return json.dumps(outcome_to_json(NotAnalysed(code="view", reason="a lateral view")))


@cache
def _bytes() -> bytes:
    buffer = io.BytesIO()
    phantom_dicom(1, rows=64, columns=64).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
