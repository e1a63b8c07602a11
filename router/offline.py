"""What commands do without a running node: explain a file, classify files. No network, no ledger, nothing kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from router import trial
from router.core.admission import CANNOT_UNDERSTAND
from router.core.digest import Algorithm
from router.core.explanation import Explanation
from router.core.findings import outcome_to_json
from router.core.instance import SopInstance
from router.deliver.sources import NotDicom, Source, find
from router.errors import ChildDied, ConfigError, RefusedError
from router.ledger.store import SqlLedger
from router.node import child_argument
from router.settings import ClassifierSettings, Settings, parse
from router.spool.files import spooled_path
from router.trial import Trial, Tried, try_file, try_past
from router.work.analyst import ChildAnalyst


def explain(settings: Settings, file: Path, *, calling_ae_title: str, edited: Settings | None = None) -> Tried:
    """What would be done with a file, by the rules of `settings` and by edited ones. Raises RefusedError."""
    with _named(file):
        return try_file(_source(file).open, settings, edited or settings, calling_ae_title=calling_ae_title)


def explain_past(
    settings: Settings,
    ledger: SqlLedger,
    *,
    uid: str,
    last: int,
    calling_ae_title: str = "",
    edited: Settings | None = None,
) -> Trial:
    """The same of what came before: of an original or a study, or the `last` instances. Nothing of the ledger is changed."""
    originals = ledger.search.originals(uid=uid, limit=last)
    if calling_ae_title:
        originals = [
            replace(one, instance=replace(one.instance, calling_ae_title=calling_ae_title)) for one in originals
        ]
    return try_past(
        originals,
        now=settings.rule_book(),
        edited=(edited or settings).rule_book(),
        spool_path=partial(spooled_path, settings.spool.path),
    )


def explained(tried: Tried, *, with_edited: bool) -> dict[str, Any]:
    """JSON-able."""
    instance, comparison = tried.instance, tried.comparison
    told: dict[str, Any] = {
        "sop_class_uid": instance.sop_class_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        **_explanation(comparison.now),
    }
    if tried.unknown:
        told["unknown"] = list(tried.unknown)
    if with_edited:
        told["edited"] = _explanation(comparison.edited)
        told["changes"] = [{"sign": str(line.sign), "what": line.what} for line in comparison.changes]
    return told


def _explanation(one: Explanation) -> dict[str, Any]:
    return {
        "rules": [{"name": rule.name, "matches": rule.matches, "because": rule.because} for rule in one.rules],
        "deliver": list(one.plan.deliver),
        "classify": [
            {"classifier": o.classifier, "results": list(o.results), "results_to": list(o.results_to)}
            for o in one.plan.classify
        ],
        "taken": one.plan.taken,
        "summary": list(one.deeds),
    }


def classify_files(settings: Settings | None, files: Sequence[Path], *, classifier: str | None) -> list[dict[str, Any]]:
    """One JSON-able row for each file: its path and `prediction` or `not_analysed`. Raises RouterError.

    In a child process under the same limits as in the node; without `settings` by the demo classifier.
    """
    table = _classifier(settings, classifier)
    analyst = ChildAnalyst(
        command=[sys.executable, "-m", "router.child"],
        arguments=[child_argument(table)],
        time_limit_s=table.time_limit_s,
    )
    analyst.start()
    rows = []
    try:
        for file in files:
            try:
                instance = instance_in(settings or Settings(), file)
                analysis = analyst.analyse(table.name, instance, file.resolve(), ())
                rows.append({"file": str(file), **outcome_to_json(analysis.outcome)})
            except (RefusedError, ConfigError) as error:
                rows.append({"file": str(file), "not_analysed": {"code": "unreadable", "reason": str(error)}})
            except ChildDied as error:
                rows.append({"file": str(file), "not_analysed": {"code": "child_died", "reason": str(error)}})
    finally:
        analyst.close()
    return rows


def _classifier(settings: Settings | None, name: str | None) -> ClassifierSettings:
    if settings is None or name is None:
        return parse({"classifiers": {"demo": {"type": "demo"}}}).classifiers["demo"]
    if name not in settings.classifiers:
        known = ", ".join(settings.classifiers) or "none is configured"
        raise ConfigError([f"classifier {name!r} is not in the configuration; there: {known}"])
    return settings.classifiers[name]


def instance_in(settings: Settings, file: Path, *, digest: Algorithm | None = None) -> SopInstance:
    """The instance in a file as the node would see it on arrival; see `trial.instance_in`. Raises RefusedError."""
    source = _source(file)
    with _named(file), source.open() as stream:
        return trial.instance_in(stream, source, settings, digest=digest)


def _source(file: Path) -> Source:
    """The first one, in an archive. Raises RefusedError."""
    found = next(iter(find([file])))
    if isinstance(found, NotDicom):
        raise RefusedError(f"{found.name}: {found.reason}", status=CANNOT_UNDERSTAND)
    return found


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """What is raised inside says of which file it speaks."""
    try:
        yield
    except RefusedError as error:
        raise RefusedError(f"{file.name}: {error}", status=error.status) from error
