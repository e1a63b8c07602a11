"""SIGKILL: whatever was acknowledged is in the ledger when it is opened again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from router.core.lifecycle import TaskKind
from router.ledger.store import SqlLedger
from tests.peers import ROOT

_ACCEPTS = """
import os, sys, threading
from router.ledger.store import SqlLedger
from tests.ledger.made import instance, plan
ledger = SqlLedger(sys.argv[1])
def accept(lane):
    for number in range(1_000_000):
        uid = f"1.{lane}.{number}"
        ledger.accept(instance(uid, spool_key=uid), plan())
        os.write(1, f"{uid}\\n".encode())
for lane in range(4):
    threading.Thread(target=accept, args=(lane,), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.parametrize("acknowledged_count", [1, 37, 200])
def test_everything_acknowledged_before_a_kill_is_there_with_its_task(tmp_path: Path, acknowledged_count: int) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    process = subprocess.Popen(
        [sys.executable, "-c", _ACCEPTS, url],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(acknowledged_count)]
    process.send_signal(signal.SIGKILL)
    seen += process.stdout.readlines()
    process.wait()
    acknowledged = {line.decode().strip() for line in seen if line.endswith(b"\n")}
    assert len(acknowledged) >= acknowledged_count
    ledger = SqlLedger(url)
    owed = {t.instance.sop_instance_uid for t in ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=10_000)}
    ledger.close()
    assert acknowledged <= owed
    assert len(owed - acknowledged) <= 4, "at most one under way in each thread"
