"""The seams between the packages: small Protocols and the values that cross them. `node.build_node` joins them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from router.core.commitment import CommitmentReport, CommitmentRequest, Standing
from router.core.findings import ClassifierIdentity, NotAnalysed, Outcome, Prediction
from router.core.instance import InstanceKind, Reference, SopInstance
from router.core.lifecycle import TaskKind
from router.core.notices import Notice
from router.core.rules import Plan
from router.core.sight import Layer, Sight

if TYPE_CHECKING:
    from router.core.childproto import Request
    from router.errors import ChildDied


class Clock(Protocol):
    """The time, as an argument."""

    def now(self) -> datetime:
        """Aware, UTC."""
        ...


# ---- receive -> spool -> ledger


class Readable(Protocol):
    """As much of a file as reading a header needs."""

    def seek(self, position: int, /) -> int: ...
    def read(self, byte_count: int, /) -> bytes: ...


class SpoolWriter(Protocol):
    """One instance on its way to the disk. Leave it by `commit`; `discard` removes every trace and may be called twice."""

    def write(self, *parts: bytes | bytearray | memoryview) -> None:
        """Appends. Raises OSError (ENOSPC among them)."""
        ...

    def reader(self) -> Readable:
        """What has been written so far, from its first byte; until `commit` or `discard`. Raises OSError."""
        ...

    def commit(self) -> str:
        """The spool key, once file and folder are synced. Raises OSError; then nothing may be acknowledged."""
        ...

    def discard(self) -> None: ...


class Spool(Protocol):
    """Bytes on disk, nothing else. Names never come from a peer."""

    def writer(self) -> SpoolWriter: ...
    def put(self, data: bytes) -> str:
        """writer + write + commit."""
        ...

    def path(self, spool_key: str) -> Path:
        """Of a DICOM file. Raises SpoolDamaged for a key that is not ours or a file that is gone."""
        ...

    def delete(self, spool_key: str) -> None:
        """Frees the bytes; a file that is gone already is no error."""
        ...

    def free_byte_count(self) -> int: ...


class Receipt(StrEnum):
    """What the ledger made of an instance."""

    NEW = "new"
    DUPLICATE = "duplicate"
    """Same SOP Instance UID, same bytes: nothing new is owed, and the caller removes its copy of the bytes.

    Unless something failed of it or its bytes are gone: then the new copy takes over (NEW), and what failed is tried again.
    """
    CONFLICT = "conflict"
    """Same SOP Instance UID, other bytes: kept apart, delivered as the rules say, shown."""
    UNDECIDED = "undecided"
    """Same SOP Instance UID, and a digest by another algorithm: nothing was written. See `Ledger.accept`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What every owed piece of work has, once it is leased to us."""

    task_id: int
    kind: TaskKind
    target: str
    """Name of a classifier or of a destination."""
    attempts: int
    """This one included; (task_id, attempts, lease) is the fencing token."""
    lease: str = ""
    """Opaque: which claim this is. Attempts start again when an operator puts a task back, leases never repeat."""
    options: dict[str, Any] = field(default_factory=dict)
    """CLASSIFY: {"results": [...], "results_to": [...]}; SUMMARISE: {"results_to": [...]}; DELIVER and COMMIT: {"resent": how often}, if ever."""

    @property
    def uid(self) -> str:
        """What it is about, for the log."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Claimed):
    """One owed piece of work on one instance."""

    instance: SopInstance

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.instance.sop_instance_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTask(Claimed):
    """A peer that asked for storage commitment has to hear of it (TaskKind.REPORT)."""

    request: CommitmentRequest

    @property
    def uid(self) -> str:
        """Transaction UID."""
        return self.request.transaction_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeTask(Claimed):
    """People have to be told of something (TaskKind.NOTIFY); the target is a [notify.NAME]."""

    notice: Notice

    @property
    def uid(self) -> str:
        """Of the message."""
        return self.notice.uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """A result object that is spooled already, and where it should go."""

    instance: SopInstance
    destinations: tuple[str, ...]
    also: Callable[[], Collection[str]] = tuple
    """Computes the digests of the same bytes by the other algorithms; rarely asked. See `Ledger.accept`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyImage:
    """One image of a study that a classifier was to look at."""

    instance: SopInstance
    outcome: Outcome | None
    """None: it has none yet, or the task failed."""
    waiting: bool
    """It is still to be looked at."""
    reports: tuple[SopInstance, ...]
    """The SRs that the classifier made of it, newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What one classifier knows of one study."""

    study_instance_uid: str
    images: tuple[StudyImage, ...]
    """In the order in which they came."""
    summaries: tuple[SopInstance, ...]
    """The documents made of them so far, newest first."""


class Ledger(Protocol):
    """The one record of what is owed and done. Every method that writes returns after the commit."""

    def accept(self, instance: SopInstance, plan: Plan, *, also: Collection[str] | None = None) -> Receipt:
        """Instance, plan, tasks and event in one transaction. Raises OSError-like errors of the database as they are.

        `also`: digests of the same bytes by every other algorithm. Without them the answer may be UNDECIDED, and then
        nothing was written: offer it again with them.
        """
        ...

    def claim(self, kind: TaskKind, target: str, *, lease_s: float, limit: int) -> list[Task]:
        """Up to `limit` due tasks, oldest first, leased to us for `lease_s`; none when nothing is due."""
        ...

    def made_before(self, task: Task) -> list[SopInstance]:
        """The SRs that the target of a classify task has made of the same image before, newest first."""
        ...

    def study(self, task: Task) -> Study:
        """What a summarise task is about, as it stands now."""
        ...

    def complete(
        self,
        task: Task,
        *,
        note: str = "",
        outcome: Outcome | None = None,
        produced: Sequence[Produced] = (),
    ) -> None:
        """Checks the lease, then: task done + outcome + results + their deliver tasks, in one transaction.

        A delivery that produced something was not made: what it produced is delivered instead.

        Raises LeaseLost, and then has written nothing.
        """
        ...

    def delivered(self, deliveries: Sequence[tuple[Task, str]], *, commit: bool = False) -> list[Task]:
        """Deliveries that their destination has taken, each with what it remarked, are done: all in one transaction.

        Returns those whose lease was lost, of which nothing is written.
        `commit`: the destination must now also commit to them (TaskKind.COMMIT).
        """
        ...

    def defer(self, task: Claimed, *, error: str, at: datetime | None) -> None:
        """Another try at `at`, or failed for good when None. Raises LeaseLost."""
        ...

    def release(self, task: Claimed, *, at: datetime, reason: str) -> None:
        """Gives the task back as if it had not been tried (a destination that is down burns no attempts)."""
        ...

    def renew(self, tasks: Sequence[Claimed], *, lease_s: float) -> None:
        """Lets those leases that are still ours end `lease_s` from now; lost ones stay lost."""
        ...

    def wait(self, kind: TaskKind, target: str, *, timeout_s: float) -> None:
        """Sleeps until a task of this kind and target may be due, until `wake`, or until `timeout_s` is over. No polling."""
        ...

    def wake(self, kind: TaskKind, target: str) -> None:
        """Ends every `wait` for this kind and target."""
        ...


# ---- storage commitment


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What became of the instances of one answer."""

    target: str
    committed: tuple[str, ...] = ()
    """SOP Instance UIDs."""
    resent: tuple[str, ...] = ()
    """They are delivered once more."""
    asked_again: tuple[str, ...] = ()
    """The destination could not say."""
    failed: tuple[str, ...] = ()
    """They wait for an operator."""


