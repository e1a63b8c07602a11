"""A result object on its way into the ledger: its bytes spooled, its identity as of any other instance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from router.core.digest import Algorithm, Hasher, others
from router.core.instance import InstanceKind, SopInstance
from router.core.ports import Produced, ResultObject, Spool
from router.spool.part10 import data_set_offset

_MODALITIES = {
    InstanceKind.SR: "SR",
    InstanceKind.SUMMARY: "SR",
    InstanceKind.HEATMAP: "OT",
    InstanceKind.GSPS: "PR",
    InstanceKind.KEY_OBJECT: "KO",
    InstanceKind.PDF: "DOC",
}


def spooled(spool: Spool, result: ResultObject, *, at: datetime, destinations: Sequence[str]) -> Produced:
    """Spools it; what the ledger can then take. Raises OSError."""
    key = spool.put(result.data)
    data_set = memoryview(result.data)[data_set_offset(spool.path(key)) :]
    instance = SopInstance(
        sop_instance_uid=result.sop_instance_uid,
        sop_class_uid=result.sop_class_uid,
        study_instance_uid=result.study_instance_uid,
        series_instance_uid=result.series_instance_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        digest=_digest(data_set, "sha256"),
        byte_count=len(data_set),
        spool_key=key,
        received_at=at,
        kind=result.kind,
        made_by_router=True,
        header={"Modality": _MODALITIES[result.kind]} if result.kind in _MODALITIES else {},
    )
    return Produced(
        instance=instance,
        destinations=tuple(destinations),
        also=lambda: [_digest(data_set, algorithm) for algorithm in others(instance.digest)],
    )


def _digest(data_set: memoryview, algorithm: Algorithm) -> str:
    hasher = Hasher(algorithm)
    hasher.update(data_set)
    return hasher.text()
