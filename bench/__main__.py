"""How long dcmsend waits for its answers: the router on both ledgers beside storescp and Orthanc, on this machine, now.

What the three promise with Success differs, and belongs beside the numbers: storescp has written a file (no fsync), Orthanc has
synced file and database as our orthanc.json asks, the router has synced file, folder and ledger and owes a delivery.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pydicom
from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table

from tests.ledger.made import database, postgres
from tests.peers import HOST, Orthanc, Peer, StoreScp, dcmsend, free_port, success_count, wait_until
from tests.samples import pydicom_file

#: Name, sample, how many instances.
WORKLOADS: Sequence[tuple[str, str, int]] = (("CT, 39 kB", "CT_small.dcm", 400), ("CR, 7.2 MB", "RG1_UNCR.dcm", 24))
SENDER_COUNTS = (1, 8)
#: Every row is the median of so many rounds; in a round each receiver takes its turn, so that noise hits all alike.
ROUND_COUNT = 3


class Router(Peer):
    """The node of this checkout, delivering everything to a sink."""

    def __init__(self, *, folder: Path, sink: StoreScp, ledger_url: str = "sqlite:///ledger.db") -> None:
        super().__init__(folder=folder, ae_title="ROUTER")
        self.web_port = free_port()
        (folder / "router.toml").write_text(f"""
default_deliver = ["sink"]
[node]
host = "{HOST}"
port = {self.port}
[spool]
path = "spool"
free_byte_count_min = "64 MiB"
[ledger]
url = "{ledger_url}"
[web]
port = {self.web_port}
[destinations.sink]
type = "dicom"
ae_title = "{sink.ae_title}"
host = "{HOST}"
port = {sink.port}
""")

    def command(self) -> list[str]:
        """As an operator starts it."""
        return [sys.executable, "-m", "router", "serve", "--config", "router.toml"]

    def delivered_count(self) -> int:
        """By its metrics."""
        with urllib.request.urlopen(f"http://{HOST}:{self.web_port}/metrics", timeout=10) as response:
            text = response.read().decode()
        found = re.search(r'router_tasks\{kind="deliver",state="done",target="sink"\} (\S+)', text)
        return int(float(found[1])) if found else 0


def copies(sample: str, count: int, folder: Path) -> list[Path]:
    """`count` instances of one image, each with UIDs of its own, in series of 50."""
    folder.mkdir(parents=True)
    ds = pydicom.dcmread(pydicom_file(sample))
    ds.StudyInstanceUID = generate_uid()
    paths = []
    for number in range(count):
        if number % 50 == 0:
            ds.SeriesInstanceUID = generate_uid()
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        paths.append(folder / f"{number}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def seconds_to_send(paths: Sequence[Path], port: int, ae_title: str, senders: int) -> float:
    """Until the last of `senders` parallel dcmsend processes has its last Success."""
    shares = [paths[i::senders] for i in range(senders)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(senders) as pool:
        done = list(pool.map(lambda share: dcmsend(port, *share, called=ae_title), shares))
    seconds = time.perf_counter() - begun
    assert sum(map(success_count, done)) == len(paths), done[0].stdout[-2000:]
    return seconds


def measure(folder: Path, add_row: Callable[..., None]) -> None:
    """Every workload and number of senders, against each receiver, freshly started and empty in every round."""
    for workload, sample, count in WORKLOADS:
        for senders in SENDER_COUNTS:
            place = folder / f"{sample}-{senders}"
            paths = copies(sample, count, place / "files")
            mebibytes = sum(path.stat().st_size for path in paths) / 2**20
            taken: dict[str, list[tuple[float, float | None]]] = {}
            for turn in range(ROUND_COUNT):
                here = place / str(turn)
                for name, receive in receivers(here).items():
                    taken.setdefault(name, []).append(receive(paths, senders))
            orthanc_s = median(seconds for seconds, _ in taken["Orthanc"])
            for name, rounds in taken.items():
                seconds = median(seconds for seconds, _ in rounds)
                onward = [delivered_s for _, delivered_s in rounds if delivered_s is not None]
                add_row(
                    workload,
                    str(count),
                    str(senders),
                    name,
                    f"{seconds:.2f}",
                    f"{count / seconds:.0f}",
                    f"{mebibytes / seconds:.0f}",
                    f"{orthanc_s / seconds:.2f}",
                    f"{median(onward):.1f}" if onward else "",
                )


def receivers(place: Path) -> dict[str, Callable[[Sequence[Path], int], tuple[float, float | None]]]:
    """Who is measured: seconds to the last Success and, for the router, to the last delivery onward."""
    return {
        "storescp": lambda paths, n: _peer(StoreScp(folder=place / "storescp", options=("+xa", "--fork")), paths, n),
        "Orthanc": lambda paths, n: _peer(Orthanc(folder=place / "orthanc"), paths, n),
        "router, SQLite": lambda paths, n: _router(place / "sqlite", paths, n, "sqlite:///ledger.db"),
        "router, PostgreSQL": lambda paths, n: _router_on_postgresql(place / "postgresql", paths, n),
    }


def _peer(peer: Peer, paths: Sequence[Path], senders: int) -> tuple[float, None]:
    with peer:
        return seconds_to_send(paths, peer.port, peer.ae_title, senders), None


def _router_on_postgresql(place: Path, paths: Sequence[Path], senders: int) -> tuple[float, float]:
    with postgres() as server, database(server) as url:
        return _router(place, paths, senders, url)


def _router(place: Path, paths: Sequence[Path], senders: int, ledger_url: str) -> tuple[float, float]:
    sink = StoreScp(folder=place / "sink", ae_title="SINK", options=("+xa", "--ignore", "--fork"))
    router = Router(folder=place / "router", sink=sink, ledger_url=ledger_url)
    with sink, router:
        begun = time.perf_counter()
        seconds = seconds_to_send(paths, router.port, router.ae_title, senders)
        wait_until(lambda: router.delivered_count() == len(paths), 300, "everything delivered")
        return seconds, time.perf_counter() - begun


def main() -> None:
    """Prints one table."""
    os.environ["TCP_NODELAY"] = (
        "1"  # else two dcmtk programs wait 40 ms for each other twice an image, which measures nothing
    )
    console = Console(width=110)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {_dcmtk()}")
    table = Table("what", "count", "senders", "to", "seconds", "per s", "MiB/s", "x Orthanc", "delivered after s")
    with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
        measure(Path(folder), table.add_row)
    console.print(table)


def _dcmtk() -> str:
    return subprocess.run(["dcmsend", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


if __name__ == "__main__":
    main()
