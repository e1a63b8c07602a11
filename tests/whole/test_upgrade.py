"""A data folder that version 1 of the ledger left behind, with work in it, is taken over by `router serve`."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from router.core.lifecycle import TaskState
from router.ledger.store import SqlLedger
from router.spool.part10 import file_head
from tests.ledger import version_1
from tests.peers import StoreScp, wait_until
from tests.samples import dataset_bytes, pydicom_file
from tests.whole.router_process import EVERYTHING_RULE, RouterProcess, destination

pytestmark = pytest.mark.peer("dcmtk")


def test_what_an_older_router_owed_is_delivered_by_this_one(tmp_path: Path, storescp: StoreScp) -> None:
    ct = pydicom_file(version_1.CT_FILE)
    ds = pydicom.dcmread(ct, stop_before_pixels=True)
    node = RouterProcess(
        tmp_path / "node", destination("pacs", storescp.ae_title, storescp.port), rules=(EVERYTHING_RULE,)
    )
    version_1.make(node.ledger_url)
    head = file_head(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        source_ae_title="CR_ROOM1",
    )
    folder = node.folder / "spool" / "objects" / "00"
    folder.mkdir(parents=True)
    for key in version_1.HELD_KEYS:
        (folder / key).write_bytes(head + dataset_bytes(ct))
    with node:
        wait_until(lambda: str(ds.SOPInstanceUID) in storescp.received(), 30)
        assert dataset_bytes(storescp.received()[str(ds.SOPInstanceUID)]) == dataset_bytes(ct)
        wait_until(lambda: _delivered(node, str(ds.SOPInstanceUID)), 30)
        assert node.health()[0]


def _delivered(node: RouterProcess, uid: str) -> bool:
    ledger = SqlLedger(node.ledger_url)
    try:
        status = ledger.queries.instance_status(uid)
        return status is not None and [task.state for task in status.tasks] == [TaskState.DONE]
    finally:
        ledger.close()
