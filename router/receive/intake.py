"""The way of one instance from its first byte to the status that we answer. Success is the last line of it.

bytes to a temporary file, digest on the way → routing header → admitted? → planned? → file and folder synced → instance,
plan and tasks in one ledger transaction → 0x0000. Whatever fails on that way is answered with a failure status.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from router.core import commitment
from router.core.admission import (
    CANNOT_UNDERSTAND,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
    Identity,
    Limits,
    Refused,
    admit,
    room,
    valid_uid,
)
from router.core.digest import Algorithm, Hasher, others
from router.core.instance import SopInstance
from router.core.ports import Clock, Ledger, Receipt, Spool, SpoolWriter
from router.core.rules import Plan
from router.dimse import status
from router.dimse.contexts import VERIFICATION
from router.dimse.store import Answer, StoreRequest
from router.errors import RefusedError, RouterError
from router.faults import fault_point
from router.observe import meters
from router.observe.log import emit
from router.receive.header import read_header
from router.spool.part10 import file_head

#: How much may arrive before the free space is looked at again.
_ROOM_CHECK_BYTE_COUNT = 2**23


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The parts of the node that an instance meets on its way in."""

    spool: Spool
    ledger: Ledger
    plan: Callable[[SopInstance], Plan]
    clock: Clock
    limits: Limits
    keywords: Collection[str]
    """DICOM keywords of the routing header."""
    digest: Algorithm

    def open(self, request: StoreRequest) -> InstanceSink:
        """Where the data set of a C-STORE-RQ goes."""
        return InstanceSink(request, self)

    def room_for(self, byte_count: int) -> Refused | None:
        """None when so many bytes of a data set, of which all but the last few are on disk already, may stay."""
        try:
            free = self.spool.free_byte_count()
        except OSError as error:
            return _disk_refusal(error)
        refused = room(free_byte_count=free, byte_count=0, limits=self.limits)
        if refused is not None:
            emit("spool.short", level=logging.WARNING, free_byte_count=free, reason=refused.reason)
            return refused
        # The size alone: what has arrived is on disk and no longer counted as free.
        return room(
            free_byte_count=self.limits.free_byte_count_min + byte_count, byte_count=byte_count, limits=self.limits
        )


