"""A node's folder with a configuration, a real ledger and a real spool, and the command line run on it in this process."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from router.cli import main
from router.core.findings import NotAnalysed, Outcome, Prediction
from router.core.instance import InstanceKind, SopInstance
from router.core.lifecycle import TaskKind
from router.core.ports import ResultObject, Task
from router.core.rules import ClassifyOrder, Plan
from router.ledger.store import SqlLedger
from router.report.not_analysed import NotAnalysedBuilder
from router.report.sr import SrBuilder
from router.spool.files import FileSpool
from router.spool.results import spooled
from tests.ledger.made import FakeClock
from tests.report.made import HEADER, encoded, instance_of, meta, prediction

CONFIG = """
[spool]
path = "{folder}/spool"
[ledger]
url = "{url}"
[audit]
folder = "{folder}/audit"
[classifiers.cxr]
type = "demo"
[destinations.pacs]
type = "dicom"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[[rules]]
name = "chest radiographs"
when = {{ Modality = ["CR"] }}
classify = ["cxr"]
deliver = ["pacs"]
results = ["sr"]
results_to = ["pacs"]
"""


@dataclass(frozen=True)
class Done:
    """What one command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Site:
    """What a node has written, without the node."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/ledger.db"
        self.config = folder / "router.toml"
        self.config.write_text(CONFIG.format(folder=folder, url=self.url))
        self.clock = FakeClock(datetime.now(UTC))
        self._monkeypatch, self._capsys = monkeypatch, capsys
        with self.ledger():
            pass

    def ledger(self) -> Any:
        """To be used in a `with`."""
        from contextlib import closing

        return closing(SqlLedger(self.url, clock=self.clock))

    def run(self, *arguments: str | Path) -> Done:
        """`router ARGUMENTS`, as the entry point runs it."""
        self._monkeypatch.setattr(sys, "argv", ["router", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = self._capsys.readouterr()
        return Done(int(end.value.code or 0), said.out, said.err)

    def here(self, *arguments: str | Path) -> Done:
        """The same with this node's configuration."""
        return self.run(*arguments, "--config", self.config)

    def audited(self) -> list[str]:
        """The audit messages so far, as XML."""
        files = sorted((self.folder / "audit").glob("*.log"))
        return [line for path in files for line in path.read_text().splitlines()]

    def receive(self, header: dict[str, bytes] | None = None) -> SopInstance:
        """An image that the rule above takes."""
        data = encoded(HEADER | (header or {}))
        file = meta() + data
        source = dcmread(BytesIO(file))
        spool = FileSpool(self.folder / "spool")
        key = spool.put(file)
        spool.close()
        digest = hashlib.sha256(data).hexdigest()
        instance = replace(instance_of(source, digest=digest), spool_key=key, header={"Modality": "CR"})
        order = ClassifyOrder(classifier="cxr", results=("sr",), results_to=("pacs",))
        with self.ledger() as ledger:
            ledger.accept(instance, Plan(rules=("chest radiographs",), classify=(order,), deliver=("pacs",)))
        return instance

    def analyse(self, outcome: Outcome | None = None) -> list[SopInstance]:
        """Every image that waits, with its SR; the SRs."""
        reports = []
        with self.ledger() as ledger:
            for task in ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=600, limit=99):
                reports.append(self._report(ledger, task, outcome or prediction()))
        return reports

    def _report(self, ledger: SqlLedger, task: Task, outcome: Outcome) -> SopInstance:
        spool = FileSpool(self.folder / "spool")
        source = dcmread(spool.path(task.instance.spool_key))
        built: ResultObject
        if isinstance(outcome, NotAnalysed):
            built = NotAnalysedBuilder().explain(source, task.instance, outcome, prediction().classifier)
        else:
            assert isinstance(outcome, Prediction)
            built = SrBuilder().build(source, task.instance, outcome)
        produced = spooled(spool, built, at=task.instance.received_at, destinations=("pacs",))
        spool.close()
        assert produced.instance.kind is InstanceKind.SR
        ledger.complete(task, outcome=outcome, produced=[produced])
        return produced.instance

    def deliver(self) -> None:
        """Everything to pacs."""
        with self.ledger() as ledger:
            for task in ledger.claim(TaskKind.DELIVER, "pacs", lease_s=600, limit=99):
                ledger.complete(task)

    def forget(self) -> None:
        """The janitor's work, long after."""
        self.clock.forward(timedelta(days=400).total_seconds())
        spool = FileSpool(self.folder / "spool")
        with self.ledger() as ledger:
            for key in ledger.free(retention_s=60):
                spool.delete(key)
        spool.close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    monkeypatch.setenv("COLUMNS", "200")
    return Site(tmp_path, monkeypatch, capsys)
