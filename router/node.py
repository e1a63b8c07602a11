"""Composition root: the only module that knows every concrete class of the node. It joins parts; it decides nothing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from router import __version__, registry
from router.audit import events as audit_events
from router.audit.message import AuditMessage
from router.audit.trail import AuditTrail, open_trail, process_owner
from router.classify.step import ClassifyStep
from router.confinement import no_core_dumps
from router.core.admission import Limits
from router.core.commitment import CommitmentReport, CommitmentRequest, Promise, report_on
from router.core.lifecycle import TaskKind
from router.core.retry import RetryPolicy
from router.core.uids import digest
from router.deliver.address import address_of
from router.deliver.commit import ASK_CAP_S, CommitStep, Committer
from router.deliver.dicom import DicomDestination
from router.deliver.fresh import FreshFiles
from router.deliver.notify import ReportStep, Requestors
from router.deliver.step import DeliverStep
from router.ending import Ending
from router.errors import ChildNotReady, ConfigError
from router.ledger.commitments import REPORT_TARGET
from router.ledger.reports import OwnLane
from router.ledger.store import SqlLedger
from router.notify.watch import Watch
from router.notifying import build_notifying
from router.notifying import waits as waits_of_notices
from router.observe import meters
from router.observe.log import configure, emit, log_uncaught
from router.observe.traces import Tracer, build_tracer
from router.receive.commitment import CommitmentDesk
from router.receive.scp import StorageScp
from router.report.summarise import SummariseStep
from router.report.variant import variant
from router.settings import ClassifierSettings, DestinationSettings, Settings
from router.spool.files import FileSpool
from router.web.app import House, build_app
from router.web.classifiers import Configured
from router.web.connections import ConnectionLimits
from router.web.darkroom import Darkroom
from router.web.door import Door, check_access
from router.web.drifts import DriftWatch
from router.web.maps import Maps
from router.web.server import WebServer
from router.web.snapshot import StatusReader
from router.web.users import make_first_user
from router.work.analyst import ChildAnalyst
from router.work.clock import SystemClock
from router.work.crew import Crew, child_count
from router.work.janitor import Janitor
from router.work.transcoder import ChildTranscoder
from router.work.worker import Lane, OpenGate, Worker

_SUMMARISE_BATCH = 4
#: How often an instance that a destination does not commit to is sent again.
_RESENDS_MAX = 3
#: Reports to peers: so many at once, so that one that does not answer holds up few others.
_REPORT_WORKERS, _REPORT_BATCH = 2, 8
_REPORT_FIRST_S, _REPORT_CAP_S = 5.0, 600.0


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node whose parts are joined. `start`, then `drain`; or `stop` at once."""

    settings: Settings
    spool: FileSpool
    ledger: SqlLedger
    scp: StorageScp
    web: WebServer
    audit: AuditTrail
    workers: Sequence[Worker]
    analysts: Sequence[ChildAnalyst]
    destinations: Sequence[Any]
    janitor: Janitor
    watch: Watch
    tracer: Tracer

    def start(self) -> None:
        """Opens the ports and begins to work; the classify children get ready meanwhile."""
        me = audit_node(self.settings)
        self._record(audit_events.configured(me, sha256=digest(self.settings.model_dump(mode="json"))))
        self._record(audit_events.started(me, by=process_owner()))
        self.scp.start()  # first: it may find its port taken, and then nothing else has begun
        for worker in self.workers:
            worker.start()
        self.janitor.start()
        self.watch.start()
        self.tracer.start()
        self.web.start()
        emit("node.ready", port=self.scp.port, web_port=self.web.port)

    def warm_up(self) -> None:
        """Starts the classify children now, so that the first image need not wait for them; returns at once.

        Not by the main thread: on a busy machine a child needs long, and SIGTERM must not wait for it.
        """

        def start() -> None:
            for analyst in self.analysts:
                if analyst.in_reserve:
                    continue
                with contextlib.suppress(ChildNotReady):  # logged where it happened; the worker tries again
                    analyst.start()

        threading.Thread(target=start, name="warm-up", daemon=True).start()

    def drain(self) -> None:
        """No new associations; what is in hand is finished, as far as node.drain_timeout_s allows."""
        timeout_s = self.settings.node.drain_timeout_s
        end = time.monotonic() + timeout_s
        self.scp.drain()
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.join(max(0.0, end - time.monotonic()))
        self.stop()

    def stop(self) -> None:
        """Ends everything now. What was in hand is owed still, and done after the next start."""
        self.scp.stop()
        self.web.stop()
        self.janitor.stop()
        self.watch.stop()
        self.tracer.stop()
        for analyst in self.analysts:
            analyst.close()
        for destination in self.destinations:
            destination.close()
        self.ledger.close()
        self.spool.close()
        self._record(audit_events.stopped(audit_node(self.settings), by=process_owner()))
        self.audit.close()

    def _record(self, message: AuditMessage) -> None:
        """Images are taken in and delivered also when the audit trail has no room: it has told its trouble."""
        with contextlib.suppress(OSError):
            self.audit.record(message)


