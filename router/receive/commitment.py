"""Storage Commitment as peers see it here: N-ACTION asks us to keep instances, N-EVENT-REPORT tells us who keeps ours.

An N-ACTION is written down durably before it is answered; its report is a task of the ledger like a delivery. While the
peer keeps the association open the report goes out there, otherwise `deliver.notify` opens one. Source: PS3.4 Annex J.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.core import commitment
from router.core.commitment import CommitmentReport, CommitmentRequest
from router.core.ports import Clock, Commitments, Ledger, ReportTask
from router.dimse import status
from router.dimse.command import N_ACTION_RQ
from router.dimse.commitment import (
    BYTE_COUNT_MAX,
    InvalidInformation,
    TooMany,
    decode_report,
    decode_request,
    encode_report,
)
from router.dimse.store import Answer, EventReport, ServiceRequest
from router.errors import LeaseLost, RefusedError
from router.observe.log import emit

#: The association has this long to tell the report and hear the answer, beyond the time it waits; then the lane may.
_LEASE_S = 90.0

#: What to report to a request now, or None: not yet.
Judge = Callable[[CommitmentRequest], CommitmentReport | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentDesk:
    """The parts of the node that storage commitment meets."""

    ledger: Ledger
    commitments: Commitments
    judge: Judge
    clock: Clock
    enabled: bool
    """False: only answers to what we asked ourselves are taken."""
    linger_s: float
    """How long after an N-ACTION response the report waits for an association that the peer keeps open; 0: not at all."""
    resends_max: int
    """How often an instance that a destination does not have is sent again."""

    def open(self, request: ServiceRequest) -> _InformationSink:
        """Where the data set of an N-ACTION-RQ or N-EVENT-REPORT-RQ goes."""
        return _InformationSink(request, self)


class _InformationSink:
    """One request; see dimse.store.DataSetSink."""

    def __init__(self, request: ServiceRequest, desk: CommitmentDesk) -> None:
        self._request = request
        self._desk = desk
        self._data = bytearray()

    def write(self, parts: Sequence[memoryview]) -> None:
        """Takes the next bytes; of what is too long, no more than shows that."""
        for part in parts:
            self._data += part[: max(0, BYTE_COUNT_MAX + 1 - len(self._data))]

    def finish(self) -> Answer:
        """The status; Success only once it is written down."""
        asked = self._request.command.field == N_ACTION_RQ
        try:
            return self._take_request() if asked else self._take_report()
        except RefusedError as error:
            refused = error
        except TooMany as error:
            refused = RefusedError(str(error), status=status.RESOURCE_LIMITATION)
        except InvalidInformation as error:
            refused = RefusedError(str(error), status=status.INVALID_ARGUMENT_VALUE)
        except Exception as error:  # noqa: BLE001 - drivers raise their own; none of it is Success
            code = status.PROCESSING_FAILURE
            self._tell("commitment.refused", level=logging.ERROR, status=f"0x{code:04X}", exc_info=error)
            return Answer(status=code, comment="the ledger could not write this down")
        self._tell(
            "commitment.refused",
            level=logging.WARNING,
            operation="N-ACTION" if asked else "N-EVENT-REPORT",
            status=f"0x{refused.status:04X}",
            reason=str(refused),
        )
        return Answer(status=refused.status, comment=str(refused))

    def discard(self) -> None:
        """Nothing is kept."""
        self._data = bytearray()

    def _take_request(self) -> Answer:
        desk, command, peer = self._desk, self._request.command, self._request.peer
        if not desk.enabled:
            raise RefusedError("commitment.enabled is false", status=status.UNRECOGNISED_OPERATION)
        self._check_names(command.requested_sop_class_uid, command.requested_sop_instance_uid)
        if command.action_type != commitment.REQUEST_ACTION_TYPE:
            raise RefusedError("Action Type ID is not 1", status=status.NO_SUCH_ACTION_TYPE)
        transaction_uid, references = decode_request(bytes(self._data), self._request.transfer_syntax_uid)
        request = CommitmentRequest(
            transaction_uid=transaction_uid,
            references=references,
            calling_ae_title=peer.calling_ae_title,
            called_ae_title=peer.called_ae_title,
            peer_host=peer.host,
            requested_at=desk.clock.now(),
        )
        lease_s = desk.linger_s + _LEASE_S if desk.linger_s > 0 else 0.0
        tasks = desk.commitments.take(request, lease_s=lease_s)
        self._tell("commitment.asked", transaction_uid=transaction_uid, count=len(references))
        return Answer(status=status.SUCCESS, follow_ups=tuple(_Report(task, desk) for task in tasks))

    def _take_report(self) -> Answer:
        command = self._request.command
        self._check_names(command.affected_sop_class_uid, command.affected_sop_instance_uid)
        if command.event_type not in (commitment.ALL_COMMITTED, commitment.SOME_FAILED):
            raise RefusedError("Event Type ID is neither 1 nor 2", status=status.NO_SUCH_EVENT_TYPE)
        report = decode_report(bytes(self._data), self._request.transfer_syntax_uid, event_type=command.event_type)
        try:
            answered = self._desk.commitments.answered(report, resends_max=self._desk.resends_max)
        except KeyError:
            raise RefusedError("a Transaction UID that is none of ours", status=status.INVALID_ARGUMENT_VALUE) from None
        self._tell(
            "commitment.answered",
            level=logging.ERROR if answered.failed else logging.WARNING if report.failed else logging.INFO,
            transaction_uid=report.transaction_uid,
            destination=answered.target,
            committed=len(answered.committed),
            resent=answered.resent,
            asked_again=answered.asked_again,
            failed=answered.failed,
        )
        return Answer(status=status.SUCCESS)

    def _check_names(self, sop_class_uid: str, sop_instance_uid: str) -> None:
        if sop_class_uid != commitment.SOP_CLASS_UID:
            raise RefusedError("not the SOP class of Storage Commitment Push Model", status=status.NO_SUCH_SOP_CLASS)
        if sop_instance_uid != commitment.SOP_INSTANCE_UID:
            raise RefusedError("not the well-known SOP instance", status=status.NO_SUCH_SOP_INSTANCE)

    def _tell(
        self, event: str, *, level: int = logging.INFO, exc_info: bool | BaseException = False, **fields: object
    ) -> None:
        peer = self._request.peer
        emit(
            event,
            level=level,
            exc_info=exc_info,
            calling_ae_title=peer.calling_ae_title,
            called_ae_title=peer.called_ae_title,
            host=peer.host,
            **fields,
        )


class _Report:
    """A report that we owe, while the association of its request is open; see dimse.store.FollowUp."""

    def __init__(self, task: ReportTask, desk: CommitmentDesk) -> None:
        self._task = task
        self._desk = desk
        self._report: CommitmentReport | None = None

    @property
    def delay_s(self) -> float:
        """commitment.linger_s."""
        return self._desk.linger_s

    def report(self, transfer_syntax_uid: str) -> EventReport | None:
        """None when it cannot be told yet: the lane does it when it can."""
        try:
            self._report = self._desk.judge(self._task.request)
        except Exception as error:  # noqa: BLE001 - the ledger is away: the lane tries again
            emit("commitment.not_reported", level=logging.ERROR, exc_info=error, transaction_uid=self._task.uid)
        if self._report is None:
            return None
        return EventReport(
            sop_class_uid=commitment.SOP_CLASS_UID,
            sop_instance_uid=commitment.SOP_INSTANCE_UID,
            event_type=self._report.event_type,
            data_set=encode_report(self._report, transfer_syntax_uid),
        )

    def settled(self, status: int | None) -> None:
        """Success ends the task; anything else leaves it to the lane, which has the association to itself."""
        try:
            if status == 0 and self._report is not None:
                self._desk.commitments.reported(self._task, self._report)
                emit(
                    "commitment.reported",
                    transaction_uid=self._task.uid,
                    calling_ae_title=self._task.request.calling_ae_title,
                    committed=len(self._report.committed),
                    failed=[reference.sop_instance_uid for reference in self._report.failed],
                    association="that of the request",
                )
            else:
                reason = "" if status is None else f"the peer answered the report with 0x{status:04X}"
                self._desk.ledger.release(self._task, at=self._desk.clock.now(), reason=reason)
        except LeaseLost:
            emit("task.lease_lost", level=logging.WARNING, task_id=self._task.task_id, kind=self._task.kind)
        except Exception as error:  # noqa: BLE001 - the ledger is away: the report is owed still, and its lease ends
            emit("commitment.not_reported", level=logging.ERROR, exc_info=error, transaction_uid=self._task.uid)
