"""What commands do without a running node: explain a file, classify files. No network, no ledger, nothing kept."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from router.core.findings import outcome_to_json
from router.core.instance import SopInstance
from router.core.rules import mismatch, value_of
from router.deliver.sources import NotDicom, Source, find
from router.errors import ChildDied, ConfigError, RefusedError
from router.node import child_argument, planner
from router.receive.header import read_header
from router.settings import ClassifierSettings, Settings, parse
from router.work.analyst import ChildAnalyst


def explain(settings: Settings, file: Path, *, calling_ae_title: str) -> dict[str, Any]:
    """Which rules match a file and why, and what would be done with it: JSON-able. Raises RouterError."""
    instance = instance_in(settings, file, calling_ae_title=calling_ae_title)
    rules = []
    for rule in settings.core_rules():
        name = mismatch(rule, instance)
        because = (
            "" if name is None else f"{name} is {value_of(instance, name)!r}, wanted {' or '.join(rule.when[name])!r}"
        )
        rules.append({"name": rule.name, "matches": name is None, "because": because})
    plan = planner(settings)(instance)
    summary = [f"deliver the original to {name}" for name in plan.deliver]
    for order in plan.classify:
        results = f"; send its {', '.join(order.results)} to {', '.join(order.results_to)}" if order.results else ""
        summary.append(f"classify by {order.classifier}{results}")
    summary += plan.notes
    if not plan.taken:
        summary.append("refuse with 0x0122: no rule matches and default_deliver is empty")
    elif not (plan.deliver or plan.classify):
        summary.append("accept, and do nothing more")
    return {
        "file": str(file),
        "sop_class_uid": instance.sop_class_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "rules": rules,
        "deliver": list(plan.deliver),
        "classify": [
            {"classifier": o.classifier, "results": list(o.results), "results_to": list(o.results_to)}
            for o in plan.classify
        ],
        "taken": plan.taken,
        "summary": summary,
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


def instance_in(settings: Settings, file: Path, *, calling_ae_title: str = "") -> SopInstance:
    """The instance in a file as the node would see it on arrival. Raises RefusedError or RouterError."""
    found = next(iter(find([file])))
    if isinstance(found, NotDicom):
        raise RefusedError(f"{found.name}: {found.reason}", status=0xC000)
    assert isinstance(found, Source)
    data_set = file.read_bytes()[found.data_set_offset :]
    with file.open("rb") as stream:
        header = read_header(
            stream,
            offset=found.data_set_offset,
            byte_count=len(data_set),
            transfer_syntax_uid=found.transfer_syntax_uid,
            keywords=settings.header_keywords(),
        )
    if header.identity.sop_instance_uid not in ("", found.sop_instance_uid):
        raise RefusedError(
            f"{file.name}: File Meta Information and data set name different SOP instances", status=0xA900
        )
    return SopInstance(
        sop_instance_uid=found.sop_instance_uid,
        sop_class_uid=header.identity.sop_class_uid,
        study_instance_uid=header.identity.study_instance_uid,
        series_instance_uid=header.identity.series_instance_uid,
        transfer_syntax_uid=found.transfer_syntax_uid,
        sha256=hashlib.sha256(data_set).hexdigest(),
        byte_count=len(data_set),
        spool_key="",
        received_at=datetime.now(UTC),
        calling_ae_title=calling_ae_title,
        called_ae_title=settings.node.ae_title,
        made_by_router=header.made_by_router,
        header=header.values,
    )
