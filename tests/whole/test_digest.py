"""`spool.digest` is changed between two starts of a node that has a history."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.classify.phantom import phantom_dicom
from router.ledger.store import SqlLedger
from tests.peers import dcmsend, success_count
from tests.samples import dataset_bytes
from tests.whole.router_process import EVERYTHING_RULE, RouterProcess

pytestmark = pytest.mark.peer("dcmtk")


def test_an_image_from_before_the_change_is_a_duplicate_and_another_one_under_its_uid_a_conflict(
    tmp_path: Path,
) -> None:
    ds = phantom_dicom(7, rows=128, columns=128)
    first, second = tmp_path / "first.dcm", tmp_path / "second.dcm"
    ds.save_as(first, enforce_file_format=True)
    ds.ImageComments = "other bytes under the same UID"
    ds.save_as(second, enforce_file_format=True)
    uid = str(ds.SOPInstanceUID)
    out = tmp_path / "out"
    table = f'\n[destinations.pacs]\ntype = "folder"\npath = "{out}"\n'

    def node(digest: str) -> RouterProcess:
        return RouterProcess(
            tmp_path / "node",
            table,
            rules=(EVERYTHING_RULE,),
            classifier="",
            spool=f'free_byte_count_min = "64 MiB"\nverify_after_s = 0\ndigest = "{digest}"',
        )

    with node("sha256") as before:
        assert success_count(dcmsend(before.port, first)) == 1
        before.settle()
    with node("blake3") as now:
        for path in (first, second):
            assert success_count(dcmsend(now.port, path)) == 1
        now.settle()
    assert sorted(map(dataset_bytes, out.rglob("*.dcm"))) == sorted([dataset_bytes(first), dataset_bytes(second)])
    spooled = [path for path in now.spool_folder.rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert len(spooled) == 2, "one file for each"
    ledger = SqlLedger(now.ledger_url)
    lines = [(line.what, line.digest.startswith("blake3:")) for line in ledger.queries.trace(uid)]
    ledger.close()
    received = [line for line in lines if line[0] in ("received", "duplicate", "conflict")]
    assert received == [("received", False), ("duplicate", False), ("conflict", True)]
