"""Storage SCU: sends instances to a DICOM node by C-STORE, untouched and in the transfer syntax they came in.

Where the peer takes the SOP class and not the transfer syntax, it gets what a `core.ports.Transcoder` makes of the
instance, in explicit VR little endian; the spooled original stays as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Annotated

from pydantic import Field
from pydicom.uid import UID

from router.core.commitment import CommitmentReport, Reference
from router.core.ports import Delivered, Delivery, Transcoder
from router.deliver.answers import outcome_of
from router.deliver.association import CONTEXT_COUNT_MAX, Address, Association, Context
from router.deliver.command import VERIFICATION
from router.deliver.commitment import request_commitment
from router.deliver.intact import intact
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
        keep_open_s: Annotated[float, Field(ge=0, le=60, strict=False)] = 1
        """An association without work is kept this long: instances that come one by one share it."""
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
        self._keep_open_s = settings.keep_open_s
        self._parked: list[tuple[Association, threading.Timer]] = []
        self._lock = threading.Lock()
        self._closed = False

    def send(self, deliveries: Sequence[Delivery], settled: Settled) -> None:
        """Sends in order, and calls `settled` once for each as soon as its answer is known. See core.ports.Destination."""
        for chunk in self._chunks(deliveries):
            gone = self._send_chunk(chunk, settled)
            if gone is not None:
                first, problem = gone
                for index in range(first, len(deliveries)):
                    settled(index, _again(problem))
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
        with self._lock:
            self._closed = True
            parked, self._parked = self._parked, []
        for association, timer in parked:
            timer.cancel()
            association.release()

    def _send_chunk(
        self, chunk: Sequence[tuple[int, Delivery]], settled: Settled
    ) -> tuple[int, PeerUnreachable | AssociationRejected] | None:
        """None, or from which index on nothing can be sent, and why."""
        wanted = [self._wanted(delivery) for _, delivery in chunk]
        line = _Line(self._address, list(dict.fromkeys(context for contexts in wanted for context in contexts)))
        position = 0
        try:
            line.take(self._take_parked(wanted))
            while position < len(chunk):
                index, delivery = chunk[position]
                with ExitStack() as until_sent:
                    ready = self._as_taken(line, delivery, until_sent)
                    try:
                        outcome = self._store(line, delivery, ready) if isinstance(ready, Delivery) else ready
                    except PeerUnreachable as error:
                        line.association.abort()
                        if line.proven:
                            settled(index, AssociationBroke(str(error)))
                            return index + 1, error
                        # The peer gave a parked association up just now. C-STORE is idempotent: a new one will tell.
                        line.open()
                        continue
                settled(index, outcome)
                line.proven = True
                position += 1
        except (PeerUnreachable, AssociationRejected) as error:
            return chunk[position][0], error
        self._park(line.association)
        return None

    def _as_taken(self, line: _Line, delivery: Delivery, until_sent: ExitStack) -> Delivery | RouterError:
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
        return uncompressed if _context(uncompressed) in line.association.accepted else self._not_taken(delivery)

    def _store(self, line: _Line, delivery: Delivery, ready: Delivery) -> Delivered | RouterError:
        outcome = self._transmit(line.association, ready)
        if ready is delivery or not isinstance(outcome, Delivered):
            return outcome
        note = f"sent uncompressed: {self._address.ae_title} does not take {_syntax(delivery)}"
        return Delivered(note="; ".join(part for part in (note, outcome.note) if part))

    def _not_taken(self, delivery: Delivery, more: str = "") -> NoAcceptedContext:
        instance = delivery.instance
        return NoAcceptedContext(
            f"{self._address.ae_title} does not take {UID(instance.sop_class_uid).name} in {_syntax(delivery)}{more}"
        )

    def _transmit(self, association: Association, delivery: Delivery) -> Delivered | RouterError:
        instance = delivery.instance
        try:
            with intact(delivery) as data_set:
                response = association.store(
                    context_id=association.accepted[_context(delivery)],
                    sop_class_uid=instance.sop_class_uid,
                    sop_instance_uid=instance.sop_instance_uid,
                    data_set=data_set,
                )
                fault_point("deliver.answered")
        except PeerUnreachable:
            raise
        except (SpoolDamaged, TransientError) as error:
            return error
        except OSError as error:  # of the file: half a data set is on the wire, so the association has to end
            told = error.strerror or type(error).__name__
            raise PeerUnreachable(f"the spooled file could not be read to its end ({told})") from error
        return outcome_of(response, peer=self._address.ae_title)

    def _wanted(self, delivery: Delivery) -> tuple[Context, ...]:
        """Its own presentation context; then, where there is something to decode, the one of its uncompressed form."""
        own = _context(delivery)
        if self._transcoder is None or own[1] in (_IMPLICIT, _EXPLICIT):
            return (own,)
        return own, (own[0], _EXPLICIT)

    def _chunks(self, deliveries: Sequence[Delivery]) -> Iterator[list[tuple[int, Delivery]]]:
        """In order; each needs no more presentation contexts than one association can have."""
        chunk: list[tuple[int, Delivery]] = []
        contexts: set[Context] = set()
        for index, delivery in enumerate(deliveries):
            wanted = self._wanted(delivery)
            if len(contexts.union(wanted)) > CONTEXT_COUNT_MAX:
                yield chunk
                chunk, contexts = [], set()
            contexts.update(wanted)
            chunk.append((index, delivery))
        if chunk:
            yield chunk

    # ---- associations that wait for work

    def _take_parked(self, wanted: Sequence[Sequence[Context]]) -> Association | None:
        """One that can carry all that is wanted. One that cannot makes room: peers limit how many we may have."""
        while True:
            with self._lock:
                if not self._parked:
                    return None
                fitting = [p for p in self._parked if all(_carries(p[0], contexts) for contexts in wanted)]
                chosen = (fitting or self._parked)[0]
                self._parked.remove(chosen)
            association, timer = chosen
            timer.cancel()
            if fitting and association.alive():
                return association
            association.release()
            if not fitting:
                return None

    def _park(self, association: Association) -> None:
        with self._lock:
            keep = self._keep_open_s > 0 and not self._closed and bool(association.accepted)
            if keep:
                timer = threading.Timer(self._keep_open_s, self._release_parked, args=(association,))
                timer.daemon = True
                self._parked.append((association, timer))
                timer.start()
        if not keep:
            association.release()

    def _release_parked(self, association: Association) -> None:
        with self._lock:
            mine = [parked for parked in self._parked if parked[0] is association]
            for parked in mine:
                self._parked.remove(parked)
        if mine:
            association.release()


def _again(problem: PeerUnreachable | AssociationRejected) -> PeerUnreachable | AssociationRejected:
    """An error of its own for each delivery."""
    return type(problem)(str(problem))


def _context(delivery: Delivery) -> Context:
    return delivery.instance.sop_class_uid, delivery.instance.transfer_syntax_uid


def _syntax(delivery: Delivery) -> str:
    return str(UID(delivery.instance.transfer_syntax_uid).name)


def _carries(association: Association, contexts: Sequence[Context]) -> bool:
    """True when it takes the first of `contexts`, or has refused that and takes another."""
    own, *others = contexts
    return own in association.accepted or (
        own in association.proposed and any(context in association.accepted for context in others)
    )


class _Line:
    """The association that a chunk goes by: there is always one, not always the same."""

    association: Association

    def __init__(self, address: Address, contexts: Sequence[Context]) -> None:
        self._address = address
        self._contexts = contexts
        self.proven = False
        """False while it may be one that the peer gave up before we used it again."""

    def take(self, parked: Association | None) -> None:
        """Raises PeerUnreachable or AssociationRejected."""
        if parked is None:
            self.open()
        else:
            self.association = parked

    def open(self) -> None:
        """A new one. Raises PeerUnreachable or AssociationRejected."""
        self.association = Association(self._address, self._contexts)
        self.proven = True
