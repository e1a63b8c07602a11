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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one instance."""

    source: Source
    status: Literal["sent", "failed"]
    note: str = ""
    """Plain English: why it failed, or what the peer remarked."""
    responded_at: datetime | None = None
    """Aware, UTC: when the C-STORE response came."""


def send(address: Address, sources: Sequence[Source]) -> Iterator[Sent]:
    """Sends in order, over one association for every 128 different presentation contexts; one `Sent` for each source.

    A peer that goes away in the middle is called once more for the rest; a second time in a row, the rest has failed.
    """
    rest = list(sources)
    strikes = 0
    while rest:
        chunk = _chunk(rest)
        done = 0
        try:
            for sent in _over_one_association(address, chunk):
                yield sent
                done += 1
                strikes = 0
        except (PeerUnreachable, AssociationRejected) as error:
            strikes += 1
            if strikes > 1 or done == 0:
                yield from (Sent(source=source, status="failed", note=str(error)) for source in rest[done:])
                return
        rest = rest[done:]


def _over_one_association(address: Address, chunk: Sequence[Source]) -> Iterator[Sent]:
    association = Association(address, list(dict.fromkeys(map(_context, chunk))))
    try:
        for source in chunk:
            yield _store(association, source)
    except BaseException:
        association.abort()
        raise
    association.release()


def _store(association: Association, source: Source) -> Sent:
    context_id = association.accepted.get(_context(source))
    if context_id is None:
        syntax, peer = UID(source.transfer_syntax_uid).name, association.address.ae_title
        return Sent(
            source=source, status="failed", note=f"{peer} does not take {UID(source.sop_class_uid).name} in {syntax}"
        )
    try:
        with source.open() as stream:
            stream.read(source.data_set_offset)  # members of archives cannot seek cheaply
            response = association.store(
                context_id=context_id,
                sop_class_uid=source.sop_class_uid,
                sop_instance_uid=source.sop_instance_uid,
                data_set=stream,  # type: ignore[arg-type] # IO[bytes] of an archive's member; only readinto is used
            )
    except OSError as error:
        # Half a data set is on the wire: there is no way back but to end the association.
        raise PeerUnreachable(f"{source.name} could not be read to its end: {error.strerror or error}") from error
    at = datetime.now(UTC)
    outcome = outcome_of(response, peer=association.address.ae_title)
    if isinstance(outcome, Delivered):
        return Sent(source=source, status="sent", note=outcome.note, responded_at=at)
    note = "; ".join((str(outcome), *getattr(outcome, "__notes__", ())))
    return Sent(source=source, status="failed", note=note, responded_at=at)


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
