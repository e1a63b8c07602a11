"""What this node has reported, told in another form. It reads ledger and spool beside a running node and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from router.errors import RouterError, SpoolDamaged
from router.ledger.queries import MadeReport, Queries
from router.report.fhir import bundle_of
from router.report.told import told
from router.settings import Settings
from router.spool.files import spooled_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """Reports as FHIR."""

    bundle: dict[str, Any] | None
    """JSON-able; None when none of the reports could be read. It holds patient data: for the operator's eyes, never logged."""
    missing: tuple[str, ...]
    """A line for each report that is not in the bundle: which, why, and where to ask. No patient data."""


def as_fhir(settings: Settings, queries: Queries, uid: str) -> Bundled:
    """The Structured Reports behind a SOP Instance UID (of an original or an SR) or a Study Instance UID, as a FHIR Bundle.

    Raises RouterError when there are none, or when fhirclient is not installed.
    """
    reports = queries.reports(uid)
    if not reports:
        raise RouterError(f"no Structured Report was made of what {uid} names; `router trace {uid}` says what happened")
    readable, missing = [], []
    for report in reports:
        try:
            path = spooled_path(settings.spool.path, report.instance.spool_key)
            readable.append((told(path), report.instance.received_at))
        except (SpoolDamaged, OSError, ValueError) as error:
            missing.append(_why(report, error))
    return Bundled(bundle=bundle_of(readable) if readable else None, missing=tuple(missing))


def _why(report: MadeReport, error: Exception) -> str:
    uid = report.instance.sop_instance_uid
    if report.freed_at is not None:
        at = report.freed_at.isoformat(sep=" ", timespec="seconds")
        return f"SR {uid}: its bytes were freed at {at}, after all deliveries: ask the archive that has it"
    return f"SR {uid}: {error}"
