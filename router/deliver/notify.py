"""The lane of reports: peers that asked for storage commitment hear of it on an association that we open to them."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from router.core.commitment import CommitmentReport, CommitmentRequest
from router.core.ports import Clock, Commitments, Ledger, ReportTask
from router.core.retry import RetryPolicy
from router.deliver.association import Address
from router.deliver.commitment import Reporting
from router.errors import AssociationRejected, LeaseLost, NoAcceptedContext, PeerUnreachable, RouterError
from router.observe.log import emit

#: A report that waits for deliveries is looked at again after a quarter of its age, within these bounds.
_LOOK_FIRST_S, _LOOK_CAP_S = 1.0, 60.0
#: A peer that hangs holds up the reports of others for so long.
_CONNECT_TIMEOUT_S, _RESPONSE_TIMEOUT_S = 5.0, 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Requestors:
    """Where peers listen for reports."""

    ports: Mapping[str, int]
    """AE title -> port, of `[[peers]]`; the address is the one that the request came from."""
    destinations: Mapping[str, Address]
    """AE title -> address, of DICOM destinations."""

    def address_of(self, request: CommitmentRequest) -> Address | None:
        """None when the configuration does not say. We call as what the peer called us."""
        known = self.destinations.get(request.calling_ae_title)
        port = self.ports.get(request.calling_ae_title)
        calling = request.called_ae_title
        if port is not None:
            return Address(
                ae_title=request.calling_ae_title,
                host=request.peer_host,
                port=port,
                calling_ae_title=calling,
                connect_timeout_s=_CONNECT_TIMEOUT_S,
                response_timeout_s=_RESPONSE_TIMEOUT_S,
            )
        return None if known is None else replace(known, calling_ae_title=calling)


class ReportStep:
    """`core.ports.Step` for TaskKind.REPORT. Any number of worker threads may share it."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        commitments: Commitments,
        judge: Callable[[CommitmentRequest], CommitmentReport | None],
        requestors: Requestors,
        clock: Clock,
        policy: RetryPolicy,
        report_for_s: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._ledger = ledger
        self._commitments = commitments
        self._judge = judge
        self._requestors = requestors
        self._clock = clock
        self._policy = policy
        self._report_for_s = report_for_s
        self._jitter = jitter

    def run(self, tasks: Sequence[ReportTask]) -> None:
        """Tells what can be told, to each peer on one association."""
        ready: dict[Address, list[tuple[ReportTask, CommitmentReport]]] = {}
        for task in tasks:
            report = self._judge(task.request)
            if report is None:
                self._look_again(task)
                continue
            address = self._requestors.address_of(task.request)
            if address is None:
                self._later(task, _unknown(task.request))
            else:
                ready.setdefault(address, []).append((task, report))
        for address, owed in ready.items():
            self._tell_all(address, owed)

    def _tell_all(self, address: Address, owed: Sequence[tuple[ReportTask, CommitmentReport]]) -> None:
        told = 0
        try:
            reporting = Reporting(address)
            for task, report in owed:
                self._tell(reporting, task, report)
                told += 1
            reporting.close()
        except (PeerUnreachable, AssociationRejected, NoAcceptedContext) as error:
            for task, _ in owed[told:]:
                self._later(task, str(error))

    def _tell(self, reporting: Reporting, task: ReportTask, report: CommitmentReport) -> None:
        """Raises PeerUnreachable."""
        try:
            reporting.tell(report)
        except PeerUnreachable:
            raise
        except RouterError as error:
            self._later(task, str(error))
            return
        with suppress(LeaseLost):  # somebody else told it, too; that is no harm
            self._commitments.reported(task, report)
        emit(
            "commitment.reported",
            transaction_uid=task.uid,
            calling_ae_title=task.request.calling_ae_title,
            committed=len(report.committed),
            failed=[reference.sop_instance_uid for reference in report.failed],
            association="a new one",
        )

    def _look_again(self, task: ReportTask) -> None:
        now = self._clock.now()
        age_s = (now - task.request.requested_at).total_seconds()
        at = now + timedelta(seconds=min(max(age_s / 4, _LOOK_FIRST_S), _LOOK_CAP_S))
        with suppress(LeaseLost):
            self._ledger.release(task, at=at, reason="its instances are on their way to their destinations")

    def _later(self, task: ReportTask, reason: str) -> None:
        now = self._clock.now()
        over = now - task.request.requested_at > timedelta(seconds=self._report_for_s)
        error = PeerUnreachable(reason)
        at = self._policy.next_attempt_at(now=now, attempts=task.attempts, error=error, jitter=self._jitter())
        with suppress(LeaseLost):
            self._ledger.defer(task, error=reason, at=None if over else at)
        emit(
            "commitment.not_reported",
            level=logging.ERROR if over else logging.WARNING,
            transaction_uid=task.uid,
            calling_ae_title=task.request.calling_ae_title,
            reason=reason,
            next_attempt_at=None if over or at is None else at.isoformat(),
        )


def _unknown(request: CommitmentRequest) -> str:
    return (
        f"nobody said where {request.calling_ae_title or 'a peer without an AE title'} listens for reports: give its"
        " [[peers]] entry a port; it is told when it asks again and keeps its association open"
    )