class InstanceSink:
    """One instance on its way in; see dimse.store.DataSetSink."""

    def __init__(self, request: StoreRequest, intake: Intake) -> None:
        self._request = request
        self._intake = intake
        self._begun_s = time.monotonic()
        self._byte_count = 0
        self._checked_byte_count = 0
        self._digest = Hasher(intake.digest)
        self._head_byte_count = 0
        self._writer: SpoolWriter | None = None
        self._refused = self._refusal_of_request() or intake.room_for(0)
        if self._refused is None:
            self._open_writer()

    def write(self, parts: Sequence[memoryview]) -> None:
        """Takes the next bytes; once the instance is refused, only counts them."""
        self._byte_count += sum(map(len, parts))
        if self._refused is not None or self._writer is None:
            return
        if self._byte_count > self._intake.limits.dataset_byte_count_max or (
            self._byte_count - self._checked_byte_count >= _ROOM_CHECK_BYTE_COUNT
        ):
            self._checked_byte_count = self._byte_count
            if refused := self._intake.room_for(self._byte_count):
                self._refuse(refused)
                return
        try:
            self._writer.write(*parts)
        except OSError as error:
            self._refuse(_disk_refusal(error))
            return
        for part in parts:
            self._digest.update(part)

    def finish(self) -> Answer:
        """The status of the whole instance: Success only when it is durable and everything owed for it is written down."""
        refused, begun_s = self._refused, time.monotonic()
        if refused is None:
            try:
                answer = self._take()
            except RefusedError as error:
                refused = Refused(status=error.status, reason=str(error))
            except OSError as error:
                refused = _disk_refusal(error)
            else:
                if answer.status == status.SUCCESS:
                    meters.durable(time.monotonic() - begun_s)
                return answer
        self._refuse(refused)
        self._tell("instance.refused", level=logging.WARNING, status=f"0x{refused.status:04X}", reason=refused.reason)
        return Answer(status=refused.status, comment=refused.reason)

    def discard(self) -> None:
        """Removes every trace of what is not committed."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.discard()

    def _take(self) -> Answer:
        """Raises RefusedError, OSError; then nothing was acknowledged and no row was written."""
        writer = self._writer
        assert writer is not None, "an instance without a writer was refused"
        instance = self._instance(writer)
        plan = self._intake.plan(instance)
        if not plan.taken:
            raise RefusedError(
                "no rule takes this instance and default_deliver is empty", status=SOP_CLASS_NOT_SUPPORTED
            )
        instance = replace(instance, spool_key=writer.commit())
        self._writer = None
        try:
            receipt = self._accepted(instance, plan)
        except Exception as error:  # noqa: BLE001 - drivers raise their own; none of it is Success
            # The file stays: after an error during a commit nobody knows whether the row exists, and a row without its
            # file would be a lost image. The janitor asks the ledger and removes it when it is an orphan.
            self._tell("instance.refused", level=logging.ERROR, status=f"0x{OUT_OF_RESOURCES:04X}", exc_info=error)
            return Answer(status=OUT_OF_RESOURCES, comment="the ledger could not write this down")
        self._received(instance, plan, receipt)
        return Answer(status=status.SUCCESS)

    def _accepted(self, instance: SopInstance, plan: Plan) -> Receipt:
        """What the ledger made of it. Raises what the database raises, OSError, RouterError."""
        receipt = self._intake.ledger.accept(instance, plan)
        if receipt is Receipt.UNDECIDED:
            receipt = self._intake.ledger.accept(instance, plan, also=self._other_digests(instance))
            if receipt is Receipt.UNDECIDED:  # nothing was written, and what is not written is never Success
                raise RouterError("the ledger cannot tell whether it has these bytes")
        return receipt

    def _other_digests(self, instance: SopInstance) -> list[str]:
        """Of the file that was committed, by the algorithms that it was not hashed by while it came. Raises OSError."""
        digests = []
        for algorithm in others(instance.digest):
            hasher = Hasher(algorithm)
            with self._intake.spool.path(instance.spool_key).open("rb") as file:
                file.seek(self._head_byte_count)
                hasher.update_to_end(file)
            digests.append(hasher.text())
        return digests

    def _instance(self, writer: SpoolWriter) -> SopInstance:
        received_at = self._intake.clock.now()
        header = read_header(
            writer.reader(),
            offset=self._head_byte_count,
            byte_count=self._byte_count,
            transfer_syntax_uid=self._request.transfer_syntax_uid,
            keywords=self._intake.keywords,
        )
        request = self._request
        refused = admit(
            command=Identity(sop_class_uid=request.sop_class_uid, sop_instance_uid=request.sop_instance_uid),
            context_sop_class_uid=request.context_sop_class_uid,
            dataset=header.identity,
        )
        if refused is not None:
            raise RefusedError(refused.reason, status=refused.status)
        return SopInstance(
            sop_instance_uid=request.sop_instance_uid,
            sop_class_uid=request.sop_class_uid,
            study_instance_uid=header.identity.study_instance_uid,
            series_instance_uid=header.identity.series_instance_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            digest=self._digest.text(),
            byte_count=self._byte_count,
            spool_key="",
            received_at=received_at,
            calling_ae_title=request.peer.calling_ae_title,
            called_ae_title=request.peer.called_ae_title,
            peer_host=request.peer.host,
            made_by_router=header.made_by_router,
            header=header.values,
        )

    def _received(self, instance: SopInstance, plan: Plan, receipt: Receipt) -> None:
        events = {Receipt.DUPLICATE: "instance.duplicate", Receipt.CONFLICT: "instance.conflict"}
        if receipt is Receipt.DUPLICATE:
            fault_point("duplicate.known")
            with suppress(OSError):  # then it is an orphan, and the janitor's
                self._intake.spool.delete(instance.spool_key)
        self._tell(
            events.get(receipt, "instance.received"),
            level=logging.WARNING if receipt is Receipt.CONFLICT else logging.INFO,
            status="0x0000",
            study_instance_uid=_loggable(instance.study_instance_uid),
            digest=instance.digest,
            spool_key=instance.spool_key,
            rules=plan.rules,
            classify=[order.classifier for order in plan.classify],
            deliver=plan.deliver,
            notes=plan.notes,
        )

    def _refusal_of_request(self) -> Refused | None:
        """What can be said before the data set."""
        if self._request.context_sop_class_uid in (VERIFICATION, commitment.SOP_CLASS_UID):
            return Refused(
                status=SOP_CLASS_NOT_SUPPORTED, reason="C-STORE on a presentation context of another service"
            )
        for name, uid in (
            ("SOP Class UID", self._request.sop_class_uid),
            ("SOP Instance UID", self._request.sop_instance_uid),
        ):
            if not valid_uid(uid):
                return Refused(status=CANNOT_UNDERSTAND, reason=f"Affected {name} of the command is not a UID")
        return None

    def _open_writer(self) -> None:
        head = file_head(
            sop_class_uid=self._request.sop_class_uid,
            sop_instance_uid=self._request.sop_instance_uid,
            transfer_syntax_uid=self._request.transfer_syntax_uid,
            source_ae_title=self._request.peer.calling_ae_title,
        )
        self._head_byte_count = len(head)
        try:
            self._writer = self._intake.spool.writer()
            self._writer.write(head)
        except OSError as error:
            self._refuse(_disk_refusal(error))

    def _refuse(self, refused: Refused) -> None:
        self._refused = refused
        self.discard()

    def _tell(self, event: str, *, level: int, exc_info: BaseException | None = None, **fields: object) -> None:
        """The canonical line of this instance; UIDs of the command only where they are UIDs."""
        request = self._request
        emit(
            event,
            level=level,
            exc_info=exc_info or False,
            sop_instance_uid=_loggable(request.sop_instance_uid),
            sop_class_uid=_loggable(request.sop_class_uid),
            transfer_syntax_uid=request.transfer_syntax_uid,
            calling_ae_title=request.peer.calling_ae_title,
            called_ae_title=request.peer.called_ae_title,
            host=request.peer.host,
            byte_count=self._byte_count,
            duration_ms=round((time.monotonic() - self._begun_s) * 1000, 1),
            **fields,
        )


def _loggable(uid: str) -> str | None:
    """A UID; None for other text, which may be anything, a patient's name among it."""
    return uid if valid_uid(uid) else None


def _disk_refusal(error: OSError) -> Refused:
    return Refused(
        status=OUT_OF_RESOURCES, reason=f"the spool cannot be written: {error.strerror or type(error).__name__}"
    )
