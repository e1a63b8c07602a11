"""What our wire hands to whoever serves: a request, then its data set bytes, then one question: which status?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from router.dimse.command import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """Who is at the other end of an association."""

    calling_ae_title: str
    called_ae_title: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """A C-STORE-RQ. The UIDs are as the peer wrote them: anything at all, until somebody checks them."""

    sop_class_uid: str
    sop_instance_uid: str
    context_sop_class_uid: str
    transfer_syntax_uid: str
    peer: PeerIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRequest:
    """An N-ACTION-RQ or N-EVENT-REPORT-RQ on a context of Storage Commitment; what its command says is unchecked."""

    command: Command
    transfer_syntax_uid: str
    peer: PeerIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReport:
    """What an N-EVENT-REPORT-RQ of ours says."""

    sop_class_uid: str
    sop_instance_uid: str
    event_type: int
    data_set: bytes
    """Encoded in the transfer syntax of the context."""


class FollowUp(Protocol):
    """An N-EVENT-REPORT that follows an answer on the same association, if the peer keeps it open for so long."""

    @property
    def delay_s(self) -> float:
        """How long after the answer."""
        ...

    def report(self, transfer_syntax_uid: str) -> EventReport | None:
        """What to send now; None: nothing, and `settled(None)` comes next. Raises nothing."""
        ...

    def settled(self, status: int | None) -> None:
        """The peer's status; None: it has not been told, or has not answered. Called once. Raises nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The status to answer, and in plain English why; the peer gets the first 64 characters."""

    status: int
    comment: str = ""
    follow_ups: tuple[FollowUp, ...] = ()


class DataSetSink(Protocol):
    """Where the bytes of one data set go. `write` and `finish` come from different threads, never at the same time."""

    def write(self, parts: Sequence[memoryview]) -> None:
        """Takes the next bytes, piece by piece, valid only during the call. Raises nothing: what goes wrong is told by `finish`."""
        ...

    def finish(self) -> Answer:
        """After the last byte; may take as long as disks and ledgers take."""
        ...

    def discard(self) -> None:
        """The message will never be complete; may be called after `finish`, and twice."""
        ...


class Tell(Protocol):
    """How the wire reports an event; `observe.log.emit` is one, this package may not import it."""

    def __call__(
        self, event: str, /, *, level: int = ..., exc_info: bool | BaseException = ..., **fields: Any
    ) -> None: ...


#: Called when a C-STORE-RQ has arrived and before its data set. Raises nothing.
OpenSink = Callable[[StoreRequest], DataSetSink]
#: The same for an N-ACTION-RQ or N-EVENT-REPORT-RQ.
OpenService = Callable[[ServiceRequest], DataSetSink]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Who serves what arrives."""

    open_sink: OpenSink
    open_service: OpenService | None = None
    """None: Storage Commitment is not offered."""
    notifiers: frozenset[str] = frozenset()
    """Calling AE titles that may come although they are not among the peers, for Storage Commitment alone: destinations
    that we asked, and that open an association to answer.
    """
