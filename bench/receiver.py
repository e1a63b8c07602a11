"""Who receives: our node on each wire and ledger, and the programs beside it; each freshly started in a folder of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import get_args

from router.settings import NodeSettings
from tests.ledger.made import database, postgres
from tests.peers import HOST, Peer, StoreScp, free_port, listens, program

#: For associations and connections that are many on purpose.
_MANY = "associations_max = 1000\nassociations_per_peer_max = 1000\nidle_timeout_s = 600\n"


class Router(Peer):
    """The node of this checkout. Without `deliver_to` its only destination is down, so that receiving alone is measured."""

    def __init__(
        self,
        *,
        folder: Path,
        wire: str | None = None,
        ledger_url: str = "sqlite:///ledger.db",
        deliver_to: Peer | None = None,
        more: str = "",
        deliver_more: str = "",
    ) -> None:
        """`wire`: None for the default. `more`: tables after the first ones."""
        super().__init__(folder=folder, ae_title="ROUTER")
        self.web_port = free_port()
        port, ae_title = (deliver_to.port, deliver_to.ae_title) if deliver_to else (free_port(), "DOWN")
        wire_line = f'wire = "{wire}"\n' if wire else ""
        (folder / "router.toml").write_text(f"""
default_deliver = ["sink"]
[node]
host = "{HOST}"
port = {self.port}
{wire_line}{_MANY}
[spool]
path = "spool"
free_byte_count_min = "64 MiB"
[ledger]
url = {json.dumps(ledger_url)}
[web]
port = {self.web_port}
[destinations.sink]
type = "dicom"
ae_title = "{ae_title}"
host = "{HOST}"
port = {port}
{deliver_more}
{more}
""")

    def command(self) -> list[str]:
        """As an operator starts it."""
        return [sys.executable, "-m", "router", "serve", "--config", "router.toml"]

    def environment(self) -> Mapping[str, str]:
        """One thread for a network: processes are many, not threads."""
        return {"OMP_NUM_THREADS": "1"}


class Sink(Peer):
    """`bench.sink`."""

    def __init__(self, *, folder: Path, window: int = 1) -> None:
        super().__init__(folder=folder, ae_title="SINK")
        self._window = window

    def command(self) -> list[str]:
        """The same Python as ours."""
        return [sys.executable, "-m", "bench.sink", str(self.port), str(self._window)]

    def environment(self) -> Mapping[str, str]:
        """So that it finds the project."""
        return _python_path()

    def ready(self) -> bool:
        """When it listens."""
        return listens(self.port)

    def told(self) -> list[Mapping[str, float]]:
        """What it printed, one association each."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]


class Stock(Peer):
    """`bench.stock_scp`."""

    def __init__(self, *, folder: Path) -> None:
        super().__init__(folder=folder, ae_title="STOCK")
        (folder / "received").mkdir()

    def command(self) -> list[str]:
        """The same Python as ours."""
        return [sys.executable, "-m", "bench.stock_scp", str(self.port), str(self.folder / "received")]

    def environment(self) -> Mapping[str, str]:
        """So that it finds the project."""
        return _python_path()


class DefaultOrthanc(Peer):
    """Orthanc with its own default configuration, but for ports, folders and who may come."""

    def __init__(self, *, folder: Path) -> None:
        super().__init__(folder=folder, ae_title="ORTHANC")
        self.http_port = free_port()
        config = {
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
        }
        (folder / "orthanc.json").write_text(json.dumps(config))

    def command(self) -> list[str]:
        """As its package starts it."""
        return [str(program("Orthanc")), "orthanc.json"]


class UsualStoreScp(StoreScp):
    """storescp without bit preservation: data sets are decoded and encoded anew."""

    def command(self) -> list[str]:
        """One process for each association."""
        own = ["-pm", "-aet", self.ae_title, "-od", str(self.received_folder), "+xa", "--fork"]
        return [str(program("storescp")), *own, str(self.port)]


Receiver = Callable[[Path], AbstractContextManager[Peer]]

STOCK = "stock pynetdicom"
ORTHANC = "Orthanc, its defaults"
STORESCP = "storescp"
STORESCP_B = "storescp, bit-preserving"


def wires() -> tuple[str, ...]:
    """The default one first."""
    field = NodeSettings.model_fields["wire"]
    return tuple(sorted(get_args(field.annotation), key=lambda wire: wire != field.default))


def router_on(wire: str) -> str:
    """How a node on this wire and SQLite is called."""
    return f"router, wire {wire}"


def ours() -> str:
    """The node as it is installed."""
    return router_on(wires()[0])


def receivers() -> dict[str, Receiver]:
    """By name, ours first."""
    found: dict[str, Receiver] = {router_on(wire): _router(wire) for wire in wires()}
    found["router, PostgreSQL"] = _router_on_postgres
    found[ORTHANC] = lambda folder: DefaultOrthanc(folder=folder)
    found[STORESCP] = lambda folder: UsualStoreScp(folder=folder)
    found[STORESCP_B] = lambda folder: StoreScp(folder=folder, options=("+xa", "--fork", "-pdu", "131072"))
    found[STOCK] = lambda folder: Stock(folder=folder)
    return found


def _router(wire: str) -> Receiver:
    return lambda folder: Router(folder=folder, wire=wire)


@contextmanager
def _router_on_postgres(folder: Path) -> Iterator[Peer]:
    with postgres(durable=True) as server, database(server) as url, Router(folder=folder, ledger_url=url) as router:
        yield router


def _python_path() -> Mapping[str, str]:
    return {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