def serve(settings: Settings) -> int:
    """Runs a node until SIGTERM or SIGINT; a second one ends it at once. Returns the exit code.

    Raises ConfigError or WeightsUnavailable before any port is open.
    """
    configure(settings.log.level)
    log_uncaught()
    no_core_dumps()
    make_first_user(settings.web.users_file, os.environ.get("ROUTER_PASSWORD", ""))
    check_access(settings.web)
    emit("node.starting", version=__version__, ae_title=settings.node.ae_title, pid=os.getpid())
    for classifier in settings.classifiers.values():
        _plugin("router.classifiers", classifier).check()
    with Ending() as ending:
        node = build_node(settings)
        try:
            node.start()
            node.warm_up()
            ending.wait()
        except BaseException:
            emit("node.failed", level=logging.ERROR, exc_info=True)
            node.stop()
            raise
        emit("node.draining")
        node.drain()
    emit("node.stopped")
    return 1 if node.ledger.taken_over_by else 0


def build_node(settings: Settings) -> Node:
    """Every part, joined and not started. Raises ConfigError when folder, ledger or port cannot be used."""
    clock = SystemClock()
    with contextlib.ExitStack() as undo:
        fresh = FreshFiles(for_s=settings.spool.verify_after_s)
        spool = FileSpool(settings.spool.path, committed=fresh.note)
        undo.callback(spool.close)
        ledger = open_ledger(settings)
        undo.callback(ledger.close)
        ledger.occupy(lost=_taken_over)
        if count := ledger.bring_forward(_waits(settings)):
            emit("task.brought_forward", level=logging.WARNING, count=count)
        if make_url(settings.ledger.url).get_backend_name() == "sqlite":
            ledger.end_all_leases()  # whoever held them is gone: we are its only node
        tracer = build_tracer(settings, ledger.trail)
        workers: list[Worker] = []
        analysts: dict[str, list[ChildAnalyst]] = {}
        for classifier in settings.classifiers.values():
            analysts[classifier.name] = [
                ChildAnalyst(
                    command=[sys.executable, "-m", "router.child"],
                    arguments=[child_argument(classifier)],
                    time_limit_s=classifier.time_limit_s,
                )
                for _ in range(child_count(classifier.processes))
            ]
            policy = RetryPolicy()
            crew = Crew(analysts[classifier.name], on_demand=classifier.processes == "auto")
            for analyst, *gates in zip(analysts[classifier.name], crew.gates, crew.seconds, strict=True):
                step = ClassifyStep(ledger=ledger, spool=spool, analyst=analyst, clock=clock, retry=policy)
                for gate in gates:
                    lane = Lane(kind=TaskKind.CLASSIFY, target=classifier.name, step=step, gate=gate)
                    workers.append(Worker(lane=lane, ledger=ledger, clock=clock, policy=policy))
            summarise = SummariseStep(ledger=ledger, spool=spool, clock=clock, policy=policy)
            lane = Lane(
                kind=TaskKind.SUMMARISE, target=classifier.name, step=summarise, gate=OpenGate(_SUMMARISE_BATCH)
            )
            workers.append(Worker(lane=lane, ledger=ledger, clock=clock, policy=policy))
        steps: list[DeliverStep] = []
        targets: list[Any] = []
        for destination in settings.destinations.values():
            target = _destination(destination, node_ae_title=settings.node.ae_title, spool=spool)
            policy = RetryPolicy(first_s=destination.retry_first_s, cap_s=destination.retry_cap_s)
            deliver = DeliverStep(
                name=destination.name,
                destination=target,
                ledger=ledger,
                spool=spool,
                clock=clock,
                policy=policy,
                batch_max=destination.batch_max,
                probe_cap_s=destination.probe_cap_s,
                commit=_commits(destination),
                variant=variant,
                received_as=fresh.mark,
            )
            lane = Lane(kind=TaskKind.DELIVER, target=destination.name, step=deliver, gate=deliver)
            workers += [
                Worker(lane=lane, ledger=ledger, clock=clock, policy=policy)
                for _ in range(destination.associations_max)
            ]
            if _commits(destination):
                workers.append(_commit_worker(settings, destination, target, ledger, clock))
            steps.append(deliver)
            targets.append(target)
        committing = [destination for destination in settings.destinations.values() if _commits(destination)]
        if count := ledger.commitments.waive(asking=[destination.name for destination in committing]):
            emit("commitment.off", count=count)
        judge = _judge(settings, ledger, clock)
        if settings.commitment.enabled:
            workers += _report_workers(settings, ledger, clock, judge)
        desk = CommitmentDesk(
            ledger=ledger,
            commitments=ledger.commitments,
            judge=judge,
            clock=clock,
            enabled=settings.commitment.enabled,
            linger_s=settings.commitment.linger_s,
            resends_max=_RESENDS_MAX,
        )
        scp = StorageScp(
            settings=settings.node,
            peers=settings.peers,
            spool=spool,
            ledger=ledger,
            plan=settings.rule_book().plan,
            clock=clock,
            limits=Limits(
                dataset_byte_count_max=settings.node.dataset_byte_count_max,
                free_byte_count_min=settings.spool.free_byte_count_min,
            ),
            digest=settings.spool.digest,
            keywords=settings.header_keywords(),
            desk=desk if settings.commitment.enabled or committing else None,
            notifiers=[destination.options.ae_title for destination in committing],
        )
        undo.callback(scp.stop)
        notifying = build_notifying(settings, ledger=ledger, spool=spool, steps=steps, clock=clock)
        audit = open_trail(settings.audit, ae_title=settings.node.ae_title)
        undo.callback(audit.close)
        web = _web(settings, spool=spool, ledger=ledger, scp=scp, steps=steps, analysts=analysts, audit=audit)
        undo.pop_all()
    return Node(
        settings=settings,
        tracer=tracer,
        spool=spool,
        ledger=ledger,
        scp=scp,
        web=web,
        audit=audit,
        workers=[*workers, *notifying.workers],
        analysts=[analyst for of_one in analysts.values() for analyst in of_one],
        destinations=targets,
        janitor=Janitor(
            ledger=ledger,
            inventory=ledger.queries,
            spool=spool,
            retention_s=settings.spool.retention_s,
            expire=_expiry(settings, ledger),
        ),
        watch=notifying.watch,
    )


