"""Real peers for tests: Orthanc, dcmtk and dicom3tools on 127.0.0.1, on free ports, in folders of their own, ended by pid.

A program that is not installed raises ProgramMissing; `tests/conftest.py` turns that into a skip, or in CI into a failure.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import pydicom

from router import loopback

ROOT = Path(__file__).resolve().parents[1]
HOST = loopback.HOST

#: Debian package -> programs of it that tests start. `pytest.mark.peer` takes either kind of name.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "orthanc": ("Orthanc",),
    "dcmtk": ("storescu", "dcmsend", "storescp", "echoscu", "dsrdump"),
    "dicom3tools": ("dciodvfy",),
    "postgresql": ("initdb", "postgres"),
    "chromium": ("chromium",),
}
#: Beside PATH: where Debian puts servers that are not for every user's shell.
_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/lib/postgresql/*/bin")

T = TypeVar("T")


class ProgramMissing(Exception):
    """A program of another project is not installed."""

    def __init__(self, program: str) -> None:
        package = next((p for p, programs in PACKAGES.items() if program in programs), None)
        hint = f" (Debian package {package})" if package else ""
        super().__init__(f"{program} is not installed{hint}")
        self.program = program


def program(name: str) -> Path:
    """Where a program lies. Raises ProgramMissing."""
    # Not in our own environment, which may be activated: pynetdicom brings a storescp and a storescu, too.
    ours = Path(sys.prefix, "bin")
    path = os.pathsep.join(p for p in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(p) != ours)
    if found := shutil.which(name, path=path):
        return Path(found)
    for folder in _FOLDERS:
        for path in sorted(Path("/").glob(f"{folder[1:]}/{name}"), reverse=True):
            if os.access(path, os.X_OK):
                return path
    raise ProgramMissing(name)


def wait_until(condition: Callable[[], T], deadline_s: float = 15.0, what: str = "") -> T:
    """The first true value of `condition`, asked again and again with a short back-off; AssertionError after `deadline_s`."""
    end = time.monotonic() + deadline_s
    pause_s = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline_s} s: {what or condition}; last value {value!r}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)


def _ports_of_this_process() -> range:
    """A share of its own for each of pytest's processes (pytest-xdist: gw0, gw1, …), so that none takes another's port."""
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
    return range(15000 + 2000 * share, 17000 + 2000 * share)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, never the same twice in one run."""
    return loopback.free_port(_ports_of_this_process())


def listens(port: int) -> bool:
    """True when somebody accepts connections on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


class Peer:
    """A server program of another project: start, stop, kill and start again on the same port and folder."""

    def __init__(self, *, folder: Path, ae_title: str, port: int | None = None) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.host = HOST
        self.port = port or free_port()
        self.log_path = folder / "peer.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Added to ours."""
        return {}

    def ready(self) -> bool:
        """True when it takes associations."""
        return listens(self.port)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "not running"
        return self._process.pid

    def start(self) -> None:
        """Returns when it is ready. Raises ProgramMissing, or AssertionError with its log."""
        assert self._process is None, "runs already"
        command = self.command()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
            )
        try:
            wait_until(lambda: self._process is None or self._process.poll() is not None or self.ready(), 30)
            assert self._process.poll() is None, "ended at once"
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{command[0]} did not start: {error}\n{self.log()[-4000:]}") from error

    def stop(self) -> None:
        """Asks it to end, as an operator would; kills it when it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        """What it wrote so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()  # its folder is a test's own and goes with it; an orderly end of Orthanc takes seconds


