"""The janitor, with a real spool and a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from router.core.lifecycle import TaskKind
from router.ledger.store import SqlLedger
from router.spool.files import FileSpool
from router.work.janitor import Janitor
from tests.ledger.made import START, FakeClock, instance, plan


class House:
    """Spool, ledger and janitor, on one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.ledger = SqlLedger(f"sqlite:///{folder}/l.db", clock=self.clock)
        self.spool = FileSpool(folder / "spool", now_s=lambda: self.clock.now().timestamp())
        self.janitor = Janitor(
            ledger=self.ledger,
            inventory=self.ledger.queries,
            spool=self.spool,
            retention_s=100,
            orphan_grace_s=3600,
        )

    def receive(self, uid: str) -> str:
        key = self.spool.put(uid.encode())
        self.ledger.accept(instance(uid, spool_key=key), plan())
        return key

    def deliver(self) -> None:
        for task in self.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=99):
            self.ledger.complete(task)

    def files(self) -> list[str]:
        keys = self.spool.keys()
        return [key for key, _ in keys]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.janitor.stop()
    house.ledger.close()
    house.spool.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    events: list[str] = []
    monkeypatch.setattr("router.work.janitor.emit", lambda name, **_: events.append(name))
    return events


def test_rows_go_in_portions_until_none_is_due(house: House, told: list[str]) -> None:
    portions = iter([100, 3, 0])
    janitor = Janitor(
        ledger=house.ledger,
        inventory=house.ledger.queries,
        spool=house.spool,
        retention_s=100,
        expire=lambda: next(portions),
    )
    assert janitor.expire() == 103
    assert told == ["ledger.expired"]
    assert house.janitor.expire() == 0, "without a setting they stay"


def test_bytes_go_after_delivery_and_retention_and_the_row_stays(house: House, told: list[str]) -> None:
    key = house.receive("1.1")
    owed = house.receive("1.2")
    house.clock.forward(1000)
    assert house.janitor.free() == 0
    for task in house.ledger.claim(TaskKind.DELIVER, "pacs", lease_s=60, limit=1):
        house.ledger.complete(task)
    assert house.janitor.free() == 0, "retention has just begun"
    house.clock.forward(100)
    assert house.janitor.free() == 1
    assert house.files() == [owed]
    assert key not in house.files()
    assert house.ledger.queries.instance_status("1.1") is not None
    assert told == ["spool.freed"]


def test_a_crash_between_row_and_file_leaves_an_orphan_that_goes_later(house: House, told: list[str]) -> None:
    house.receive("1.1")
    house.deliver()
    house.clock.forward(100)
    house.ledger.free(retention_s=100)  # and then the process died
    assert house.janitor.find_missing() == 0
    house.clock.forward(3600)
    assert house.janitor.remove_orphans() == 1
    assert house.files() == []
    assert told == ["spool.orphan_removed"]


def test_a_file_that_no_row_holds_goes_after_the_grace_time_and_no_other(house: House) -> None:
    orphan = house.spool.put(b"never acknowledged")
    kept = house.receive("1.1")
    house.clock.forward(3599)
    young = house.spool.put(b"on its way in")
    assert house.janitor.remove_orphans() == 0
    house.clock.forward(1)
    assert house.janitor.remove_orphans() == 1
    assert set(house.files()) == {kept, young}
    assert orphan not in house.files()


def test_a_row_whose_file_is_gone_is_an_alarm_until_it_is_back(house: House, told: list[str]) -> None:
    house.receive("1.0")
    key = house.receive("1.1")
    data = house.spool.path(key).read_bytes()
    place = house.spool.path(key)
    house.spool.delete(key)
    assert house.janitor.find_missing() == 1
    assert [held.sop_instance_uid for held in house.ledger.queries.missed()] == ["1.1"]
    assert told == ["spool.file_missing"]
    place.write_bytes(data)  # an operator restored it
    assert house.janitor.find_missing() == 0
    assert house.ledger.queries.missed() == []


def test_more_than_one_batch_is_looked_through(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.work.janitor._BATCH", 3)
    keys = [house.receive(f"1.{n}") for n in range(8)]
    house.spool.delete(keys[6])
    assert house.janitor.find_missing() == 1
    house.deliver()
    house.clock.forward(100)
    assert house.janitor.free() == 8


def test_it_sweeps_at_start(house: House, told: list[str]) -> None:
    from tests.peers import wait_until

    house.spool.delete(house.receive("1.1"))
    house.janitor.start()
    wait_until(lambda: "spool.file_missing" in told)
    house.janitor.stop()
    assert house.clock.now() == START
