"""Sends SOP instances from files, folders and archives to a peer at once: `router send`. Nothing is owed, nothing kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydicom.uid import UID

from router.core.ports import Delivered
from router.deliver.answers import outcome_of
from router.deliver.association import CONTEXT_COUNT_MAX, Address, Association, Context
from router.deliver.sources import Source
from router.errors import AssociationRejected, PeerUnreachable

#: C-STOREs that may wait for their answers at once.
OPERATIONS_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one instance."""

    source: Source
    status: Literal["sent", "failed"]
    note: str = ""
    """Plain English: why it failed, or what the peer remarked."""
    responded_at: datetime | None = None
    """Aware, UTC: when the C-STORE response came."""


def send(address: Address, sources: Sequence[Source], *, operations_max: int = OPERATIONS_MAX) -> Iterator[Sent]:
    """Sends in order, over one association for every 128 different presentation contexts; one `Sent` for each source.

    A peer that goes away in the middle is called once more for the rest; a second time in a row, the rest has failed.
    `operations_max`: how many may wait for their answers at once, where the peer agrees.
    """
    rest = list(sources)
    strikes = 0
    while rest:
        chunk = _chunk(rest)
        left = dict.fromkeys(range(len(chunk)))
        try:
            for index, sent in _over_one_association(address, chunk, 1 if strikes else operations_max):
                del left[index]
                strikes = 0
                yield sent
        except (PeerUnreachable, AssociationRejected) as error:
            strikes += 1
            if strikes > 1 or len(left) == len(chunk):
                lost = [*(chunk[index] for index in left), *rest[len(chunk) :]]
                yield from (Sent(source=source, status="failed", note=str(error)) for source in lost)
                return
        rest = [*(chunk[index] for index in left), *rest[len(chunk) :]]


def _over_one_association(address: Address, chunk: Sequence[Source], operations_max: int) -> Iterator[tuple[int, Sent]]:
    """Each with its place in `chunk`, as the answers come."""
    association = Association(address, list(dict.fromkeys(map(_context, chunk))), operations_max=operations_max)
    asked: dict[int, int] = {}
    try:
        for index, source in enumerate(chunk):
            while len(asked) >= association.operations_max or association.answer_waits():
                yield _answered(association, chunk, asked)
            context_id = association.accepted.get(_context(source))
            if context_id is None:
                yield index, _not_taken(source, address.ae_title)
            else:
                asked[_request(association, context_id, source)] = index
        while asked:
            yield _answered(association, chunk, asked)
    except BaseException:
        association.abort()
        raise
    association.release()


def _not_taken(source: Source, peer: str) -> Sent:
    sop_class, syntax = UID(source.sop_class_uid).name, UID(source.transfer_syntax_uid).name
    return Sent(source=source, status="failed", note=f"{peer} does not take {sop_class} in {syntax}")


def _request(association: Association, context_id: int, source: Source) -> int:
    """The Message ID of the request."""
    try:
        with source.open() as stream:
            stream.read(source.data_set_offset)  # members of archives cannot seek cheaply
            return association.request_store(
                context_id=context_id,
                sop_class_uid=source.sop_class_uid,
                sop_instance_uid=source.sop_instance_uid,
                data_set=stream,  # type: ignore[arg-type] # IO[bytes], and all that there are have readinto
            )
    except OSError as error:
        # Half a data set is on the wire: there is no way back but to end the association.
        raise PeerUnreachable(f"{source.name} could not be read to its end: {error.strerror or error}") from error


def _answered(association: Association, chunk: Sequence[Source], asked: dict[int, int]) -> tuple[int, Sent]:
    """The next answer, removed from `asked`: Message ID -> place in `chunk`."""
    response = association.next_response()
    at = datetime.now(UTC)
    index = asked.pop(response.message_id)
    outcome = outcome_of(response, peer=association.address.ae_title)
    if isinstance(outcome, Delivered):
        return index, Sent(source=chunk[index], status="sent", note=outcome.note, responded_at=at)
    note = "; ".join((str(outcome), *getattr(outcome, "__notes__", ())))
    return index, Sent(source=chunk[index], status="failed", note=note, responded_at=at)


def _context(source: Source) -> Context:
    return source.sop_class_uid, source.transfer_syntax_uid


def _chunk(sources: Sequence[Source]) -> Sequence[Source]:
    """As many from the front as have room in one association."""
    contexts: set[Context] = set()
    for index, source in enumerate(sources):
        contexts.add(_context(source))
        if len(contexts) > CONTEXT_COUNT_MAX:
            return sources[:index]
    return sources