def _expiry(settings: Settings, ledger: SqlLedger) -> Callable[[], int] | None:
    retention_s = settings.ledger.retention_s
    return None if retention_s is None else partial(ledger.forgetting.expire, retention_s=retention_s)


def _taken_over(holder: str) -> None:
    """Two nodes would fail each other's tasks: the one that was without the ledger for a while goes."""
    emit("ledger.taken_over", level=logging.ERROR, by=holder)
    os.kill(os.getpid(), signal.SIGTERM)


def _waits(settings: Settings) -> dict[tuple[TaskKind, str], float]:
    """Lane -> the longest, in seconds, that a task of it ever waits for another try."""
    waits = {(TaskKind.CLASSIFY, name): RetryPolicy().cap_s for name in settings.classifiers}
    for name in settings.classifiers:
        waits[TaskKind.SUMMARISE, name] = max(RetryPolicy().cap_s, settings.summary.quiet_s)
    waits[TaskKind.REPORT, REPORT_TARGET] = _REPORT_CAP_S
    waits |= waits_of_notices(settings)
    for name, destination in settings.destinations.items():
        cap_s = max(destination.retry_cap_s, 2 * destination.probe_cap_s)
        waits[TaskKind.DELIVER, name] = cap_s
        if _commits(destination):
            waits[TaskKind.COMMIT, name] = max(cap_s, destination.options.commitment_answer_s, ASK_CAP_S)
    return waits


def _commits(destination: DestinationSettings) -> bool:
    return bool(getattr(destination.options, "commitment", False))


def _commit_worker(
    settings: Settings, destination: DestinationSettings, target: Committer, ledger: SqlLedger, clock: SystemClock
) -> Worker:
    policy = RetryPolicy(first_s=destination.retry_first_s, cap_s=destination.retry_cap_s)
    step = CommitStep(
        name=destination.name,
        destination=target,
        commitments=ledger.commitments,
        clock=clock,
        policy=policy,
        gather_s=destination.options.commitment_gather_s,
        batch_max=destination.options.commitment_batch_max,
        answer_s=destination.options.commitment_answer_s,
        linger_s=settings.commitment.linger_s,
        resends_max=_RESENDS_MAX,
    )
    lane = Lane(kind=TaskKind.COMMIT, target=destination.name, step=step, gate=step)
    return Worker(lane=lane, ledger=ledger, clock=clock, policy=policy)


