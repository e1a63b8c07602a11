"""SopInstance and Task <-> rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Row

from router.core.commitment import CommitmentRequest, Reference
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import TaskKind
from router.core.ports import ReportTask, Task
from router.ledger.instants import from_us, to_us

#: Of table `instance`, what a SopInstance has.
INSTANCE_COLUMNS = tuple(field.name for field in fields(SopInstance))


def instance_values(instance: SopInstance) -> dict[str, Any]:
    """Column -> value, without what only the ledger knows."""
    return {
        "kind": instance.kind.value,
        "sop_instance_uid": instance.sop_instance_uid,
        "sop_class_uid": instance.sop_class_uid,
        "study_instance_uid": instance.study_instance_uid,
        "series_instance_uid": instance.series_instance_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "digest": instance.digest,
        "byte_count": instance.byte_count,
        "spool_key": instance.spool_key,
        "received_at": to_us(instance.received_at),
        "calling_ae_title": instance.calling_ae_title,
        "called_ae_title": instance.called_ae_title,
        "peer_host": instance.peer_host,
        "made_by_router": instance.made_by_router,
        "header": dict(instance.header),
    }


def instance_of(row: Row[Any]) -> SopInstance:
    """The instance in a row that has the columns of table `instance`."""
    return SopInstance(
        kind=InstanceKind(row.kind),
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        digest=row.digest,
        byte_count=row.byte_count,
        spool_key=row.spool_key,
        received_at=from_us(row.received_at),
        calling_ae_title=row.calling_ae_title,
        called_ae_title=row.called_ae_title,
        peer_host=row.peer_host,
        made_by_router=row.made_by_router,
        header=row.header,
    )


def driver_instance_of(row: Sequence[Any]) -> SopInstance:
    """The instance in a row of the driver with INSTANCE_COLUMNS."""
    given = dict(zip(INSTANCE_COLUMNS, row, strict=True))
    given["kind"] = InstanceKind(given["kind"])
    given["received_at"] = from_us(given["received_at"])
    given["made_by_router"] = bool(given["made_by_router"])
    given["header"] = object_of(given["header"])
    return SopInstance(**given)


def task_of(row: Sequence[Any]) -> Task:
    """The task in a row of the driver: six columns of table `task`, and those of INSTANCE_COLUMNS."""
    task_id, kind, target, attempts, lease, options, *values = row
    return Task(
        task_id=task_id,
        kind=TaskKind(kind),
        target=target,
        attempts=attempts,
        lease=lease,
        instance=driver_instance_of(values),
        options=object_of(options),
    )


def object_of(value: Any) -> dict[str, Any]:
    """JSON as the driver has it: SQLite's gives the text."""
    found: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    return found


def report_task_of(row: Row[Any]) -> ReportTask:
    """The task in a row of table `task` joined with the request that it is about."""
    return ReportTask(
        task_id=row.task_id,
        kind=TaskKind(row.task_kind),
        target=row.target,
        attempts=row.attempts,
        lease=row.lease,
        options=row.options,
        request=CommitmentRequest(
            transaction_uid=row.transaction_uid,
            references=tuple(Reference(*pair) for pair in row.instances),
            calling_ae_title=row.calling_ae_title,
            called_ae_title=row.called_ae_title,
            peer_host=row.peer_host,
            requested_at=from_us(row.requested_at),
            duplicate=row.duplicate,
        ),
    )
