"""Storage Commitment as requestor of an association: asking a destination (SCU), reporting to a peer (SCP). Source: PS3.4 Annex J."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.core import commitment
from router.core.commitment import CommitmentReport, Reference
from router.core.ports import Delivered
from router.deliver.answers import outcome_of
from router.deliver.association import Address, Association, Context
from router.dimse import status
from router.dimse.command import N_EVENT_REPORT_RQ
from router.dimse.commitment import (
    BYTE_COUNT_MAX,
    InvalidInformation,
    decode_report,
    encode_report,
    encode_request,
)
from router.dimse.contexts import COMMITMENT_TRANSFER_SYNTAXES
from router.errors import NoAcceptedContext, PeerUnreachable

_CONTEXTS: tuple[Context, ...] = tuple((commitment.SOP_CLASS_UID, uid) for uid in COMMITMENT_TRANSFER_SYNTAXES)


def request_commitment(
    address: Address,
    *,
    transaction_uid: str,
    references: Sequence[Reference],
    linger_s: float,
    heard: Callable[[CommitmentReport], None],
) -> None:
    """N-ACTION, answered with Success; `heard` is called with a report that comes on this association within `linger_s`.

    Raises NoAcceptedContext, PeerRefused, PeerBusy, PeerUnreachable, AssociationRejected. `heard` raises KeyError for a
    report on something else.
    """
    association = Association(address, _CONTEXTS)
    context = _accepted(association)
    try:
        response = association.action(
            context_id=association.accepted[context],
            sop_class_uid=commitment.SOP_CLASS_UID,
            sop_instance_uid=commitment.SOP_INSTANCE_UID,
            action_type=commitment.REQUEST_ACTION_TYPE,
            data_set=encode_request(transaction_uid, tuple(references), context[1]),
        )
    except PeerUnreachable:
        association.abort()
        raise
    outcome = outcome_of(response, peer=address.ae_title)
    try:
        if isinstance(outcome, Delivered) and linger_s > 0:
            _hear(association, context[1], linger_s, heard)
    except PeerUnreachable:
        association.abort()  # it has taken the request; the report comes another way
    else:
        association.release()
    if not isinstance(outcome, Delivered):
        raise outcome


class Reporting:
    """An association on which reports are told. Raises as Association does, and NoAcceptedContext."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._association = Association(address, _CONTEXTS, scp_of=(commitment.SOP_CLASS_UID,))
        self._context = _accepted(self._association)

    def tell(self, report: CommitmentReport) -> None:
        """Returns when the peer has taken it. Raises PeerUnreachable, and then all is over; PeerRefused, PeerBusy."""
        try:
            response = self._association.report(
                context_id=self._association.accepted[self._context],
                sop_class_uid=commitment.SOP_CLASS_UID,
                sop_instance_uid=commitment.SOP_INSTANCE_UID,
                event_type=report.event_type,
                data_set=encode_report(report, self._context[1]),
            )
        except PeerUnreachable:
            self._association.abort()
            raise
        outcome = outcome_of(response, peer=self._address.ae_title)
        if not isinstance(outcome, Delivered):
            raise outcome

    def close(self) -> None:
        """Releases it; after `tell` raised PeerUnreachable it does nothing."""
        self._association.release()


def _accepted(association: Association) -> Context:
    context = next((context for context in _CONTEXTS if context in association.accepted), None)
    if context is None:
        association.release()
        raise NoAcceptedContext(f"{association.address.ae_title} does not offer Storage Commitment Push Model to us")
    return context


def _hear(
    association: Association, transfer_syntax_uid: str, linger_s: float, heard: Callable[[CommitmentReport], None]
) -> None:
    """Raises PeerUnreachable."""
    request = association.hear(timeout_s=linger_s, byte_count_max=BYTE_COUNT_MAX)
    if request is None or request.command.field != N_EVENT_REPORT_RQ:
        return
    try:
        event_type = request.command.event_type
        if event_type not in (commitment.ALL_COMMITTED, commitment.SOME_FAILED):
            association.answer(request, status=status.NO_SUCH_EVENT_TYPE)
            return
        heard(decode_report(request.data_set, transfer_syntax_uid, event_type=event_type))
    except (InvalidInformation, KeyError):
        association.answer(request, status=status.INVALID_ARGUMENT_VALUE)
        return
    association.answer(request, status=status.SUCCESS)
