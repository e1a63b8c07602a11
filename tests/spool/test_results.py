"""Result objects on their way into the ledger."""

from __future__ import annotations

import hashlib
from pathlib import Path

from blake3 import blake3

from router.core.instance import InstanceKind
from router.core.ports import ResultObject
from router.spool.files import FileSpool
from router.spool.part10 import file_head
from router.spool.results import spooled
from tests.ledger.made import EXPLICIT, SR, START


def test_a_result_is_hashed_by_sha256_and_by_the_other_algorithm_only_when_the_ledger_asks(tmp_path: Path) -> None:
    data_set = b"\x08\x00\x16\x00UI\x02\x001\x00"
    head = file_head(sop_class_uid=SR, sop_instance_uid="1.2.9", transfer_syntax_uid=EXPLICIT)
    result = ResultObject(
        kind=InstanceKind.SR,
        data=head + data_set,
        sop_instance_uid="1.2.9",
        sop_class_uid=SR,
        study_instance_uid="1.2",
        series_instance_uid="1.2.1",
        transfer_syntax_uid=EXPLICIT,
    )
    spool = FileSpool(tmp_path / "spool")
    produced = spooled(spool, result, at=START, destinations=["pacs"])
    spool.close()
    assert (produced.instance.digest, produced.instance.byte_count) == (hashlib.sha256(data_set).hexdigest(), 10)
    assert produced.destinations == ("pacs",)
    assert produced.also() == [f"blake3:{blake3(data_set).hexdigest()}"]
