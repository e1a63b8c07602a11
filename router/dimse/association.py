"""What the listener and a wire have to do with each other: what was agreed with a peer, and the association that it becomes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from router.dimse.contexts import ACCEPTED, AnsweredContext
from router.dimse.limits import WireLimits
from router.dimse.pdu import AssociateRequest
from router.dimse.slots import Occupant
from router.dimse.store import PeerIdentity, Services, Tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """An A-ASSOCIATE-RQ that is going to be accepted, and with what."""

    connection: socket.socket
    request: AssociateRequest
    answers: tuple[AnsweredContext, ...]
    roles: tuple[tuple[str, bool, bool], ...]
    """SCP/SCU roles that were asked for and are granted."""
    peer: PeerIdentity
    ae_title: str
    """Ours."""
    limits: WireLimits
    services: Services
    tell: Tell

    @property
    def contexts(self) -> dict[int, tuple[str, str]]:
        """Accepted ones: ID -> abstract syntax, transfer syntax."""
        return {a.context_id: (a.abstract_syntax, a.transfer_syntax) for a in self.answers if a.result == ACCEPTED}


class Association(Occupant, Protocol):
    """An association that we accept."""

    agreed: Agreed

    @property
    def released(self) -> bool:
        """True when it ended in order."""
        ...

    @property
    def end_reason(self) -> str:
        """Why it ended otherwise, as far as we know."""
        ...

    def begin(self) -> None:
        """Answers the request, then serves; returns at once or when it has ended. `ended` is called in any case."""
        ...


#: What a wire makes of an agreement; the second argument is called once, when the association has ended.
Wire = Callable[[Agreed, Callable[[Association], None]], Association]
