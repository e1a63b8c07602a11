"""`router serve` as a process of its own, as an operator runs it: started, asked, stopped, killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from router.ledger.queries import InstanceStatus
from router.ledger.store import SqlLedger
from tests.peers import HOST, ROOT, free_port, wait_until

CHEST_RULE = """
[[rules]]
name = "chest radiographs"
when = { Modality = ["CR", "DX"], BodyPartExamined = ["CHEST", "THORAX", ""] }
classify = ["cxr"]
deliver = ["pacs"]
results = ["sr"]
results_to = ["pacs"]
"""
EVERYTHING_RULE = """
[[rules]]
name = "everything"
when = {}
deliver = ["pacs"]
"""


def destination(name: str, ae_title: str, port: int, **more: Any) -> str:
    """A [destinations.NAME] table."""
    extra = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    return f'\n[destinations.{name}]\ntype = "dicom"\nae_title = "{ae_title}"\nhost = "{HOST}"\nport = {port}\n{extra}'


class RouterProcess:
    """One node in a folder of its own; `start` again after `kill` continues with what lies there."""

    ae_title = "ROUTER"

    def __init__(
        self,
        folder: Path,
        *tables: str,
        rules: Sequence[str] = (CHEST_RULE, EVERYTHING_RULE),
        classifier: str = 'type = "demo"',
        node: str = "",
        spool: str = 'free_byte_count_min = "64 MiB"',
        port: int | None = None,
        spool_folder: Path | None = None,
        ledger_folder: Path | None = None,
    ) -> None:
        """`classifier`, `node` and `spool` are lines of their tables; no classifier, no table."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.spool_folder = spool_folder or folder / "spool"
        self.port = port or free_port()
        self.web_port = free_port()
        self.config = folder / "router.toml"
        self.log = folder / "router.log"
        self.ledger_path = (ledger_folder or folder) / "ledger.db"
        self.ledger_url = f"sqlite:///{self.ledger_path}"
        self.program: tuple[str, ...] = ("-m", "router")
        self.environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.config.write_text(
            f"""
[node]
ae_title = "{self.ae_title}"
host = "{HOST}"
port = {self.port}
{node}
[spool]
path = {json.dumps(str(self.spool_folder))}
{spool}

[ledger]
url = {json.dumps(self.ledger_url)}

[web]
host = "{HOST}"
port = {self.web_port}
users_file = {json.dumps(str(folder / "users.json"))}

[audit]
folder = {json.dumps(str(folder / "audit"))}

{f"[classifiers.cxr]{chr(10)}{classifier}" if classifier else ""}
{"".join(tables)}{"".join(rules)}"""
        )

    def start(self, *, wait: bool = True) -> None:
        """Returns when /health/ready says yes."""
        assert self._process is None, "runs already"
        with self.log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **self.environment},
            )
        if wait:
            wait_until(lambda: self.ended() or self.health()[0], 60, "router serve gets ready")
            assert not self.ended(), f"router serve ended:\n{self.log.read_text()[-4000:]}"

    def ended(self) -> bool:
        """True when it was started and is gone."""
        return self._process is not None and self._process.poll() is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, deadline_s: float = 30) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # faulthandler writes what every thread was at
            self._process.wait(10)
            raise AssertionError(f"no end {deadline_s} s after SIGTERM:\n{self.log.read_text()[-12000:]}") from None
        self._process = None
        return code

    def freeze(self) -> None:
        """SIGSTOP: what a call of the system says from now on, nobody hears."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """SIGKILL, as a power cut of this process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wait(self, deadline_s: float = 30) -> int:
        """The exit code of a process that ends by itself."""
        assert self._process is not None
        code = self._process.wait(deadline_s)
        self._process = None
        return code

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one HTTP GET."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{HOST}:{self.web_port}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def health(self) -> tuple[bool, list[str]]:
        """What /health/ready says; not ready while nobody answers."""
        with contextlib.suppress(OSError):
            status, body = self.get("/health/ready")
            return status == 200, list(json.loads(body)["problems"])
        return False, ["nobody answers"]

    def events(self, name: str | None = None) -> list[Mapping[str, Any]]:
        """The log's JSON lines, of one event or all. Anything in the log that is no JSON object is an error."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line]
        return [line for line in lines if name is None or line["event"] == name]

    def statuses(self, uids: Sequence[str]) -> list[InstanceStatus | None]:
        """What the ledger says of each SOP instance."""
        ledger = SqlLedger(self.ledger_url)
        try:
            return [ledger.queries.instance_status(uid) for uid in uids]
        finally:
            ledger.close()

    def owed_count(self) -> int:
        """Tasks that are not done yet, failed ones not counted."""
        ledger = SqlLedger(self.ledger_url)
        try:
            return len(ledger.queries.owed(limit=100_000))
        finally:
            ledger.close()

    def settle(self, deadline_s: float = 120) -> None:
        """Returns when nothing is owed any more."""
        wait_until(lambda: self.owed_count() == 0, deadline_s, "nothing is owed any more")

    def run(self, *arguments: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """`router ARGUMENTS --config THIS`, standard error with standard output."""
        return subprocess.run(
            [sys.executable, "-m", "router", *map(str, arguments), "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=ROOT,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
