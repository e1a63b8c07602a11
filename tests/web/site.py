"""The pages as tests ask for them: real ledger, real users, real audit files; no socket."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from router.audit import events
from router.audit.folder import AuditFolder
from router.audit.message import Source
from router.audit.trail import AuditTrail
from router.core.drift import Limits
from router.errors import SpoolDamaged
from router.ledger.store import SqlLedger
from router.settings import Settings, ViewerSettings, WebSettings, parse
from router.web import passwords
from router.web.app import House, build_app
from router.web.darkroom import Darkroom
from router.web.door import Door
from router.web.drifts import DriftWatch
from router.web.maps import Maps
from router.web.sessions import Sessions
from router.web.status import Lane, Status
from router.web.users import Role, UserFile
from tests.ledger.made import FakeClock

PASSWORD = "correct horse battery"
ADDRESS = "10.1.2.3"

RULED = """\
[destinations.pacs]
type = "folder"
path = "out"

[classifiers.cxr]
type = "demo"

# chest films
[[rules]]
name = "chest"
when = { Modality = ["CR", "DX"], BodyPartExamined = ["CHEST", ""] }
classify = ["cxr"]
deliver = ["pacs"]
results = ["sr"]
results_to = ["pacs"]

[[rules]]
name = "all"
deliver = ["pacs"]
"""


class Seconds:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def status(**more: Any) -> Status:
    """A node at work."""
    values: dict[str, Any] = {
        "ae_title": "ROUTER",
        "port": 11112,
        "version": "1",
        "started_at": "2026-11-22T00:00:00+00:00",
        "instances": {"original": 12, "sr": 4},
        "conflict_count": 0,
        "outcomes": {"analysed": 4},
        "lanes": [
            Lane(kind="deliver", target="pacs", counts={"ready": 2, "done": 9}, oldest_age_s=61.0, breaker="closed")
        ],
        "classifiers": {"cxr": True},
    }
    return Status(**{**values, **more})


class Site:
    """One node's pages."""

    def __init__(
        self, folder: Path, *, users: Mapping[str, Role], node_settings: Settings | None = None, **settings: Any
    ) -> None:
        self.node_settings = node_settings or parse(tomllib.loads(RULED))
        self.users_path = folder / "users.json"
        # The cheapest hashes there are: what they cost is tested once, in test_passwords.
        self.users = UserFile(self.users_path, hash_it=partial(passwords.hash_password, log2_n=4))
        for name, role in users.items():
            self.users.add(name, role, PASSWORD)
        self.settings = WebSettings.model_validate({"users_file": str(self.users_path), **settings})
        self.seconds = Seconds()
        self.clock = FakeClock()
        self.ledger = SqlLedger(f"sqlite:///{folder}/ledger.db", clock=self.clock)
        self.audit_folder = AuditFolder(folder / "audit", byte_count_max=2**20, age_max_s=1e9, retention_s=1e9)
        self.audit_folder.prepare()
        self.audit = AuditTrail(self.audit_folder, source=Source(source_id="ROUTER@test"))
        self.status = status()
        self.files: dict[str, Path] = {}
        """Spool key -> file."""
        self.mappers: dict[str, list[Any]] = {}
        """Classifier -> what makes its maps."""
        self.door = Door(
            self.settings,
            sessions=Sessions(
                idle_s=self.settings.session_idle_s, age_max_s=self.settings.session_age_max_s, now_s=self.seconds
            ),
        )
        self.house = House(
            read_status=lambda: self.status,
            door=self.door,
            node=events.Node(ae_title="ROUTER", pid=1),
            ledger=self.ledger,
            settings=self.node_settings,
            drifts=DriftWatch(self.ledger.tallies, Limits(), now=self.clock.now, now_s=self.seconds),
            spool_path=self.spool_path,
            darkroom=Darkroom(ViewerSettings()),
            maps=Maps(self.mappers),
            record=self.audit.record,
        )
        self.app = build_app(self.house)

    def spool_path(self, spool_key: str) -> Path:
        """As a spool would say it."""
        if spool_key not in self.files:
            raise SpoolDamaged("gone")
        return self.files[spool_key]

    def client(self, *, address: str = ADDRESS) -> TestClient:
        """A browser, without cookies. HTTPS, because cookies are for that only."""
        return TestClient(self.app, base_url="https://router.test", client=(address, 50000), follow_redirects=False)

    def signed_in(self, name: str, *, address: str = ADDRESS) -> TestClient:
        """A browser of somebody who has signed in."""
        client = self.client(address=address)
        answer = sign_in(client, name)
        assert answer.status_code == 303, answer.text
        return client

    def audited(self) -> list[str]:
        """The messages so far, as XML."""
        return [line for path in self.audit_folder.files() for line in path.read_text().splitlines()]

    def close(self) -> None:
        self.audit.close()
        self.ledger.close()


def form_token(page: str) -> str:
    """Of the first form of a page."""
    found = re.search(r'name="form_token" value="([^"]+)"', page)
    assert found is not None, page
    return found[1]


def sign_in(client: TestClient, name: str, password: str = PASSWORD, *, to: str = "/") -> Any:
    """What a person does: opens the form, fills it in, sends it."""
    token = form_token(client.get("/sign-in", params={"next": to}).text)
    return client.post("/sign-in", data={"name": name, "password": password, "next": to, "form_token": token})
