"""A Storage SCP with a real spool and a ledger in memory, as small as a test wants its limits."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from router.core.admission import Limits
from router.core.instance import SopInstance
from router.core.rules import Plan
from router.observe import log
from router.receive.scp import StorageScp
from router.settings import NodeSettings, PeerSettings
from router.spool.durable import Disk
from router.spool.part10 import data_set_offset
from tests.edge.rawpeer import RawPeer
from tests.receive.fakes import EVERYTHING, FixedClock, MemoryLedger, SmallSpool, spooled_files


@dataclass
class Node:
    """What a test looks at."""

    scp: StorageScp
    spool: SmallSpool
    ledger: MemoryLedger
    folder: Path
    log: io.StringIO = field(default_factory=io.StringIO)

    @property
    def port(self) -> int:
        return self.scp.port

    def peer(self, **kwargs: Any) -> RawPeer:
        return RawPeer(self.port, **kwargs)

    def files(self) -> list[Path]:
        return spooled_files(self.folder)

    def data_set(self, instance: SopInstance) -> bytes:
        path = self.spool.path(instance.spool_key)
        return path.read_bytes()[data_set_offset(path) :]

    def events(self, name: str = "") -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"].startswith(name)]


NodeFactory = Callable[..., Node]


@pytest.fixture(params=["fast", "pynetdicom"])
def wire(request: pytest.FixtureRequest) -> str:
    """Every test that starts a node is run on each wire."""
    return str(request.param)


@pytest.fixture
def start_node(tmp_path: Path, wire: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeFactory]:
    """start_node(ae_title=…, free_byte_count_min=…, plan=…, ledger=…, disk=…): a running Node; settings as in [node]."""
    nodes: list[Node] = []
    stream = io.StringIO()
    monkeypatch.setattr(log, "_sink", None)
    log.configure("debug", stream)

    def start(
        *,
        plan: Callable[[SopInstance], Plan] = lambda _: EVERYTHING,
        ledger: MemoryLedger | None = None,
        peers: tuple[PeerSettings, ...] = (),
        free_byte_count_min: int = 0,
        disk: Disk | None = None,
        **settings: Any,
    ) -> Node:
        folder = tmp_path / f"spool{len(nodes)}"
        spool = SmallSpool(folder, disk=disk)
        node_settings = NodeSettings(
            **{"host": "127.0.0.1", "port": 0, "drain_timeout_s": 60, "wire": wire, **settings}
        )
        ledger = ledger or MemoryLedger()
        scp = StorageScp(
            settings=node_settings,
            peers=peers,
            spool=spool,
            ledger=ledger,
            plan=plan,
            clock=FixedClock(),
            limits=Limits(
                dataset_byte_count_max=node_settings.dataset_byte_count_max, free_byte_count_min=free_byte_count_min
            ),
        )
        scp.start()
        nodes.append(Node(scp, spool, ledger, folder, stream))
        return nodes[-1]

    threads = set(threading.enumerate())
    yield start
    for node in nodes:
        node.scp.stop()
        node.spool.close()
    left = [thread for thread in threading.enumerate() if thread not in threads]
    for thread in left:
        thread.join(60)
    assert not [thread.name for thread in left if thread.is_alive()]


@pytest.fixture
def node(start_node: NodeFactory) -> Node:
    """With default settings."""
    return start_node()
