"""Weeks of scores in a ledger, as modalities would leave them; those of one drift."""

from __future__ import annotations

import random
from dataclasses import replace

from router.core.findings import Finding, NotAnalysed, Prediction
from router.ledger.entry import enter
from router.ledger.outcomes import keep_outcome
from router.ledger.store import SqlLedger
from router.ledger.writer import Transaction
from tests.ledger.made import FakeClock, instance
from tests.report.made import prediction

FINDINGS = {"Effusion": (2.0, 6.0), "Cardiomegaly": (2.5, 4.0), "Pneumothorax": (1.2, 9.0)}
STEADY, DRIFTING, RARE = "CR_ROOM1", "DX_WARD", "MOBILE_7"
DRIFT_DAYS = 6
LATERAL = NotAnalysed(code="lateral", reason="a lateral view")
_DAY_US = 86_400_000_000


def fill(ledger: SqlLedger, clock: FakeClock, *, days: int = 35, a_day: int = 24, classifier: str = "cxr") -> None:
    """`a_day` images of two modalities each day until now, few of a third; effusions of the second look stronger in the last days.

    In one transaction instead of thousands: by the functions that the others use, with the time of each day.
    """
    rng = random.Random(2026)

    def work(tx: Transaction) -> None:
        now_us = tx.now_us
        for day in range(days):
            tx.now_us = now_us - (days - 1 - day) * _DAY_US
            for ae_title, count in ((STEADY, a_day), (DRIFTING, a_day), (RARE, day % 2)):
                late = ae_title == DRIFTING and day >= days - DRIFT_DAYS
                for number in range(count):
                    uid = f"1.9.{day}.{number}.{len(ae_title)}"
                    new = instance(uid, calling_ae_title=ae_title, study_instance_uid=f"{uid}.1")
                    entry = enter(tx, new, root_id=None, rules=(), notes=())
                    keep_outcome(
                        tx,
                        LATERAL if rng.random() < 0.1 else said(rng, late=late),
                        instance_id=entry.instance_id,
                        classifier=classifier,
                        ae_title=ae_title,
                        owed_us=tx.now_us - int(rng.expovariate(1 / 800_000)),
                    )

    ledger._writer.do(work)


def said(rng: random.Random, *, late: bool) -> Prediction:
    """Made-up scores, most low; `late`: effusions look stronger."""
    findings = []
    for label, (alpha, beta) in FINDINGS.items():
        score = rng.betavariate(alpha + (2.2 if late and label == "Effusion" else 0.0), beta)
        findings.append(Finding(label=label, score=score, raw=score))
    return replace(prediction(), findings=tuple(findings))
