"""Tallies are the sum of outcomes, whatever happens to these: on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from router.core.drift import BINS
from router.core.findings import Finding, NotAnalysed, Outcome, Prediction
from router.core.lifecycle import TaskKind
from router.errors import LeaseLost
from router.ledger.engine import open_engines
from router.ledger.store import SqlLedger
from router.ledger.tallies import day_of
from tests.ledger.made import START, FakeClock, instance, plan
from tests.peers import ROOT
from tests.report.made import prediction

SINCE = day_of(START) - timedelta(days=1)
LATERAL = NotAnalysed(code="lateral", reason="a lateral view")


def said(score: float, *, weights: str = "c0" * 32) -> Prediction:
    """A prediction with two findings, the second an odd name."""
    findings = (
        Finding(label="Effusion", score=score, raw=score),
        Finding(label='Odd "$.name', score=1 - score, raw=0.1, threshold=0.7),
    )
    return replace(prediction(weights=weights), findings=findings)


def look(ledger: SqlLedger, outcome: Outcome, *, limit: int = 1) -> list[str]:
    """A classifier has said it of what is due; UIDs."""
    tasks = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=limit)
    for task in tasks:
        ledger.complete(task, outcome=outcome)
    return [task.uid for task in tasks]


def receive(ledger: SqlLedger, uid: str, *, ae_title: str = "CR_ROOM1", study: str = "1.2") -> None:
    new = instance(uid, calling_ae_title=ae_title, study_instance_uid=study)
    ledger.accept(new, plan(classify=("cxr",), deliver=()))


def forget(ledger: SqlLedger, study: str) -> None:
    known = ledger.forgetting.mark(study, force=True)
    assert known is not None
    ledger.forgetting.remove(known)


def counted(url: str) -> tuple[Counter[Any], Counter[Any]]:
    """(what the tallies say, the same counted anew from each outcome): (classifier, day, AE title, code or finding and bin) -> images."""
    engines = open_engines(url)
    tallied: Counter[Any] = Counter()
    anew: Counter[Any] = Counter()
    with engines.read.connect() as connection:
        for row in connection.execute(sa.text("SELECT * FROM tally")).mappings():
            where = (row["classifier"], row["day"], row["calling_ae_title"], row["computation"] != "")
            codes, scores = (value_of(row[name]) for name in ("codes", "scores"))
            tallied.update({(*where, code): count for code, count in codes.items()})
            for label, its in scores.items():
                tallied[(*where, label, "present")] += its["present"]
                tallied.update({(*where, label, n): count for n, count in enumerate(its["bins"]) if count})
        outcomes = "SELECT o.*, i.calling_ae_title FROM outcome o JOIN instance i ON i.instance_id = o.instance_id"
        for row in connection.execute(sa.text(outcomes)).mappings():
            findings = value_of(row["outcome"]).get("prediction", {}).get("findings", [])
            analysed = row["code"] == "analysed"
            where = (row["classifier"], row["at"] // 86_400_000_000, row["calling_ae_title"], analysed)
            anew[(*where, row["code"])] += 1
            for finding in findings:
                anew[(*where, finding["label"], "present")] += finding["score"] >= finding["threshold"]
                anew[(*where, finding["label"], min(BINS - 1, int(finding["score"] * BINS)))] += 1
    engines.close()
    return Counter({k: v for k, v in tallied.items() if v}), Counter({k: v for k, v in anew.items() if v})


def value_of(cell: Any) -> Any:
    return json.loads(cell) if isinstance(cell, str) else cell


def test_tallies_are_the_sum_of_outcomes_through_any_history(
    ledger: SqlLedger, ledger_url: str, clock: FakeClock
) -> None:
    """Images come, are looked at, are freed and come again by another AE title, are looked at again, are forgotten."""
    rng = random.Random(1)
    known = 0
    for round_ in range(60):
        clock.forward(rng.choice([1, 600, 40_000]))
        what = rng.choice(["new", "new", "look", "look", "again", "forget", "refuse"])
        if what == "new":
            known += 1
            receive(ledger, f"1.{known}", ae_title=rng.choice(["A", "B"]), study=f"1.{known // 2}.0")
        elif what in ("look", "refuse"):
            score = rng.choice([0.0, 0.3, 0.5, 0.7, 1.0])
            weights = rng.choice(["c0", "c1"]) * 32
            look(ledger, LATERAL if what == "refuse" else said(score, weights=weights), limit=3)
        elif what == "again":
            look(ledger, said(0.4), limit=99)
            ledger.free(retention_s=0)
            for number in range(1, known + 1, 2):
                receive(ledger, f"1.{number}", ae_title="C", study=f"1.{number // 2}.0")
        elif known:
            study = f"1.{rng.randint(0, known // 2)}.0"
            if ledger.forgetting.known(study) is not None:
                forget(ledger, study)
        if round_ % 10 == 9:
            tallied, anew = counted(ledger_url)
            # An image that came again by another AE title stays counted with the one that it was looked at for.
            assert sum(tallied.values()) == sum(anew.values())
            assert without_ae_title(tallied) == without_ae_title(anew)
    assert sum(tallied.values()) > 20


def without_ae_title(counts: Counter[Any]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for (classifier, day, _, *what), count in counts.items():
        found[(classifier, day, *what)] += count
    return found


def test_days_calling_ae_titles_and_weights_are_kept_apart(
    ledger: SqlLedger, ledger_url: str, clock: FakeClock
) -> None:
    for number, (ae_title, weights) in enumerate([("A", "c0"), ("A", "c0"), ("B", "c0"), ("A", "c1")]):
        receive(ledger, f"1.{number}", ae_title=ae_title)
        look(ledger, said(0.5, weights=weights * 32))
        clock.forward(43_200)
    tallied, anew = counted(ledger_url)
    assert tallied == anew
    rows = ledger.tallies.scores("cxr", since=SINCE, finding="Effusion")
    assert [(row.day.day, row.calling_ae_title, row.scores.present_count) for row in rows] == [
        (1, "A", 1), (2, "A", 1), (2, "B", 1), (3, "A", 1),
    ]  # fmt: skip
    first, last = ledger.tallies.computed(since=SINCE)["cxr"]
    assert (first.identity.weights_sha256, last.identity.weights_sha256) == ("c1" * 32, "c0" * 32)
    assert {row.computation for row in rows} == {first.computation, last.computation}


def test_one_finding_of_one_ae_title_is_read_whatever_it_is_called(ledger: SqlLedger) -> None:
    receive(ledger, "1.1", ae_title="A")
    receive(ledger, "1.2", ae_title="B")
    look(ledger, said(0.9), limit=2)
    (row,) = ledger.tallies.scores("cxr", since=SINCE, finding='Odd "$.name', calling_ae_titles=["B"])
    assert (row.threshold, row.scores.present_count, row.scores.count, row.scores.bins[4]) == (0.7, 0, 1, 0)
    assert row.scores.bins[3] == 1, "1 - 0.9 is a little less than 0.1"
    assert ledger.tallies.scores("cxr", since=SINCE, finding="nothing of that name") == []
    assert len(ledger.tallies.scores("cxr", since=SINCE)) == 4


def test_what_is_not_written_is_not_counted(ledger: SqlLedger, ledger_url: str) -> None:
    receive(ledger, "1.1")
    (task,) = ledger.claim(TaskKind.CLASSIFY, "cxr", lease_s=60, limit=1)
    ledger.complete(task, outcome=said(0.5))
    with pytest.raises(LeaseLost):
        ledger.complete(task, outcome=said(0.9))
    tallied, anew = counted(ledger_url)
    assert tallied == anew
    assert tallied.total() == 4, "one image, two scores, one of them present"


def test_forgetting_takes_a_study_out_and_expiry_does_not(ledger: SqlLedger, clock: FakeClock) -> None:
    for number in range(3):
        receive(ledger, f"1.{number}", study=f"1.{number}.0")
    look(ledger, said(0.5), limit=3)
    forget(ledger, "1.0.0")
    (row,) = ledger.tallies.scores("cxr", since=SINCE, finding="Effusion")
    assert row.scores.count == 2
    ledger.free(retention_s=0)
    clock.forward(100)
    assert ledger.forgetting.expire(retention_s=1) == 2
    (row,) = ledger.tallies.scores("cxr", since=SINCE, finding="Effusion")
    assert row.scores.count == 2


def test_pace_is_what_was_done_and_how_long_images_waited(ledger: SqlLedger, clock: FakeClock) -> None:
    receive(ledger, "1.1")
    look(ledger, LATERAL)
    clock.forward(80_000)
    for number in range(2, 12):
        receive(ledger, f"1.{number}")
    clock.forward(4)
    look(ledger, said(0.5), limit=10)
    clock.forward(3000)
    pace = ledger.tallies.pace(["cxr", "other"], since=SINCE, now=clock.now())["cxr"]
    assert (pace.codes, pace.last_hour, pace.last_day) == ({"analysed": 10, "lateral": 1}, 10, 11)
    for share in (0.5, 0.95):
        waited_s = pace.wait_s(share)
        assert waited_s is not None
        assert 4 / 1.5 <= waited_s <= 4 * 1.5
    clock.forward(90_000)
    later = ledger.tallies.pace(["cxr", "other"], since=SINCE, now=clock.now())["cxr"]
    assert (later.last_hour, later.last_day) == (0, 0)


_KILLED = """
import sys
from router.core.lifecycle import TaskKind
from router.ledger.store import SqlLedger
from tests.contract.test_tallies import look, receive, said
ledger = SqlLedger(sys.argv[1])
ledger.end_all_leases()
for number in range(3):
    receive(ledger, f"1.{number}")
while look(ledger, said(0.6)):
    pass
ledger.close()
"""


@pytest.mark.parametrize("point", ["classify.written", "classify.committed"])
def test_a_kill_in_the_middle_of_an_outcome_neither_loses_nor_doubles_its_count(tmp_path: Path, point: str) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    command = [sys.executable, "-c", _KILLED, url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(command, cwd=ROOT, env={**environment, "ROUTER_FAULT": f"{point}:2"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    tallied, anew = counted(url)
    assert tallied == anew
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    tallied, anew = counted(url)
    assert tallied == anew
    assert tallied["cxr", day_number(), "CR_ROOM1", True, "analysed"] == 3


def day_number() -> int:
    return int(datetime.now(UTC).timestamp()) // 86_400
