"""What pynetdicom is told on an association, so that it answers what we decided: a request that we wrote ourselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pynetdicom.association import ServiceUser
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from router.core import commitment
from router.core.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.dimse import pdu
from router.dimse.association import Agreed
from router.dimse.contexts import ACCEPTED, TRANSFER_SYNTAXES_NOT_SUPPORTED, AnsweredContext, ProposedContext

#: pynetdicom answers a context as we want it when it supports the class, but with syntaxes that are not these two.
_NEVER_SUPPORTED = "1.2.840.10008.1.2.4.94"  # JPIP Referenced
_SUPPORTED_INSTEAD = "1.2.840.10008.1.2"
_NO_CLASS = "1.2.840.10008.1.2.4.95"


def rewritten_request(agreed: Agreed) -> bytes:
    """A whole A-ASSOCIATE-RQ PDU with what we understood of the peer's, and nothing else."""
    contexts = tuple(_rewritten(answered) for answered in agreed.answers)
    return pdu.encode_associate_request(replace(agreed.request, contexts=contexts, roles=agreed.roles, operations=None))


def prepare_acceptor(acceptor: ServiceUser, agreed: Agreed) -> None:
    """What pynetdicom says of us."""
    acceptor.maximum_length = agreed.limits.pdu_byte_count_max
    acceptor.ae_title = agreed.ae_title
    acceptor.address_info = AddressInformation.from_tuple(agreed.connection.getsockname())
    acceptor.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    acceptor.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    acceptor.supported_contexts = _supported(agreed.answers)


def _rewritten(answered: AnsweredContext) -> ProposedContext:
    if answered.result == ACCEPTED:
        syntax, abstract_syntax = answered.transfer_syntax, answered.abstract_syntax
    else:
        syntax = _NEVER_SUPPORTED
        known = answered.result == TRANSFER_SYNTAXES_NOT_SUPPORTED
        abstract_syntax = answered.abstract_syntax if known else _NO_CLASS
    return ProposedContext(context_id=answered.context_id, abstract_syntax=abstract_syntax, transfer_syntaxes=(syntax,))


def _supported(answers: Sequence[AnsweredContext]) -> list[PresentationContext]:
    """One entry for each class that we take, with every syntax that we chose for it."""
    syntaxes: dict[str, list[str]] = {}
    for answered in answers:
        if answered.result == ACCEPTED:
            syntaxes.setdefault(answered.abstract_syntax, []).append(answered.transfer_syntax)
        elif answered.result == TRANSFER_SYNTAXES_NOT_SUPPORTED:
            syntaxes.setdefault(answered.abstract_syntax, [])
    if not syntaxes:
        syntaxes[_SUPPORTED_INSTEAD] = []
    supported = []
    for abstract_syntax, chosen in syntaxes.items():
        context = PresentationContext()
        context.abstract_syntax = abstract_syntax
        context.transfer_syntax = list(dict.fromkeys(chosen)) or [_SUPPORTED_INSTEAD]
        if abstract_syntax == commitment.SOP_CLASS_UID:  # whoever reports to us is its SCP, and says so
            context.scu_role = context.scp_role = True
        supported.append(context)
    return supported
