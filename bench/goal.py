"""What the project set out to reach, and how far it is: each goal is a ratio or a figure made from rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench import dashboard, flight, idle, latency, receiving, sending, wakeup, whole
from bench.receiver import ORTHANC, STOCK, STORESCP, STORESCP_B, ours
from bench.row import Row, found
from bench.sender import NAGLE_OFF, NAGLE_ON, PYNETDICOM, ROUTER_LANE, ROUTER_SEND
from bench.workload import CHEST, CT, SIZES

Figure = Callable[[Sequence[Row]], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One line of the table."""

    text: str
    least: float
    aim: float
    unit: str
    """"x" for a ratio."""
    figure: Figure
    less_is_better: bool = False
    promise: bool = False
    """Not only an aim: `make bench` fails when it is missed."""

    def verdict(self, figure: float) -> str:
        """In a word."""
        if (figure <= self.aim) if self.less_is_better else (figure >= self.aim):
            return "aim"
        if (figure <= self.least) if self.less_is_better else (figure >= self.least):
            return "reached"
        return "missed"


def goals() -> Iterator[Goal]:
    """In the order in which they were set."""
    yield Goal(
        text="receive, dcmsend x1, CT-like: router / Orthanc",
        least=10,
        aim=20,
        unit="x",
        figure=_received(receiving.what(CT, NAGLE_ON, 1), ORTHANC),
    )
    for other, least, aim in ((ORTHANC, 4.0, 6.0), (STORESCP, 2.0, 3.0)):
        yield Goal(
            text=f"receive, dcmsend x1, chest: router / {other}",
            least=least,
            aim=aim,
            unit="x",
            figure=_received(receiving.what(CHEST, NAGLE_ON, 1), other),
        )
    for size in (CT, CHEST):
        for associations in (1, 8):
            for other, least, aim in ((ORTHANC, 2.5, 5.0), (STORESCP_B, 0.7, 1.0)):
                yield Goal(
                    text=f"receive, Nagle off, {size.name} x{associations}: router / {other}",
                    least=least,
                    aim=aim,
                    unit="x",
                    figure=_received(receiving.what(size, NAGLE_OFF, associations), other),
                )
    chest = receiving.what(CHEST, NAGLE_OFF, 1)
    yield Goal(
        text="receiver's CPU per chest image: router / stock pynetdicom",
        least=1 / 4,
        aim=1 / 8,
        unit="x",
        less_is_better=True,
        figure=_ratio(receiving.GROUP, chest, ours(), STOCK, receiving.CPU),
    )
    yield Goal(
        text="memory for each 7.2 MB instance in flight",
        least=1,
        aim=0.2,
        unit="MiB",
        less_is_better=True,
        figure=_figure(flight.GROUP, flight.WHAT, ours(), flight.EACH),
    )
    for who in (ROUTER_SEND, ROUTER_LANE):
        for size in SIZES:
            for other, least, aim in ((NAGLE_OFF, 1.3, 1.7), (PYNETDICOM, 5.0, 10.0)):
                yield Goal(
                    text=f"send, {size.name}: {who} / {other}",
                    least=least,
                    aim=aim,
                    unit="x",
                    figure=_ratio(sending.GROUP, size.name, who, other, sending.UNIT),
                )
    yield Goal(
        text="whole way: share of the time in the network's forward pass",
        least=50,
        aim=75,
        unit="%",
        figure=_figure(whole.GROUP, whole.WHAT_CLASSIFIED, whole.XRV, whole.SHARE),
    )
    for size in (CHEST, CT):
        yield Goal(
            text=f"{size.name}: from C-STORE response to Orthanc's answer, idle",
            least=50,
            aim=20,
            unit="ms",
            less_is_better=True,
            figure=_figure(latency.GROUP, latency.what(size), latency.ORTHANC, latency.MILLISECONDS),
        )
    for who in ("router, SQLite", "router, PostgreSQL"):
        yield Goal(
            text=f"a new task begins, {who.partition(', ')[2]}",
            least=50,
            aim=20,
            unit="ms",
            less_is_better=True,
            figure=_figure(wakeup.GROUP, wakeup.WHAT, who, wakeup.MILLISECONDS),
        )
    yield Goal(
        text=idle.IDLE,
        least=1,
        aim=0.5,
        unit=idle.CORE,
        less_is_better=True,
        figure=_figure(idle.GROUP, idle.IDLE, ours(), idle.CORE),
    )
    yield Goal(
        text=idle.SET_UP,
        least=10,
        aim=3,
        unit="ms",
        less_is_better=True,
        figure=_figure(idle.GROUP, idle.SET_UP, ours(), idle.MILLISECONDS),
    )

    for ledger in dashboard.LEDGERS:
        in_large = dashboard.what(ledger, dashboard.INSTANCES)
        yield Goal(
            text=f"dashboard, {in_large}: the slowest page, 95th percentile",
            least=100,
            aim=50,
            unit="ms",
            less_is_better=True,
            promise=ledger == dashboard.LEDGERS[0],
            figure=_figure(dashboard.GROUP, in_large, dashboard.SLOWEST, dashboard.P95),
        )
        yield Goal(
            text=f"dashboard, {in_large}: arrived meanwhile",
            least=0.98 * dashboard.RATE,
            aim=0.99 * dashboard.RATE,
            unit=dashboard.ARRIVED,
            promise=ledger == dashboard.LEDGERS[0],
            figure=_figure(dashboard.GROUP, in_large, dashboard.MEANWHILE, dashboard.ARRIVED),
        )


def broken_promises(rows: Sequence[Row]) -> list[str]:
    """Goals that were measured, that are promises, and that were missed."""
    found = []
    for goal in goals():
        figure = goal.figure(rows)
        if goal.promise and figure is not None and goal.verdict(figure) == "missed":
            found.append(f"{goal.text}: {figure:.4g} {goal.unit}")
    return found


def _received(what: str, other: str) -> Figure:
    return _ratio(receiving.GROUP, what, ours(), other, receiving.RATE)


def _ratio(group: str, what: str, who: str, other: str, unit: str) -> Figure:
    def figure(rows: Sequence[Row]) -> float | None:
        mine = found(rows, group=group, what=what, who=who, unit=unit)
        theirs = found(rows, group=group, what=what, who=other, unit=unit)
        return mine / theirs if mine is not None and theirs else None

    return figure


def _figure(group: str, what: str, who: str, unit: str) -> Figure:
    return lambda rows: found(rows, group=group, what=what, who=who, unit=unit)