class StoreScp(Peer):
    """dcmtk's storescp: writes what it gets as files. `options` are its own, e.g. ("--abort-after",), ("--refuse",)."""

    def __init__(
        self, *, folder: Path, ae_title: str = "STORESCP", port: int | None = None, options: Sequence[str] = ("+xa",)
    ) -> None:
        super().__init__(folder=folder, ae_title=ae_title, port=port)
        self.received_folder = folder / "received"
        self.received_folder.mkdir(exist_ok=True)
        self.options = tuple(options)

    def command(self) -> list[str]:
        """Bit preserving (+B) and for any SOP class (-pm): what arrives is what was sent."""
        own = ["+B", "-pm", "-aet", self.ae_title, "-od", str(self.received_folder)]
        return [str(program("storescp")), *own, *self.options, str(self.port)]

    def ready(self) -> bool:
        """By a C-ECHO, unless it was told to refuse: a bare connection would make it log an error."""
        if "--refuse" in self.options:
            return listens(self.port)
        return echoscu(self.port, called=self.ae_title).returncode == 0

    def files(self) -> list[Path]:
        """The files it wrote, whole or not, but for the one that it is writing."""
        found = sorted(p for p in self.received_folder.iterdir() if p.is_file())
        writing = set()  # looked at after the folder: what is closed by now was complete
        if self._process is not None:
            for fd in Path(f"/proc/{self._process.pid}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    writing.add(fd.readlink())
        return [path for path in found if path not in writing]

    def received(self) -> dict[str, Path]:
        """SOP Instance UID -> file."""
        return {str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID): p for p in self.files()}


