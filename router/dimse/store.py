"""What our wire hands to whoever stores: a request, then its data set bytes, then one question: which status?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


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
class Answer:
    """The status to answer, and in plain English why; the peer gets the first 64 characters."""

    status: int
    comment: str = ""


class DataSetSink(Protocol):
    """Where the bytes of one data set go. `write` and `finish` come from different threads, never at the same time."""

    def write(self, data: memoryview) -> None:
        """Takes the next bytes, valid only during the call. Raises nothing: what goes wrong is told by `finish`."""
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
