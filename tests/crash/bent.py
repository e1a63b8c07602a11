"""`router` with one thing changed: run as `python -m tests.crash.bent CHANGE serve --config F`.

A test of durability is worth something when it has been seen to fail, so each of these takes one step out of the node.
They are of no use to anybody else and therefore no settings of the product.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def no_file_sync() -> None:
    """The bytes of a spooled file are never synced."""
    from router.spool.durable import Disk

    Disk.sync = lambda self, fd: None  # type: ignore[method-assign]


def ledger_normal() -> None:
    """SQLite syncs its write-ahead log only at checkpoints, as Orthanc has it."""
    from router.ledger import engine

    before = engine._pragmas_of_writer

    def pragmas(connection: Any, record: object) -> None:
        before(connection, record)
        connection.execute("PRAGMA synchronous=NORMAL")

    engine._pragmas_of_writer = pragmas


def success_first() -> None:
    """Success is answered before the ledger's transaction."""
    import threading

    from router.core.ports import Receipt
    from router.ledger.store import SqlLedger

    accept = SqlLedger.accept

    def later(self: SqlLedger, *arguments: Any) -> Receipt:
        threading.Timer(0.05, accept, (self, *arguments)).start()
        return Receipt.NEW

    SqlLedger.accept = later  # type: ignore[method-assign]


def settled_first() -> None:
    """A delivery is settled before it is sent."""
    from router.core.ports import Delivered
    from router.deliver.dicom import DicomDestination

    send = DicomDestination.send

    def early(self: DicomDestination, deliveries: Any, settled: Callable[..., None]) -> None:
        for index in range(len(deliveries)):
            settled(index, Delivered())
        send(self, deliveries, lambda *_: None)

    DicomDestination.send = early  # type: ignore[method-assign]


def two_transactions() -> None:
    """A result is owed to its destinations in a transaction before the one that ends its classification; its UID is
    drawn and does not derive from the image.
    """
    import secrets
    from dataclasses import replace

    from router.classify.step import ClassifyStep
    from router.core.rules import Plan

    produced, complete = ClassifyStep._produced, ClassifyStep._complete

    def anew(self: ClassifyStep, task: Any, result: Any) -> Any:
        old = result.sop_instance_uid
        new = f"{old[:-9]}{10**8 + secrets.randbelow(10**8)}"
        data = result.data.replace(old.encode(), new.encode())
        return produced(self, task, replace(result, data=data, sop_instance_uid=new))

    def early(self: ClassifyStep, task: Any, analysis: Any, made: Any) -> None:
        for one in made:
            self._ledger.accept(one.instance, Plan(rules=(), deliver=one.destinations))
        complete(self, task, analysis, ())

    ClassifyStep._produced = anew  # type: ignore[method-assign]
    ClassifyStep._complete = early  # type: ignore[method-assign]


def trace() -> None:
    """Nothing is changed; the names of the fault points that are passed go to the file $FAULT_TRACE."""
    from router import faults

    seen: set[str] = set()
    path = Path(os.environ["FAULT_TRACE"])

    def note(name: str) -> None:
        if name not in seen:
            seen.add(name)
            with path.open("a") as file:
                file.write(f"{name}\n")

    faults.fault_point = note


CHANGES: dict[str, Callable[[], None]] = {
    change.__name__: change
    for change in (no_file_sync, ledger_normal, success_first, settled_first, two_transactions, trace)
}

if __name__ == "__main__":
    CHANGES[sys.argv.pop(1)]()
    from router.cli import main

    main()
