"""How an outcome comes into the ledger, and is counted: by day, classifier and calling AE title, with how scores are distributed.

A tally changes in the transaction that writes an outcome down, and each outcome names the tally that it is counted in. So after a crash,
after another look at an image, and when an image is forgotten, tallies are the sum of outcomes; only those that expire
(`ledger.retention_s`) stay counted: nothing of a tally says whose they were.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from router.core.drift import BINS, bin_of
from router.core.findings import (
    ClassifierIdentity,
    NotAnalysed,
    Outcome,
    Prediction,
    outcome_from_json,
    outcome_to_json,
)
from router.core.uids import digest
from router.ledger.rows import object_of
from router.ledger.schema import computation, outcome, tally
from router.ledger.statement import Statement
from router.ledger.writer import Transaction

#: Looks are counted by pieces of a day.
SLOT_S = 600
#: Upper ends, in seconds, of the bins in which waits are counted; each 1.5 times the one before, from 20 ms to 4 days.
WAIT_ENDS_S = tuple(0.02 * 1.5**n for n in range(42))
ANALYSED = "analysed"
_DAY_US = 86_400_000_000
_KEY = ("classifier", "day", "computation", "calling_ae_title")

# Statements are made once: making one anew costs SQLAlchemy more than SQLite needs to run it.
_FIND = Statement(
    select(tally.c.tally_id, tally.c.codes, tally.c.scores, tally.c.pace)
    .where(*(tally.c[name] == bindparam(f"its_{name}") for name in _KEY))
    .with_for_update()
)
_COUNTED = (
    select(tally.c.tally_id, tally.c.codes, tally.c.scores)
    .where(tally.c.tally_id == bindparam("its"))
    .with_for_update()
)
_OUTCOMES = select(outcome.c.tally_id, outcome.c.outcome)
_OF_ONE = and_(
    outcome.c.instance_id == bindparam("its_instance_id"), outcome.c.classifier == bindparam("its_classifier")
)
_OLD = _OUTCOMES.where(_OF_ONE)
_REPLACE = update(outcome).where(_OF_ONE)
_CHANGE = Statement(update(tally).where(tally.c.tally_id == bindparam("its")))
_KEPT = Statement(select(outcome.c.instance_id).where(_OF_ONE))
_NEW_OUTCOME = Statement(insert(outcome).inline())
_REMOVE = delete(tally).where(tally.c.tally_id == bindparam("its"))
_NEW = insert(tally).returning(tally.c.tally_id)
_NEW_COMPUTATION = {
    dialect.__name__.rsplit(".", 1)[-1]: dialect.insert(computation).on_conflict_do_nothing(
        index_elements=["computation"]
    )
    for dialect in (postgresql, sqlite)
}


def keep_outcome(
    tx: Transaction, value: Outcome, *, instance_id: int, classifier: str, ae_title: str, owed_us: int
) -> None:
    """Writes it, in place of an older one, and counts it. `ae_title`: whose image it is; `owed_us`: since when it was owed."""
    here = {"its_instance_id": instance_id, "its_classifier": classifier}
    again = bool(_KEPT.rows(tx.connection, here))
    if again:
        _take_out(tx, tx.connection.execute(_OLD, here).one())
    values = {
        "at": tx.now_us,
        "code": code_of(value),
        "outcome": outcome_to_json(value),
        "tally_id": _count(tx, value, classifier=classifier, ae_title=ae_title, waited_us=tx.now_us - owed_us),
    }
    if again:
        tx.connection.execute(_REPLACE, {**here, **values})
    else:
        _NEW_OUTCOME.run(tx.connection, {"instance_id": instance_id, "classifier": classifier, **values})


def code_of(value: Outcome) -> str:
    """«analysed», or the code of the reason why not."""
    return value.code if isinstance(value, NotAnalysed) else ANALYSED


def digest_of(identity: ClassifierIdentity) -> str:
    """Of everything that changes scores, and of the name."""
    return digest(_plain(identity))


def _count(tx: Transaction, value: Outcome, *, classifier: str, ae_title: str, waited_us: int) -> int:
    """Returns the number of its tally."""
    of = digest_of(value.classifier) if isinstance(value, Prediction) else ""
    key = dict(zip(_KEY, (classifier, tx.now_us // _DAY_US, of, ae_title), strict=True))
    found = _FIND.rows(tx.connection, {f"its_{name}": one for name, one in key.items()})
    tally_id, codes, scores, pace = (found[0][0], *map(object_of, found[0][1:])) if found else (None, {}, {}, {})
    _add(codes, scores, value, 1)
    _keep_pace(pace, slot=tx.now_us % _DAY_US // (SLOT_S * 1_000_000), waited_us=waited_us)
    values = {"codes": codes, "scores": scores, "pace": pace}
    if tally_id is not None:
        _CHANGE.run(tx.connection, {"its": tally_id, **values})
        return int(tally_id)
    if isinstance(value, Prediction):
        known = {"computation": of, "classifier": classifier, "identity": _plain(value.classifier)}
        tx.connection.execute(_NEW_COMPUTATION[tx.connection.dialect.name], {**known, "first_at": tx.now_us})
    return int(tx.connection.execute(_NEW, {**key, **values}).scalar_one())


def uncount(tx: Transaction, which: ColumnElement[bool]) -> None:
    """Takes outcomes out of their tallies, before they are removed or replaced; that somebody looked stays counted while others are."""
    for counted in tx.connection.execute(_OUTCOMES.where(which)).all():
        _take_out(tx, counted)


def _take_out(tx: Transaction, counted: Any) -> None:
    row = tx.connection.execute(_COUNTED, {"its": counted.tally_id}).one_or_none()
    if row is None:  # it is older than tallies
        return
    _add(row.codes, row.scores, outcome_from_json(counted.outcome), -1)
    if row.codes:
        _CHANGE.run(tx.connection, {"its": row.tally_id, "codes": row.codes, "scores": row.scores})
    else:  # nothing stays of what was the only one
        tx.connection.execute(_REMOVE, {"its": row.tally_id})


def _add(codes: dict[str, int], scores: dict[str, Any], value: Outcome, one: int) -> None:
    code = code_of(value)
    codes[code] = codes.get(code, 0) + one
    if not codes[code]:
        del codes[code]
    for finding in value.findings if isinstance(value, Prediction) else ():
        its = scores.setdefault(finding.label, {"bins": [0] * BINS, "present": 0})
        its["bins"][bin_of(finding.score)] += one
        its["present"] += one * finding.present
        its["threshold"] = finding.threshold
        if not any(its["bins"]):
            del scores[finding.label]


def _keep_pace(pace: dict[str, Any], *, slot: int, waited_us: int) -> None:
    slots, waits = pace.setdefault("slots", {}), pace.setdefault("waits", {})
    waited_s = waited_us / 1_000_000
    ended = next((n for n, end_s in enumerate(WAIT_ENDS_S) if waited_s <= end_s), len(WAIT_ENDS_S) - 1)
    for counter, key in ((slots, str(slot)), (waits, str(ended))):
        counter[key] = counter.get(key, 0) + 1


def _plain(identity: ClassifierIdentity) -> dict[str, Any]:
    value = outcome_to_json(Prediction(classifier=identity, findings=()))
    classifier: dict[str, Any] = value["prediction"]["classifier"]
    return classifier
