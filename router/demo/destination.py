"""Where the demo delivers to: the real Orthanc when it is installed, otherwise a small Storage SCP that writes files."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Protocol

from router.core.admission import valid_uid
from router.errors import RouterError
from router.loopback import HOST, free_port

_START_S = 30.0


class DemoDestination(Protocol):
    """A PACS for a minute."""

    ae_title: str
    port: int
    description: str

    def start(self) -> None:
        """Returns when it takes associations. Raises RouterError."""
        ...

    def received(self, sop_instance_uid: str) -> bytes | None:
        """The DICOM file it holds for an instance, or None: asked of the destination itself, not of our ledger."""
        ...

    def stop(self) -> None: ...


def find_destination(folder: Path, *, router_ae_title: str) -> DemoDestination:
    """Orthanc when it is installed, else the folder-writing SCP; everything it writes lies in `folder`."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    return Orthanc(program, folder, router_ae_title=router_ae_title) if program else FolderScp(folder)


class Orthanc:
    """A real Orthanc with a database of its own. Its REST API is used only to look at what arrived."""

    ae_title = "ORTHANC"

    def __init__(self, program: str, folder: Path, *, router_ae_title: str) -> None:
        self._program = program
        self._folder = folder
        self._router_ae_title = router_ae_title
        self._password = secrets.token_urlsafe(12)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.http_port = free_port()
        self.description = f"Orthanc, http://{HOST}:{self.http_port} (user demo, password {self._password})"

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(), indent=2), encoding="utf-8")
        with (self._folder / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, str(configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._get("/system")
                return
            time.sleep(0.1)
        self.stop()
        raise RouterError(f"Orthanc did not start; its log is {self._folder / 'orthanc.log'}")

    def received(self, sop_instance_uid: str) -> bytes | None:
        found = self._post("/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": sop_instance_uid}})
        return self._get(f"/instances/{found[0]}/file") if found else None

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _configuration(self) -> dict[str, Any]:
        database = str(self._folder / "database")
        return {
            "Name": "router demo",
            "StorageDirectory": database,
            "IndexDirectory": database,
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {"demo": self._password},
            "UnknownSopClassAccepted": True,
            "DicomModalities": {"router": [self._router_ae_title, HOST, 11112]},
        }

    def _get(self, path: str) -> bytes:
        return self._request(path, None)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return json.loads(self._request(path, json.dumps(body).encode()))

    def _request(self, path: str, body: bytes | None) -> bytes:
        token = base64.b64encode(f"demo:{self._password}".encode()).decode()
        request = urllib.request.Request(
            f"http://{HOST}:{self.http_port}{path}", data=body, headers={"Authorization": f"Basic {token}"}
        )
        # Without a ProxyHandler: a proxy set for the shell must not get our loopback requests.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
            data: bytes = response.read()
        return data


class FolderScp:
    """A Storage SCP that writes what it gets as DICOM files, bytes untouched: enough of a PACS to look at."""

    ae_title = "DEMOPACS"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._server: Any = None
        self.description = f"a folder-writing Storage SCP (no Orthanc installed), files in {folder}"

    def start(self) -> None:
        from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt

        self._folder.mkdir(parents=True, exist_ok=True)
        ae = AE(ae_title=self.ae_title)
        # One by one: pynetdicom's switch for «any SOP class» is of the whole process, and every other SCP in it would obey.
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        ae.maximum_pdu_size = 131072
        self._server = ae.start_server((HOST, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])

    def received(self, sop_instance_uid: str) -> bytes | None:
        path = self._path(sop_instance_uid)
        return path.read_bytes() if path.exists() else None

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if not valid_uid(uid):
            return 0xA900
        temporary = self._path(uid).with_suffix(".part")
        temporary.write_bytes(event.encoded_dataset())
        temporary.replace(self._path(uid))
        return 0x0000

    def _path(self, sop_instance_uid: str) -> Path:
        return self._folder / f"{sop_instance_uid}.dcm"
