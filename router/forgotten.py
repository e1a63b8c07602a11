"""Everything of one study goes from this node: bytes, rows, results. In steps that can be repeated after a crash between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from router.audit import events
from router.audit.by_command import record
from router.errors import StillOwed
from router.faults import fault_point
from router.ledger.forgetting import Known
from router.ledger.store import SqlLedger
from router.settings import Settings
from router.spool.files import delete_spooled


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What went."""

    study_instance_uid: str
    instance_count: int
    """Originals and what was made of them."""
    given_up_count: int
    """Tasks that were owed or had failed."""
    stays: bool
    """Something of the study is in the ledger: it came meanwhile."""


def forget_study(settings: Settings, ledger: SqlLedger, study_instance_uid: str, *, force: bool) -> Forgotten | None:
    """None when the ledger knows no such study. The node may run meanwhile.

    Raises StillOwed, unless `force`; OSError when it cannot be audited, and then nothing is done, or a file cannot be removed.
    """
    known = ledger.forgetting.known(study_instance_uid)
    if known is None:
        return None
    refused = f"{known.owed_count} task(s) are owed or have failed" if known.owed_count and not force else ""
    _audit(settings, study_instance_uid, known, refused)
    if refused:
        raise StillOwed(f"not forgotten: {refused}; router queue shows them, --force gives them up")
    # First the ledger, so that nobody misses the files; last the rows, because they say which files there are.
    marked = ledger.forgetting.mark(study_instance_uid, force=force)
    if marked is None:
        return None
    fault_point("forget.marked")
    delete_spooled(settings.spool.path, marked.spool_keys)
    fault_point("forget.deleted")
    count = ledger.forgetting.remove(marked)
    fault_point("forget.committed")
    return Forgotten(
        study_instance_uid=study_instance_uid,
        instance_count=count,
        given_up_count=marked.owed_count,
        stays=ledger.forgetting.known(study_instance_uid) is not None,
    )


def _audit(settings: Settings, study_instance_uid: str, known: Known, refused: str) -> None:
    """Before anything is done. Raises OSError."""
    people = known.people or (("", ""),)
    seen = [
        events.Seen(study_instance_uid=study_instance_uid, patient_id=patient_id, accession_number=accession_number)
        for patient_id, accession_number in people
    ]
    record(settings, partial(events.forgotten, seen=seen, refused=refused))