class Commitments(Protocol):
    """The ledger as far as storage commitment goes: what peers asked of us, and what we asked of destinations."""

    def take(self, request: CommitmentRequest, *, lease_s: float) -> list[ReportTask]:
        """Writes the request and the report that is owed for it, in one transaction.

        With `lease_s` over 0 that report, and others that this peer waits for, are claimed for the caller, who may
        give them on the association that is open; otherwise they are due at once.
        """
        ...

    def standings(self, sop_instance_uids: Collection[str]) -> Mapping[str, Sequence[Standing]]:
        """How instances stand now; those that the ledger does not know are absent."""
        ...

    def reported(self, task: ReportTask, report: CommitmentReport) -> None:
        """The peer has the report. Raises LeaseLost."""
        ...

    def ask(self, transaction_uid: str, target: str, tasks: Sequence[Task]) -> None:
        """A destination is about to be asked to commit to the instances of these tasks."""
        ...

    def postpone(self, tasks: Sequence[Task], *, error: str, at: datetime | None, tried: bool = True) -> None:
        """Those that are still ours: due again at `at`, or failed for good when None; as if not tried when `tried` is false.

        What has been answered meanwhile stays answered.
        """
        ...

    def answered(self, report: CommitmentReport, *, resends_max: int) -> Answered:
        """A destination's answer to `ask`: what it keeps is committed, what it lacks is owed again. Raises KeyError for
        a Transaction UID that is none of ours. The same answer again changes nothing.
        """
        ...


# ---- classify -> report


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """A finished DICOM file (PS3.10) that a result builder made."""

    kind: InstanceKind
    data: bytes
    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    notes: tuple[str, ...] = ()
    """What was repaired or left out on the way; shown, never logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What the classify child makes of one image: an outcome, and the result objects asked for."""

    outcome: Outcome
    results: tuple[ResultObject, ...] = ()
    not_reported: str = ""
    """Plain English: why a result object that was asked for is not among them; empty when all are."""
    layers: tuple[Layer, ...] = ()
    """Strongest finding first; none unless asked for."""


