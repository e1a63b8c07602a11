"""Fault points: named places between two durable steps, where a test ends the process as a power cut would.

`ROUTER_FAULT=accept.committed:3` in the environment: SIGKILL to ourselves the third time that place is passed. Without
the variable a place costs one look at a module constant. `tests/crash` kills at every one of them and looks for what is
missing; `docs/operating/durability.md` shows the table.
"""

from __future__ import annotations

import os
import signal
import threading

#: Name -> what is true there. In the order in which an image passes them.
FAULT_POINTS: dict[str, str] = {
    "spool.created": "the file has its durable name and is empty",
    "spool.written": "every byte is written to the file, nothing is synced",
    "spool.file_synced": "file and name are durable, the ledger knows nothing of it",
    "accept.begun": "the ledger is about to be told of a received instance",
    "accept.written": "instance and tasks are written in a transaction that is not committed",
    "accept.committed": "instance and tasks are durable, nobody has been told",
    "answer.unsent": "the C-STORE response is about to be sent",
    "answer.sent": "the C-STORE response is sent",
    "duplicate.known": "the same bytes came again and the ledger says so; the second copy still lies in the spool",
    "deliver.claimed": "deliveries are leased to a worker that has not begun",
    "deliver.unsent": "an instance is about to be sent to its destination",
    "deliver.command_sent": "the destination has the C-STORE request and nothing of the data set",
    "deliver.answered": "the destination has the instance and said so, the ledger does not know",
    "deliver.written": "the delivery is settled in a transaction that is not committed",
    "deliver.committed": "the delivery is settled",
    "classify.claimed": "a classification is leased to a worker that has not begun",
    "classify.asked": "the classify child has the question",
    "classify.answered": "the classify child has answered, nothing of it is durable",
    "classify.spooled": "the result object is durable, the ledger knows nothing of it",
    "classify.written": "outcome, result and its deliveries are written in a transaction that is not committed",
    "classify.committed": "outcome, result and its deliveries are durable",
    "summary.claimed": "a summary of a study is leased to a worker that has not begun",
    "summary.spooled": "the summary is durable, the ledger knows nothing of it",
    "summary.written": "the summary and its deliveries are written in a transaction that is not committed",
    "summary.committed": "the summary and its deliveries are durable",
    "notify.told": "a webhook or a mail server has taken a notification, the ledger does not know",
    "free.committed": "the ledger says that bytes are freed, the files still lie there",
    "free.deleted": "the files of freed bytes are deleted",
    "forget.marked": "nothing is owed of a study that is to be forgotten, and its bytes count as freed; all of it is still there",
    "forget.deleted": "the files of the study are deleted, its rows are still there",
    "forget.committed": "its rows are gone",
}


def _chosen(text: str) -> tuple[str, int]:
    name, _, count = text.partition(":")
    if name and name not in FAULT_POINTS:
        raise ValueError(f"ROUTER_FAULT names no fault point: {name!r}")
    return name, int(count or 1)


_NAME, _COUNT = _chosen(os.environ.get("ROUTER_FAULT", ""))
_ARMED = bool(_NAME)
_lock = threading.Lock()
_passed = 0


def fault_point(name: str) -> None:
    """Ends the process here when the environment asks for it."""
    if _ARMED and name == _NAME:
        _pass()


def _pass() -> None:
    global _passed  # noqa: PLW0603 - one process, one count
    with _lock:
        _passed += 1
        if _passed == _COUNT:
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()  # nothing more is done between the signal and the end
