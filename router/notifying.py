"""Joins the parts that tell people: who wants to hear of what, the lanes that send, the watch over what lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from router.core.lifecycle import TaskKind
from router.core.notices import Subscription
from router.core.ports import Clock
from router.core.retry import RetryPolicy
from router.errors import ConfigError, NotTold, WeightsUnavailable
from router.ledger.reports import OwnLane
from router.ledger.store import SqlLedger
from router.notify.channel import Channel, open_channel
from router.notify.message import Writer
from router.notify.step import NotifyStep
from router.notify.watch import Watch
from router.observe.log import emit
from router.settings import ClassifierSettings, Settings
from router.spool.files import FileSpool
from router.web.fixes import fix_for
from router.work.clock import SystemClock
from router.work.worker import Lane, OpenGate, Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifying:
    """What a node starts and stops."""

    workers: Sequence[Worker]
    """One for each [notify.NAME]: a mail server that hangs holds up nobody else."""
    watch: Watch


def build_notifying(
    settings: Settings, *, ledger: SqlLedger, spool: FileSpool, steps: Sequence[Any], clock: Clock
) -> Notifying:
    """`steps`: of the destinations (`deliver.step.DeliverStep`). Raises ConfigError when a secret is not there."""
    check(settings)
    subscriptions = subscriptions_of(settings)
    if count := ledger.notices.waive(telling=[one.name for one in subscriptions]):
        emit("notify.off", count=count)
    ledger.notices.subscribe(subscriptions, advise=_advice)
    health: Mapping[str, Any] = {step.name: step.health for step in steps}
    return Notifying(
        workers=[_worker(settings, name, ledger, clock) for name in settings.notify],
        watch=Watch(
            book=ledger.notices,
            subscriptions=subscriptions,
            health=health,
            free_byte_count=spool.free_byte_count,
            free_byte_count_min=settings.spool.free_byte_count_min,
            clock=clock,
        ),
    )


def subscriptions_of(settings: Settings) -> list[Subscription]:
    """Every [notify.NAME] as the core wants it."""
    least = settings.spool.free_byte_count_min
    return [table.subscription(name, spool_free_byte_count_min=least) for name, table in settings.notify.items()]


def check(settings: Settings) -> None:
    """Raises ConfigError with a line for each secret or certificate that is not there, and for findings that nobody makes."""
    problems = []
    for name, table in settings.notify.items():
        try:
            _channel(settings, name, SystemClock()).check()
        except NotTold as error:
            problems.append(f"notify.{name}: {error}")
        for index, topic in enumerate(table.findings):
            known = _labels(settings.classifiers[topic.classifier]) if topic.labels else None
            for label in topic.labels if known is not None else ():
                if known is not None and label not in known:
                    near = get_close_matches(label, known, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                    where = f"notify.{name}.findings[{index}].labels"
                    problems.append(f"{where}: {label!r} is no finding of {topic.classifier}; {hint}")
    if problems:
        raise ConfigError(problems)


def _labels(classifier: ClassifierSettings) -> tuple[str, ...] | None:
    """The findings that a classifier of ours makes; None when that is not known before it is loaded."""
    from router.classify.catalogue import DEMO_NAME, find_card

    options = classifier.options
    what = {"demo": DEMO_NAME, "xrv": getattr(options, "weights", None)}.get(classifier.type)
    if what is None or getattr(options, "card", None) is not None:
        return None
    try:
        return find_card(what, getattr(options, "folder", Path())).trained
    except WeightsUnavailable:
        return None


def waits(settings: Settings) -> dict[tuple[TaskKind, str], float]:
    """Lane -> the longest, in seconds, that a message of it ever waits for its time."""
    return {(TaskKind.NOTIFY, name): table.longest_wait_s for name, table in settings.notify.items()}


def where_of(settings: Settings, name: str) -> str:
    """Where a [notify.NAME] leads to, for people; no secret."""
    return _channel(settings, name, SystemClock()).where


def send_test(settings: Settings, name: str) -> str:
    """Sends a test message, past the ledger, once; returns what the channel remarked. Raises NotTold, NeverTold."""
    clock = SystemClock()
    message = _writer(settings).test(name=name, now=datetime.now(UTC))
    return _channel(settings, name, clock).send(message)


def _channel(settings: Settings, name: str, clock: Clock) -> Channel:
    return open_channel(settings.notify[name], clock=clock)


def _writer(settings: Settings) -> Writer:
    return Writer(ae_title=settings.node.ae_title, public_url=settings.web.public_url)


def _worker(settings: Settings, name: str, ledger: SqlLedger, clock: Clock) -> Worker:
    table, writer = settings.notify[name], _writer(settings)
    policy = RetryPolicy(first_s=table.retry_first_s, cap_s=table.retry_cap_s, attempts_max=table.attempts_max)
    step = NotifyStep(
        channel=_channel(settings, name, clock),
        write=lambda notice: writer.message(notice, name=name),
        book=ledger.notices,
        ledger=ledger,
        clock=clock,
        policy=policy,
    )
    lane = Lane(kind=TaskKind.NOTIFY, target=name, step=step, gate=OpenGate(1))
    return Worker(lane=lane, ledger=OwnLane(ledger, claim=ledger.notices.claim), clock=clock, policy=policy)


def _advice(kind: str, target: str, reason: str) -> str:
    fix = fix_for(kind=kind, target=target, reason=reason)
    return f"{fix.text} ({fix.command})" if fix.command else fix.text
