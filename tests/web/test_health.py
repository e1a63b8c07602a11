"""/health/ready says what is wrong in words; only what keeps images out makes a node unready."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from router.core.lifecycle import TaskKind
from router.ledger.schema import task
from router.settings import parse
from router.web.app import build_app
from router.web.snapshot import StatusReader
from tests.ledger.made import instance, plan
from tests.project import tree
from tests.web.site import Site

SETTINGS = parse({"notify": {"ops": {"task_failed": {}, "webhook": {"url": "https://127.0.0.1/hook"}}}})


@dataclass
class House:
    """A node whose parts can be broken."""

    site: Site
    free: int = 2**40
    destination: Any = field(default_factory=lambda: SimpleNamespace(reason="", since=None, breaker="closed"))
    analyst: Any = field(default_factory=lambda: SimpleNamespace(ready=True, trouble=""))
    audit: Any = field(
        default_factory=lambda: SimpleNamespace(
            syslog_lost_count=0, syslog_waiting_count=0, syslog_trouble="", trouble=""
        )
    )
    queries: Any = None

    def asked(self) -> tuple[int, dict[str, Any]]:
        reader = StatusReader(
            settings=SETTINGS,
            port=lambda: 11112,
            spool=SimpleNamespace(free_byte_count=lambda: self.free),  # type: ignore[arg-type]
            queries=self.queries or self.site.ledger.queries,
            recent=self.site.ledger.recent,
            steps=[SimpleNamespace(name="pacs", health=lambda: self.destination)],
            analysts={"cxr": [self.analyst]},
            drifts=SimpleNamespace(counts=dict),  # type: ignore[arg-type]
            audit=self.audit,
            door=self.site.door,
        )
        self.site.app = build_app(replace(self.site.house, read_status=reader))
        answer = self.site.client().get("/health/ready")
        return answer.status_code, answer.json()


@pytest.fixture
def house(site: Site) -> House:
    site.ledger.accept(instance("1.1"), plan(deliver=("pacs",)))
    return House(site)


def test_a_node_at_work_is_ready_and_nothing_is_wrong(house: House) -> None:
    assert house.asked() == (200, {"ready": True, "problems": [], "warnings": [], "classifiers": {"cxr": True}})


def short(house: House) -> None:
    house.free = 5


def no_ledger(house: House) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("the server is gone"))

    house.queries = SimpleNamespace(instance_counts=broken)


def no_audit(house: House) -> None:
    house.audit.trouble = "no room"


def bytes_gone(house: House) -> None:
    house.site.ledger.mark_missed([1])


def damaged_users(house: House) -> None:
    house.site.users_path.write_text("{")


def destination_down(house: House) -> None:
    since = datetime.now(UTC) - timedelta(seconds=7500)
    house.destination = SimpleNamespace(reason="nothing listens at 10.1.2.3:104", since=since, breaker="open")


def no_child(house: House) -> None:
    house.analyst = SimpleNamespace(ready=False, trouble="the classify child cannot start: weights are damaged")


def task_failed(house: House) -> None:
    (one,) = house.site.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1)
    house.site.ledger.defer(one, error="refused Doe^Jane", at=None)


def notice_deferred(house: House) -> None:
    with house.site.ledger._engines.write.begin() as connection:
        values = {"kind": "notify", "target": "ops", "state": "retry", "attempts": 1, "not_before": 1}
        connection.execute(update(task).values(**values))


def no_syslog(house: House) -> None:
    house.audit.syslog_trouble = "refused"


PROBLEMS = {
    short: "the spool has 5 bytes free, under spool.free_byte_count_min: C-STORE is answered 0xA700",
    no_ledger: "the ledger does not answer (OperationalError): C-STORE is refused until it does",
    no_audit: "the audit trail cannot be written (no room): pages show nothing of patients",
    bytes_gone: "the bytes of 1 instance(s) are gone from the spool; see spool.file_missing",
}
WARNINGS = {
    destination_down: "destination pacs has not been reached for 2 h 5 min: nothing listens at 10.1.2.3:104; 1 deliveries wait",
    no_child: "classifier cxr has no process: the classify child cannot start: weights are damaged; images wait for it, originals do not",
    task_failed: "1 tasks have failed for good (deliver pacs): router queue says why",
    notice_deferred: "notifications to ops cannot be sent: 1 are tried again",
    no_syslog: "the syslog receiver of the audit trail gets nothing (refused); the files have all of it",
}


@pytest.mark.parametrize("harm", PROBLEMS)
def test_what_keeps_images_or_pages_away_makes_the_node_unready(house: House, harm: Callable[[House], None]) -> None:
    harm(house)
    status, told = house.asked()
    assert (status, told["ready"], told["problems"]) == (503, False, [PROBLEMS[harm]])


def test_users_that_cannot_be_read_make_the_node_unready(house: House) -> None:
    damaged_users(house)
    status, told = house.asked()
    assert status == 503
    assert told["problems"][0].startswith("web.users_file: ")


@pytest.mark.parametrize("harm", WARNINGS)
def test_what_keeps_no_image_out_is_said_and_the_node_is_ready(house: House, harm: Callable[[House], None]) -> None:
    harm(house)
    status, told = house.asked()
    assert (status, told["problems"], told["warnings"]) == (200, [], [WARNINGS[harm]])
    assert "Doe" not in str(told)


def test_the_page_of_statuses_has_every_sentence_and_no_other() -> None:
    page = tree.read("docs/operating/statuses.md").split("## Health\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    told = [*PROBLEMS.values(), *WARNINGS.values(), "web.users_file: damaged"]
    fits = {row: [one for one in told if re.fullmatch(".*".join(map(re.escape, row.split("…"))), one)] for row in rows}
    assert [row for row, found in fits.items() if not found] == []
    assert {one for found in fits.values() for one in found} == set(told)
