"""Storage SCU: sends instances to a DICOM node by C-STORE, untouched and in the transfer syntax they came in.

Where the peer takes the SOP class and not the transfer syntax, it gets what a `core.ports.Transcoder` makes of the
instance, in explicit VR little endian; the spooled original stays as it is.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Annotated

from pydantic import Field
from pydicom.uid import UID

from router.core.commitment import CommitmentReport, Reference
from router.core.ports import Delivered, Delivery, Transcoder
from router.deliver.answers import outcome_of
from router.deliver.association import Address, Association
from router.deliver.command import VERIFICATION
from router.deliver.commitment import request_commitment
from router.deliver.intact import intact, intact_to_its_end
from router.deliver.line import Item, Line, context_of
from router.deliver.negotiation import CONTEXT_COUNT_MAX, Context
from router.deliver.parking import Parking
from router.errors import (
    AssociationBroke,
    AssociationRejected,
    NoAcceptedContext,
    PeerUnreachable,
    RouterError,
    SpoolDamaged,
    TransientError,
    UnreadablePixels,
)
from router.faults import fault_point
from router.settings import AETitle, Port, Seconds, Table

_IMPLICIT = "1.2.840.10008.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
#: So long instances go one by one to a peer that broke an association with several of them outstanding.
_CAREFUL_S = 300

Settled = Callable[[int, Delivered | Exception], None]


class DicomDestination:
    """Plug point `router.destinations`, type "dicom". Any number of threads may send at once, each by its own association."""

    class Settings(Table):
        """[destinations.NAME] with type = "dicom"."""

        ae_title: AETitle
        """Called AE title."""
        host: Annotated[str, Field(min_length=1)]
        port: Port
        calling_ae_title: AETitle | None = None
        """None: node.ae_title."""
        connect_timeout_s: Seconds = 10
        response_timeout_s: Seconds = 60
        """For each answer, and for the peer to take each 128 KiB."""
        keep_open_s: Annotated[float, Field(ge=0, le=60, strict=False)] = 5
        """An association without work is kept this long: instances that come one by one share it."""
        operations_max: Annotated[int, Field(ge=1, le=64)] = 8
        """C-STOREs that may wait for their answers at once, where the peer agrees to more than one. 1: that is not asked for."""
        transcode: bool = True
        """Whether what it does not take compressed is sent to it uncompressed; otherwise that delivery fails."""
        commitment: bool = False
        """Whether it is asked to commit to what it was sent (Storage Commitment Push Model); until then bytes are kept."""
        commitment_gather_s: Annotated[float, Field(ge=0, le=3600)] = 2
        """Instances delivered within this time share a request."""
        commitment_batch_max: Annotated[int, Field(ge=1, le=5000)] = 500
        """Instances of one request."""
        commitment_answer_s: Seconds = 600
        """Without an answer for so long it is asked again; the wait doubles each time, to a day at most."""

    def __init__(
        self, *, name: str, settings: Settings, node_ae_title: str, transcoder: Transcoder | None = None
    ) -> None:
        """`transcoder`: for what the peer does not take as it is; without one, that fails."""
        self.name = name
        self._transcoder = transcoder if settings.transcode else None
        self._address = Address(
            ae_title=settings.ae_title,
            host=settings.host,
            port=settings.port,
            calling_ae_title=settings.calling_ae_title or node_ae_title,
            connect_timeout_s=settings.connect_timeout_s,
            response_timeout_s=settings.response_timeout_s,
        )
        self._parking = Parking(settings.keep_open_s)
        self._operations_max = settings.operations_max
        self._careful_until = -math.inf
        """By time.monotonic(): after an association broke with several instances outstanding."""

    def send(self, deliveries: Sequence[Delivery], settled: Settled) -> None:
        """Sends in order, and calls `settled` once for each as soon as its answer is known. See core.ports.Destination."""
        unsettled = dict.fromkeys(range(len(deliveries)))

        def settle(index: int, outcome: Delivered | Exception) -> None:
            del unsettled[index]
            settled(index, outcome)

        for chunk in self._chunks(deliveries):
            problem = self._send_chunk(chunk, settle)
            if problem is not None:
                for index in list(unsettled):
                    settle(index, _again(problem))
                return

    def echo(self) -> None:
        """Raises PeerUnreachable or AssociationRejected with a diagnosis; returns when the peer is well."""
        context = (VERIFICATION, _IMPLICIT)
        association = Association(self._address, [context])
        try:
            # A peer that takes associations but no C-ECHO is well enough.
            if context in association.accepted:
                association.echo(context_id=association.accepted[context])
        except PeerUnreachable:
            association.abort()
            raise
        association.release()

    def request_commitment(
        self,
        *,
        transaction_uid: str,
        references: Sequence[Reference],
        linger_s: float,
        heard: Callable[[CommitmentReport], None],
    ) -> None:
        """See deliver.commit.Committer."""
        request_commitment(
            self._address, transaction_uid=transaction_uid, references=references, linger_s=linger_s, heard=heard
        )

    def close(self) -> None:
        """Releases the associations that wait for work."""
        self._parking.close()

    def _send_chunk(self, chunk: Sequence[Item], settled: Settled) -> PeerUnreachable | AssociationRejected | None:
        """None, or why nothing more can be sent."""
        wanted = [self._wanted(item.delivery) for item in chunk]
        careful = time.monotonic() < self._careful_until
        todo = deque(chunk)
        try:
            line = Line(
                self._address,
                list(dict.fromkeys(context for contexts in wanted for context in contexts)),
                operations_max=1 if careful else self._operations_max,
                parked=self._parking.take(wanted),
            )
            while todo or line.waits:
                try:
                    self._advance(line, todo, settled)
                except PeerUnreachable as error:
                    lost = line.abandon()
                    if line.proven and len(lost) == 1:
                        settled(lost[0].index, AssociationBroke(str(error)))
                        return error
                    if line.proven and lost:  # one of several: sent one by one, it will show which
                        self._careful_until = time.monotonic() + _CAREFUL_S
                        line.one_by_one()
                    # Else the peer gave a parked association up just now. C-STORE is idempotent: a new one will tell.
                    todo.extendleft(reversed(lost))
                    line.open()
        except (PeerUnreachable, AssociationRejected) as error:
            return error
        self._parking.park(line.association)
        return None

    def _advance(self, line: Line, todo: deque[Item], settled: Settled) -> None:
        """Sends the next instance, or takes an answer. Raises PeerUnreachable, AssociationRejected."""
        if not (todo and line.has_room()) or (line.waits and line.association.answer_waits()):
            self._take_answer(line, settled)
            return
        item = todo[0]
        own = context_of(item.delivery)
        if own not in line.association.accepted and line.waits:
            self._take_answer(line, settled)  # decoding takes long: what is outstanding is settled before
            return
        with ExitStack() as until_sent:
            form = self._as_taken(line, item.delivery, until_sent)
            todo.popleft()
            problem = self._transmit(line, item, form) if isinstance(form, Delivery) else form
        if problem is None:
            return
        settled(item.index, problem)
        if line.association.cut_off:  # the others that are outstanding are to blame for nothing
            todo.extendleft(reversed([lost for lost in line.abandon() if lost is not item]))
            line.open()

    def _take_answer(self, line: Line, settled: Settled) -> None:
        item, form, response = line.answer()
        fault_point("deliver.answered")
        outcome = outcome_of(response, peer=self._address.ae_title)
        if form is not item.delivery and isinstance(outcome, Delivered):
            note = f"sent uncompressed: {self._address.ae_title} does not take {_syntax(item.delivery)}"
            outcome = Delivered(note="; ".join(part for part in (note, outcome.note) if part))
        settled(item.index, outcome)

    def _as_taken(self, line: Line, delivery: Delivery, until_sent: ExitStack) -> Delivery | RouterError:
        """The delivery in a transfer syntax that the peer takes, or why there is none. May open the association anew."""
        own, *others = self._wanted(delivery)
        if own in line.association.accepted:
            return delivery
        if self._transcoder is None or not any(context in line.association.accepted for context in others):
            return self._not_taken(delivery)
        try:
            with intact(delivery):
                pass  # what is damaged here is not decoded
            uncompressed = until_sent.enter_context(self._transcoder.uncompressed(delivery))
        except UnreadablePixels as error:
            return self._not_taken(delivery, f", only uncompressed, and it cannot be decompressed: {error}")
        except (SpoolDamaged, TransientError) as error:
            return error
        if not line.association.alive():
            # Decoding took longer than the peer lets an association idle: no instance is to blame.
            line.association.abort()
            line.open()
        return uncompressed if context_of(uncompressed) in line.association.accepted else self._not_taken(delivery)

    def _not_taken(self, delivery: Delivery, more: str = "") -> NoAcceptedContext:
        instance = delivery.instance
        return NoAcceptedContext(
            f"{self._address.ae_title} does not take {UID(instance.sop_class_uid).name} in {_syntax(delivery)}{more}"
        )

    def _transmit(self, line: Line, item: Item, form: Delivery) -> RouterError | None:
        """None: sent, its answer will come. Raises PeerUnreachable."""
        try:
            with intact_to_its_end(form) as data_set:
                line.send(item, form, data_set)
        except PeerUnreachable:
            raise
        except (SpoolDamaged, TransientError) as error:
            return error
        except OSError as error:
            told = error.strerror or type(error).__name__
            raise PeerUnreachable(f"the spooled file could not be read to its end ({told})") from error
        return None

    def _wanted(self, delivery: Delivery) -> tuple[Context, ...]:
        """Its own presentation context; then, where there is something to decode, the one of its uncompressed form."""
        own = context_of(delivery)
        if self._transcoder is None or own[1] in (_IMPLICIT, _EXPLICIT):
            return (own,)
        return own, (own[0], _EXPLICIT)

    def _chunks(self, deliveries: Sequence[Delivery]) -> Iterator[list[Item]]:
        """In order; each needs no more presentation contexts than one association can have."""
        chunk: list[Item] = []
        contexts: set[Context] = set()
        for index, delivery in enumerate(deliveries):
            wanted = self._wanted(delivery)
            if len(contexts.union(wanted)) > CONTEXT_COUNT_MAX:
                yield chunk
                chunk, contexts = [], set()
            contexts.update(wanted)
            chunk.append(Item(index=index, delivery=delivery))
        if chunk:
            yield chunk


def _again(problem: PeerUnreachable | AssociationRejected) -> PeerUnreachable | AssociationRejected:
    """An error of its own for each delivery."""
    return type(problem)(str(problem))


def _syntax(delivery: Delivery) -> str:
    return str(UID(delivery.instance.transfer_syntax_uid).name)
