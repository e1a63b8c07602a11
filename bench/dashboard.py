"""The dashboard in a large ledger while images arrive: how long each kind of page takes, over HTTP, for somebody who has signed in.

The ledger holds a million instances (`bench.history`), on SQLite and on PostgreSQL. Fifty small instances a second come in
(`bench.steady`) and are delivered to a receiver that discards. Ten pages a second are opened, one after the other, each
time of another study. A search is two requests, its form and its answer. The audit trail is written as always.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles

from bench import history
from bench.effort import Effort
from bench.receiver import Router, Sink
from bench.row import Row
from bench.visitor import Visitor, WrongAnswer
from bench.workload import CHEST, instances
from router.deliver.association import Address
from router.deliver.send import send
from router.deliver.sources import Source, find
from router.web.users import Role, UserFile
from tests.ledger.made import database, postgres
from tests.peers import HOST, ROOT, Peer, ProgramMissing, listens, wait_until

GROUP = "dashboard"
INSTANCES, QUICK_INSTANCES = 1_000_000, 2_100
LEDGERS = ("SQLite", "PostgreSQL")
RATE = 50.0
_PAGE_EVERY_S = 0.1
MEDIAN, P95, MOST, ARRIVED = "ms, median", "ms, 95th percentile", "ms, longest", "instances/s"
SLOWEST, FIRST, MEANWHILE = (
    "router, the slowest page",
    "router, first page after the start",
    "router, arriving meanwhile",
)
_NAME, _PASSWORD = "bench", "bench bench bench"
_CLASSIFIER = """
[classifiers.cxr]
type = "demo"
[[rules]]
name = "chest radiographs"
when = { Modality = ["CR", "DX"] }
classify = ["cxr"]
deliver = ["sink"]
results = ["sr"]
results_to = ["sink"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a visitor may ask about."""

    chests: list[history.Study]
    slices: list[history.Study]
    image_id: int
    """Of an image that was received and classified by this very node."""
    report_id: int
    """Of its report, whose bytes are in the spool."""
    catalogue_count: int
    luck: random.Random

    def chest(self) -> history.Study:
        """Another one each time."""
        return self.luck.choice(self.chests)

    def slice(self) -> history.Study:
        """The same of studies of slices."""
        return self.luck.choice(self.slices)


Ask = Callable[[Visitor, Known], object]


def _get(path: Callable[[Known], str]) -> Ask:
    return lambda visitor, known: visitor.get(path(known))


def _search(field: str, value: Callable[[Known], str]) -> Ask:
    return lambda visitor, known: visitor.search({field: value(known)})


#: Every kind of page: a new one is a line here.
PAGES: Mapping[str, Ask] = {
    "Now": _get(lambda _: "/"),
    "Now, its update": _get(lambda _: "/now"),
    "Studies, the newest": _get(lambda _: "/studies"),
    "Studies, a page far back": _get(
        lambda known: f"/studies?before={known.luck.randrange(100, known.catalogue_count)}"
    ),
    "search, accession number": _search("accession_number", lambda known: known.chest().accession_number),
    "search, patient ID": _search("patient_id", lambda known: known.chest().patient_id),
    "search, Study Instance UID": _search("uid", lambda known: known.chest().uid),
    "search, SOP Instance UID": _search("uid", lambda known: known.slice().image_uid),
    "search, AE title": _search("calling_ae_title", lambda known: known.chest().ae_title),
    "search, AE title of slices": _search("calling_ae_title", lambda known: known.slice().ae_title),
    "search, nothing found": _search("patient_id", lambda known: f"X{known.luck.random()}"),
    "a study of two radiographs": _get(lambda known: f"/studies/{known.chest().uid}"),
    "a study of 180 slices": _get(lambda known: f"/studies/{known.slice().uid}"),
    "an image, classified": _get(lambda known: f"/images/{known.chest().first_id}"),
    "an image, one of 180": _get(lambda known: f"/images/{known.slice().first_id}"),
    "an image, just received": _get(lambda known: f"/images/{known.image_id}"),
    "its radiograph, looked at before": _get(lambda known: f"/images/{known.image_id}/pixels"),
    "a report, looked at before": _get(lambda known: f"/reports/{known.report_id}"),
    "Failed": _get(lambda _: "/failed"),
    "Failed, of one kind": _get(lambda _: "/failed?kind=deliver&target=sink"),
    "Conflicts": _get(lambda _: "/conflicts"),
    "Classifiers": _get(lambda _: "/classifiers"),
    "Classifiers, a year": _get(lambda _: "/classifiers?classifier=cxr&days=365"),
    "Rules": _get(lambda _: "/rules"),
    "Notifications": _get(lambda _: "/notifications"),
    "metrics": _get(lambda _: "/metrics"),
    "health": _get(lambda _: "/health/ready"),
}


def what(ledger: str, count: int) -> str:
    """How rows of this group are called."""
    return f"{count:,} instances on {ledger}, {RATE:g} instances/s arriving"


def measured(effort: Effort, folder: Path, *, ledgers: Collection[str] = LEDGERS) -> Iterator[Row]:
    """Every page, twenty times a round."""
    count = QUICK_INSTANCES if effort.quick else INSTANCES
    rounds, every_s = (2, 0.0) if effort.quick else (20 * effort.rounds, _PAGE_EVERY_S)
    for name in ledgers:
        circumstances = what(name, count)
        here = folder / name
        here.mkdir(parents=True)
        try:
            with _URLS[name](here) as url:
                yield from _measured_on(url, here, count, rounds, circumstances, every_s=every_s)
        except ProgramMissing as error:
            yield Row(group=GROUP, what=circumstances, who="router", unit="", reason=str(error))


@contextmanager
def _postgresql() -> Iterator[str]:
    with postgres(durable=True) as server, database(server) as url:
        yield url


#: Where an empty ledger is, by engine.
_URLS: Mapping[str, Callable[[Path], AbstractContextManager[str]]] = {
    "SQLite": lambda here: nullcontext(f"sqlite:///{here}/ledger.db"),
    "PostgreSQL": lambda _: _postgresql(),
}


def _measured_on(
    url: str, folder: Path, count: int, rounds: int, circumstances: str, *, every_s: float
) -> Iterator[Row]:
    row = partial(Row, group=GROUP, what=circumstances)
    history.fill(url, folder / "node" / "spool", count)
    UserFile(folder / "node" / "var" / "users.json").add(_NAME, Role.OPERATOR, _PASSWORD)
    with (
        Sink(folder=folder / "sink") as sink,
        Router(folder=folder / "node", ledger_url=url, deliver_to=sink, more=_CLASSIFIER) as node,
        Visitor(HOST, node.web_port) as visitor,
    ):
        wait_until(lambda: listens(node.web_port), 60)
        begun = time.perf_counter()
        visitor.get("/health/ready")
        first_ms = (time.perf_counter() - begun) * 1000
        visitor.sign_in(_NAME, _PASSWORD)
        known = _get_to_know(visitor, node, folder, count)
        with _arriving(node, folder) as arrived:
            sent_before, since = arrived(), time.monotonic()
            taken = _visit(visitor, known, rounds, every_s=every_s)
            rate = (arrived() - sent_before) / (time.monotonic() - since)
    slowest = {MEDIAN: 0.0, P95: 0.0, MOST: 0.0}
    for page, values in taken.items():
        cuts = quantiles(values, n=20, method="inclusive")
        for unit, value in ((MEDIAN, cuts[9]), (P95, cuts[18]), (MOST, max(values))):
            yield row(who=page, unit=unit, values=[value])
            slowest[unit] = max(slowest[unit], value)
    for unit, value in slowest.items():
        yield row(who=SLOWEST, unit=unit, values=[value])
    yield row(who=FIRST, unit=MEDIAN, values=[first_ms])
    yield row(who=MEANWHILE, unit=ARRIVED, values=[rate])


def _get_to_know(visitor: Visitor, node: Peer, folder: Path, count: int) -> Known:
    """Sends a radiograph and waits for its report, so that there is one whose bytes are here."""
    address = Address(ae_title=node.ae_title, host=HOST, port=node.port, calling_ae_title="CR_ROOM1")
    [sent] = send(address, [one for one in find(instances(CHEST, 1, folder / "chest")) if isinstance(one, Source)])
    assert sent.status == "sent", sent.note
    found = visitor.search({"uid": sent.source.sop_instance_uid})
    study = re.search(r'href="(/studies/[\d.]+)"', found)
    assert study is not None
    image = re.search(r'href="/images/(\d+)"', visitor.get(study[1]))
    assert image is not None
    address_of_report = re.compile(r'href="/reports/(\d+)"')
    [report_id, *_] = wait_until(lambda: address_of_report.findall(visitor.get(f"/images/{image[1]}")), 120)
    visitor.get(f"/images/{image[1]}/pixels")  # a process of its own decodes it once; that time is the picture's
    studies = list(history.studies(count))
    return Known(
        chests=[study for study in studies if history.is_chest(study)],
        slices=[study for study in studies if not history.is_chest(study)],
        image_id=int(image[1]),
        report_id=int(report_id),
        catalogue_count=len(studies),
        luck=random.Random(1),
    )


@contextmanager
def _arriving(node: Peer, folder: Path) -> Iterator[Callable[[], int]]:
    """Instances come while this is open; how many there were so far."""
    log = folder / "steady.log"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "bench.steady", str(node.port), node.ae_title, str(RATE)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        wait_until(log.read_text, 60, "the first images arrive")
        yield lambda: int(log.read_text().splitlines()[-1])
        if process.poll() is not None:
            raise WrongAnswer(f"the sender ended: {log.read_text()[-300:]}")
    finally:
        process.kill()
        process.wait()


def _visit(visitor: Visitor, known: Known, rounds: int, *, every_s: float) -> Mapping[str, list[float]]:
    """Page -> milliseconds of each visit."""
    taken: dict[str, list[float]] = {page: [] for page in PAGES}
    for _ in range(rounds):
        for page, ask in PAGES.items():
            begun = time.perf_counter()
            ask(visitor, known)
            taken_s = time.perf_counter() - begun
            taken[page].append(taken_s * 1000)
            time.sleep(max(0.0, every_s - taken_s))
    return taken
