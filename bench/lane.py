"""A delivery lane as a node has it: instances that were received a moment ago, claimed, sent and settled in a ledger on disk."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from router.core.instance import SopInstance
from router.core.lifecycle import TaskKind
from router.core.retry import RetryPolicy
from router.core.rules import Plan
from router.deliver.dicom import DicomDestination
from router.deliver.fresh import FreshFiles
from router.deliver.sources import Source, find
from router.deliver.step import DeliverStep
from router.ledger.store import SqlLedger
from router.settings.tables import DestinationSettings, SpoolSettings
from router.spool.files import FileSpool
from router.work.clock import SystemClock
from router.work.worker import Lane, Worker
from tests.peers import HOST

_NAME = "pacs"


def stored(paths: Sequence[Path], port: int, ae_title: str, *, verify: bool = False) -> int:
    """Delivers them all; how many are delivered. `verify`: every SHA-256 is computed again."""
    settings = DestinationSettings(name=_NAME, type="dicom")
    clock, policy = SystemClock(), RetryPolicy()
    with tempfile.TemporaryDirectory(dir=paths[0].parent) as folder:
        fresh = FreshFiles(for_s=0 if verify else SpoolSettings().verify_after_s)
        spool = FileSpool(Path(folder) / "spool", committed=fresh.note)
        ledger = SqlLedger(f"sqlite:///{folder}/ledger.db")
        for path in paths:
            ledger.accept(_received(path, spool), Plan(rules=(), deliver=(_NAME,)))
        destination = DicomDestination(
            name=_NAME,
            settings=DicomDestination.Settings(ae_title=ae_title, host=HOST, port=port),
            node_ae_title="BENCH",
        )
        step = DeliverStep(
            name=_NAME,
            destination=destination,
            ledger=ledger,
            spool=spool,
            clock=clock,
            policy=policy,
            batch_max=settings.batch_max,
            received_as=fresh.mark,
        )
        lane = Lane(kind=TaskKind.DELIVER, target=_NAME, step=step, gate=step)
        workers = [
            threading.Thread(target=_work, args=(Worker(lane=lane, ledger=ledger, clock=clock, policy=policy),))
            for _ in range(settings.associations_max)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        destination.close()
        left = len(ledger.queries.owed(limit=len(paths))) + len(ledger.queries.failed())
        ledger.close()
        spool.close()
    return len(paths) - left


def _work(worker: Worker) -> None:
    while worker.run_once():
        pass


def _received(path: Path, spool: FileSpool) -> SopInstance:
    (source,) = [one for one in find([path]) if isinstance(one, Source)]
    data = path.read_bytes()
    data_set = data[source.data_set_offset :]
    return SopInstance(
        sop_instance_uid=source.sop_instance_uid,
        sop_class_uid=source.sop_class_uid,
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        transfer_syntax_uid=source.transfer_syntax_uid,
        digest=hashlib.sha256(data_set).hexdigest(),
        byte_count=len(data_set),
        spool_key=spool.put(data),
        received_at=datetime.now(UTC),
    )
