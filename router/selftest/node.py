"""A node in a folder of its own, as a process that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from router.errors import RouterError
from router.loopback import HOST, free_port
from router.node import open_ledger
from router.selftest.destination import LoopbackDestination
from router.settings import load

AE_TITLE = "ROUTER"
_START_S = 60.0


class NodeProcess:
    """`router serve`: start, kill, start again; everything it has lies in `folder`."""

    def __init__(self, folder: Path, destination: LoopbackDestination, *, spool: Path | None = None) -> None:
        """`spool`: another place for the spool, of which nothing is kept free."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port, web_port = free_port(), free_port()
        self._live = f"http://{HOST}:{web_port}/health/live"
        self._config = folder / "router.toml"
        self._log = folder / "router.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._config.write_text(
            f"""[node]
ae_title = "{AE_TITLE}"
host = "{HOST}"
port = {self.port}

[spool]
path = {json.dumps(str(spool or folder / "spool"))}
free_byte_count_min = "{"0 B" if spool else "16 MiB"}"

[ledger]
url = {json.dumps(f"sqlite:///{folder / 'ledger.db'}")}

[web]
host = "{HOST}"
port = {web_port}
users_file = {json.dumps(str(folder / "users.json"))}

[audit]
folder = {json.dumps(str(folder / "audit"))}

[destinations.selftest]
type = "dicom"
ae_title = "{destination.ae_title}"
host = "{HOST}"
port = {destination.port}
retry_first_s = 0.2
retry_cap_s = 1
probe_cap_s = 0.5

[[rules]]
name = "everything"
when = {{}}
deliver = ["selftest"]
""",
            encoding="utf-8",
        )

    def start(self, *, fault: str = "") -> None:
        """Returns when it takes associations, or has ended because of its fault. Raises RouterError."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "router", "serve", "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._config.parent,
                env={**os.environ, "ROUTER_FAULT": fault},
            )
        if not until(lambda: self.ended() or self._lives(), _START_S) or (self.ended() and not fault):
            self.kill()
            tail = self._log.read_text(errors="replace")[-2000:]
            raise RouterError(f"the node did not start; the end of its log:\n{tail}")

    def ended(self) -> bool:
        """True when it is not running."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self, limit_s: float) -> int | None:
        """SIGTERM; its exit code, or None when it did not end in time and was killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()  # nobody else knows of it once the next one is started
            return None

    def settled(self, limit_s: float) -> bool:
        """True as soon as nothing is owed and nothing has failed; False when that does not come in time."""
        ledger = open_ledger(load(self._config), create=False)
        try:
            return until(lambda: all(set(lane.counts) <= {"done"} for lane in ledger.queries.lanes()), limit_s)
        finally:
            ledger.close()

    def _lives(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError), opener.open(self._live, timeout=2) as answer:
            return bool(answer.status == 200)
        return False


def until(condition: Callable[[], bool], limit_s: float) -> bool:
    """True as soon as it is true; False when that does not come in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