class Analyst(Protocol):
    """The classify child as its parent sees it."""

    def analyse(
        self,
        classifier: str,
        instance: SopInstance,
        path: Path,
        results: Sequence[str],
        *,
        made_before: Sequence[Reference] = (),
        given: NotAnalysed | None = None,
    ) -> Analysis:
        """`made_before`: SRs of this image by this classifier, newest first. `given`: the image is not looked at again,
        only what is asked for is made of this outcome.

        Raises ChildDied when the child crashed, hung or ran out of memory over this image (it is a new one by the next
        call), ChildNotReady when it cannot be started.
        """
        ...


@runtime_checkable
class BatchAnalyst(Analyst, Protocol):
    """An analyst that computes several images together where that is faster."""

    @property
    def batch_max(self) -> int:
        """How many images are best asked about together."""
        ...

    def analyse_all(self, requests: Sequence[Request]) -> Sequence[Analysis | ChildDied]:
        """An answer to each, in order; ChildDied for those that the child had none for. Raises ChildNotReady."""
        ...


@runtime_checkable
class ResultBuilder(Protocol):
    """Plug point `router.results`."""

    def build(self, source: Any, instance: SopInstance, prediction: Prediction) -> ResultObject | None:
        """`source` is the image's pydicom Dataset (header; pixels are not needed). Raises NotReportable.

        None: there is nothing to make of this prediction, which is no error. The same arguments give the same bytes: times in the object come from `instance.received_at`.
        """
        ...


@runtime_checkable
class SupersedingBuilder(ResultBuilder, Protocol):
    """A builder whose documents name the one whose place they take."""

    def build_after(
        self, source: Any, instance: SopInstance, prediction: Prediction, made_before: Sequence[Reference]
    ) -> ResultObject:
        """`build`, with the documents made of this image before, newest first. Raises NotReportable."""
        ...


@runtime_checkable
class Illustrator(Protocol):
    """Plug point `router.results` too: a builder of objects that show the image and where its findings come from."""

    def illustrate(
        self, source: Any, instance: SopInstance, prediction: Prediction, sight: Callable[[], Sight]
    ) -> ResultObject | None:
        """As `ResultBuilder.build`; `sight` decodes nothing again, and costs some ten milliseconds when it is called."""
        ...


@runtime_checkable
class Explainer(Protocol):
    """Plug point `router.results` too: a builder of documents that say why there is no prediction."""

    def explain(
        self, source: Any, instance: SopInstance, outcome: NotAnalysed, classifier: ClassifierIdentity
    ) -> ResultObject:
        """Raises NotReportable. The same arguments give the same bytes."""
        ...


# ---- deliver


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMark:
    """What a file looked like. Writing to it, or setting its times, changes `ctime_ns`, which nobody can set."""

    device: int
    inode: int
    byte_count: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One instance to send: what it is and where its bytes lie."""

    instance: SopInstance
    path: Path
    received_as: FileMark | None = None
    """What the file looked like when this process had just received it; a file that still looks so is what it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The destination has it; `note` says what it remarked (0xB000, 0xB006, 0xB007), in plain English."""

    note: str = ""


class Transcoder(Protocol):
    """Decodes what a destination does not take compressed, elsewhere than in this process."""

    def uncompressed(self, delivery: Delivery) -> AbstractContextManager[Delivery]:
        """The same SOP instance in explicit VR little endian, in a file that is gone when the context is left.

        Raises UnreadablePixels, whose text says why it cannot be had; TransientError when there is no room for it now.
        """
        ...


class Destination(Protocol):
    """Plug point `router.destinations`."""

    def send(self, deliveries: Sequence[Delivery], settled: Callable[[int, Delivered | Exception], None]) -> None:
        """Sends in order; calls `settled(index, outcome)` once for each, as soon as its answer is known.

        An outcome is Delivered, a TransientError or a PermanentError. When the peer goes away the rest are settled with
        PeerUnreachable. Raises nothing.
        """
        ...

    def echo(self) -> None:
        """Raises PeerUnreachable or AssociationRejected with a diagnosis; returns when the peer is well."""
        ...

    def close(self) -> None: ...


# ---- work


class Step(Protocol):
    """What a worker does with the tasks it claimed."""

    def run(self, tasks: Sequence[Any]) -> None:
        """Settles every task by the ledger; raises nothing but programming errors. Tasks are Task, ReportTask or NoticeTask."""
        ...