def _report_workers(
    settings: Settings, ledger: SqlLedger, clock: SystemClock, judge: Callable[[CommitmentRequest], Any]
) -> list[Worker]:
    policy = RetryPolicy(first_s=_REPORT_FIRST_S, cap_s=_REPORT_CAP_S)
    asked = settings.commitment
    addresses = [address_of(settings, d.name) for d in settings.destinations.values() if d.type == "dicom"]
    step = ReportStep(
        ledger=ledger,
        commitments=ledger.commitments,
        judge=judge,
        requestors=Requestors(
            ports={peer.ae_title: peer.port for peer in settings.peers if peer.port is not None},
            destinations={address.ae_title: address for address in addresses},
        ),
        clock=clock,
        policy=policy,
        report_for_s=asked.report_for_s + (asked.give_up_s if asked.when == "delivered" else 0),
    )
    lane = Lane(kind=TaskKind.REPORT, target=REPORT_TARGET, step=step, gate=OpenGate(_REPORT_BATCH))
    books = OwnLane(ledger, claim=ledger.commitments.claim)
    return [Worker(lane=lane, ledger=books, clock=clock, policy=policy) for _ in range(_REPORT_WORKERS)]


def _judge(
    settings: Settings, ledger: SqlLedger, clock: SystemClock
) -> Callable[[CommitmentRequest], CommitmentReport | None]:
    """`core.commitment.report_on` with what this ledger knows and this configuration promises."""
    promise = Promise(settings.commitment.when)
    give_up = timedelta(seconds=settings.commitment.give_up_s)

    def judge(request: CommitmentRequest) -> CommitmentReport | None:
        standings = ledger.commitments.standings([one.sop_instance_uid for one in request.references])
        expired = clock.now() - request.requested_at > give_up
        return report_on(request, standings, promise=promise, expired=expired)

    return judge


def open_ledger(settings: Settings, *, create: bool = True) -> SqlLedger:
    """The ledger of this configuration. Raises ConfigError; also when `create` is false and there is none yet."""
    url = settings.ledger.url
    path = make_url(url).database if url.startswith("sqlite") else None
    if not create and path and not Path(path).exists():
        raise ConfigError([f"ledger.url: there is no ledger at {path} yet: has this node ever run?"])
    return SqlLedger(url, timed=meters.committed)


def child_argument(classifier: ClassifierSettings) -> str:
    """What `router.child` needs to know of one classifier, as JSON."""
    return json.dumps(
        {
            "name": classifier.name,
            "type": classifier.type,
            "options": classifier.options.model_dump(mode="json"),
            "memory_byte_count_max": classifier.memory_byte_count_max,
        }
    )


def _destination(table: DestinationSettings, *, node_ae_title: str, spool: FileSpool) -> Any:
    more: dict[str, Any] = {"node_ae_title": node_ae_title}
    if issubclass(registry.load("router.destinations", table.type), DicomDestination):
        more["transcoder"] = ChildTranscoder(scratch=spool.scratch)
    return _plugin("router.destinations", table, **more)


def _plugin(group: str, table: ClassifierSettings | DestinationSettings, **more: Any) -> Any:
    plugin: Any = registry.load(group, table.type)
    return plugin(name=table.name, settings=table.options, **more)


def audit_node(settings: Settings) -> audit_events.Node:
    """The node, as audit messages name it."""
    return audit_events.Node(ae_title=settings.node.ae_title, pid=os.getpid())


def _web(
    settings: Settings,
    *,
    spool: FileSpool,
    ledger: SqlLedger,
    scp: StorageScp,
    steps: Sequence[DeliverStep],
    analysts: Mapping[str, Sequence[ChildAnalyst]],
    audit: AuditTrail,
) -> WebServer:
    door = Door(settings.web)
    drifts = DriftWatch(ledger.tallies, settings.drift.limits())
    read_status = StatusReader(
        settings=settings,
        port=lambda: scp.port,
        spool=spool,
        queries=ledger.queries,
        recent=ledger.recent,
        steps=steps,
        analysts=analysts,
        drifts=drifts,
        audit=audit,
        door=door,
    )
    house = House(
        read_status=read_status,
        door=door,
        node=audit_node(settings),
        settings=settings,
        ledger=ledger,
        classifiers=[
            Configured(name=table.name, type=table.type, analysts=analysts[table.name])
            for table in settings.classifiers.values()
        ],
        drifts=drifts,
        spool_path=spool.path,
        darkroom=Darkroom(settings.viewer),
        maps=Maps(analysts),
        record=audit.record,
    )
    return WebServer(
        build_app(house),
        host=settings.web.host,
        port=settings.web.port,
        certificate_file=settings.web.certificate_file,
        key_file=settings.web.key_file,
        limits=ConnectionLimits.of(settings.web),
        on_start=read_status.warm_up,
    )