class Orthanc(Peer):
    """A real Orthanc with the project's own orthanc.json: only ports, folders and `modalities` are replaced.

    The REST methods are for checks and for «send to modality»; the router itself speaks DICOM to it, nothing else.
    """

    USER = "router"
    PASSWORD = "only-for-tests"

    def __init__(
        self,
        *,
        folder: Path,
        port: int | None = None,
        modalities: Mapping[str, tuple[str, int]] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        """`modalities`: name -> (AE title, port) of peers it may send to; `overrides`: keys of orthanc.json to replace."""
        config = json.loads((ROOT / "orthanc.json").read_text())
        super().__init__(folder=folder, ae_title=config["DicomAet"], port=port)
        self.http_port = free_port()
        config |= {"DicomPort": self.port, "HttpPort": self.http_port}
        if modalities is not None:
            config["DicomModalities"] = {name: [ae, HOST, port] for name, (ae, port) in modalities.items()}
        config |= dict(overrides or {})
        self._config_path = folder / "orthanc.json"
        self._config_path.write_text(json.dumps(config))

    def command(self) -> list[str]:
        """As docs/orthanc.md starts it."""
        return [str(program("Orthanc")), str(self._config_path)]

    def environment(self) -> Mapping[str, str]:
        """What orthanc.json takes from the environment."""
        return {"ORTHANC_PASSWORD": self.PASSWORD, "ORTHANC_STORAGE": str(self.folder / "storage")}

    def ready(self) -> bool:
        """When both of its ports answer."""
        try:
            self.get("/system")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return listens(self.port)

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One HTTP request of its REST API. Raises urllib.error.HTTPError."""
        token = base64.b64encode(f"{self.USER}:{self.PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            f"http://{HOST}:{self.http_port}{path}",
            data=body,
            method=method,
            headers={"Authorization": f"Basic {token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return bytes(response.read())

    def get(self, path: str) -> Any:
        """JSON of a GET."""
        return json.loads(self.request("GET", path))

    def statistics(self) -> dict[str, Any]:
        """CountInstances, CountStudies, …"""
        return dict(self.get("/statistics"))

    def instance_count(self) -> int:
        """How many instances it has."""
        return int(self.statistics()["CountInstances"])

    def instances(self) -> dict[str, str]:
        """SOP Instance UID -> Orthanc's own identifier, of all it has."""
        return {i["MainDicomTags"]["SOPInstanceUID"]: i["ID"] for i in self.get("/instances?expand")}

    def lookup(self, sop_instance_uid: str) -> str | None:
        """Orthanc's own identifier of an instance, or None when it does not have it."""
        hits = json.loads(self.request("POST", "/tools/lookup", sop_instance_uid.encode()))
        return next((hit["ID"] for hit in hits if hit["Type"] == "Instance"), None)

    def file(self, sop_instance_uid: str) -> bytes:
        """The DICOM file it keeps. Raises KeyError when it has none."""
        identifier = self.lookup(sop_instance_uid)
        if identifier is None:
            raise KeyError(sop_instance_uid)
        return self.request("GET", f"/instances/{identifier}/file")

    def upload(self, path: Path) -> str:
        """Gives it a file over HTTP (for «send to modality»); Orthanc's own identifier of the instance."""
        return str(json.loads(self.request("POST", "/instances", path.read_bytes()))["ID"])

    def send_to_modality(self, modality: str, identifiers: Sequence[str]) -> dict[str, Any]:
        """C-STOREs instances to one of its DicomModalities, as its web page does. Raises HTTPError when one is refused."""
        body = json.dumps({"Resources": list(identifiers), "Synchronous": True}).encode()
        return dict(json.loads(self.request("POST", f"/modalities/{modality}/store", body)))


def run(
    name: str, *arguments: str | Path, timeout_s: float = 120, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; standard output and error come together in `stdout`. Raises ProgramMissing."""
    done = subprocess.run(
        [str(program(name)), *map(str, arguments)],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(errors="replace"))


def storescu(
    port: int, *paths: Path, called: str = "ROUTER", calling: str = "STORESCU", options: Sequence[str] = ("-R", "-xs")
) -> subprocess.CompletedProcess[str]:
    """dcmtk's storescu. `options` choose the presentation contexts, e.g. "-xs" JPEG lossless, "-xr" RLE, "-xi" implicit."""
    return run("storescu", "-v", "-aet", calling, "-aec", called, *options, HOST, str(port), *paths)


def dcmsend(
    port: int, *paths: Path, called: str = "ROUTER", calling: str = "DCMSEND", options: Sequence[str] = ("-dn",)
) -> subprocess.CompletedProcess[str]:
    """dcmtk's dcmsend; "-dn": every file in its own transfer syntax, nothing decompressed.

    Its exit code is 0 even when the peer refused every instance: count with `success_count`.
    """
    return run("dcmsend", "-v", "-aet", calling, "-aec", called, *options, HOST, str(port), *paths)


def success_count(done: subprocess.CompletedProcess[str]) -> int:
    """How many C-STOREs dcmsend or storescu saw answered with Success (0x0000)."""
    return done.stdout.count("Received C-STORE Response (Success)") + done.stdout.count(
        "Received Store Response (Success)"
    )


def echoscu(port: int, *, called: str = "ROUTER", calling: str = "ECHOSCU") -> subprocess.CompletedProcess[str]:
    """dcmtk's echoscu."""
    return run("echoscu", "-v", "-aet", calling, "-aec", called, HOST, str(port), timeout_s=30)


def as_sent(paths: Sequence[Path], *, folder: Path) -> dict[str, Path]:
    """SOP Instance UID -> file with the data-set bytes that dcmsend really puts on the wire for these files.

    dcmtk decodes and encodes again what it sends (it drops Data Set Trailing Padding, for one), so what arrives behind the
    router is compared with what arrives without it, not with the file on disk. The same is true of Orthanc.
    """
    with StoreScp(folder=folder) as scp:
        for path in paths:  # one by one: of two files with one UID, and after a refusal, the others still go
            dcmsend(scp.port, path, called=scp.ae_title)
        return scp.received()


def dsrdump(path: Path) -> subprocess.CompletedProcess[str]:
    """dcmtk's dsrdump of a Structured Report, codes included."""
    return run("dsrdump", "+Pc", path)


def dciodvfy(path: Path) -> list[str]:
    """The errors that dicom3tools' dciodvfy finds in a file; its warnings are left out."""
    return [line for line in run("dciodvfy", path).stdout.splitlines() if line.startswith("Error")]


@contextlib.contextmanager
def running(*peers: Peer) -> Iterator[None]:
    """Starts peers in order and stops them in the other order."""
    with contextlib.ExitStack() as stack:
        for peer in peers:
            stack.enter_context(peer)
        yield
