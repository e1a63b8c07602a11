"""What `router reproduce` does: a report is computed once more from its original, and compared with what it says.

Nothing is sent and nothing is written down. Everything that a report's bytes depend on stands in the report itself (when the
image came, which document it takes the place of) or is the image, the weights and this program.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from router.core.digest import ALGORITHMS, Algorithm, parsed
from router.core.findings import NotAnalysed, Outcome
from router.core.instance import Reference, SopInstance
from router.core.ports import Analysis
from router.errors import ChildDied, ConfigError, RouterError, SpoolDamaged
from router.node import child_argument, open_ledger
from router.offline import instance_in
from router.report.readback import Level, data_set_start, items_in, keyword_of, read_file, text_in
from router.report.told import Told, ToldFinding, told
from router.report.variant import variant
from router.settings import ClassifierSettings, Settings
from router.spool.files import spooled_path
from router.work.analyst import ChildAnalyst

_SR, _EXPLANATION = "sr", "not-analysed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One finding, as the report has it and as it was computed now; None where it is missing."""

    label: str
    said: ToldFinding | None
    computed: ToldFinding | None

    @property
    def same(self) -> bool:
        """Score, threshold and verdict."""
        return self.said is not None and self.computed is not None and _facts(self.said) == _facts(self.computed)


@dataclass(slots=True, kw_only=True)
class Reproduction:
    """What came of it."""

    sop_instance_uid: str
    original_uid: str
    algorithm: str
    weights_sha256: str
    classifier: str = ""
    """The configured one that was asked; empty: none was."""
    findings: list[Compared] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    """Plain English, without patient data; empty: it reproduces, byte for byte."""

    @property
    def reproduces(self) -> bool:
        return not self.differences


def reproduce(settings: Settings, which: str, original: Path | None) -> Reproduction:
    """Computes a report again: `which` is its SOP Instance UID or its file, `original` the image's file if not the spooled one.

    Raises RouterError when there is nothing to compute or compare, with the reason.
    """
    kept = _Kept(settings)
    path = kept.report(which)
    try:
        report = told(path)
        data = path.read_bytes()
        _, document = read_file(data)
    except (ValueError, OSError) as error:
        raise RouterError(f"{which}: not a report of this router ({error})") from error
    if len(report.images) != 1:
        count = len(report.images)
        raise RouterError(f"{which}: it refers to {count} instances and sums up reports: reproduce each of them")
    image_uid = report.images[0][0].sop_instance_uid
    known = kept.original(report.itself.sop_instance_uid, image_uid)

    def computed(by: Algorithm) -> Reproduction:
        return _reproduction(settings, report, data, document, known=known, original=original, digest=by)

    if known is not None:
        return computed(parsed(known.digest).algorithm)
    # A report's UID comes from its image's digest, and nobody knows by which algorithm that was.
    results = (computed(by) for by in sorted(ALGORITHMS, key=lambda one: one != settings.spool.digest))
    first = next(results)
    return first if first.reproduces else next((other for other in results if other.reproduces), first)


def _reproduction(
    settings: Settings,
    report: Told,
    data: bytes,
    document: Level,
    *,
    known: SopInstance | None,
    original: Path | None,
    digest: Algorithm,
) -> Reproduction:
    """`digest`: what the original's file is hashed by."""
    image_uid = report.images[0][0].sop_instance_uid
    result = Reproduction(
        sop_instance_uid=report.itself.sop_instance_uid,
        original_uid=image_uid,
        algorithm=report.algorithm.name,
        weights_sha256=report.algorithm.weights_sha256 or _weights(document),
    )
    image = _image(settings, known, original, image_uid, result, digest=digest)
    if image is None:
        return result
    if known is None:
        image = _Image(instance=replace(image.instance, received_at=_received_at(document)), path=image.path)
    wanted = _EXPLANATION if report.partial else _SR
    analysis = _computed(settings.classifiers.values(), image, wanted, _predecessor(document), result)
    if analysis is not None:
        _compare(analysis, report, data, result)
    return result


class _Kept:
    """The ledger and the spool of the node, as far as there are any; a node may be running on them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def report(self, which: str) -> Path:
        """The file of a report. Raises RouterError."""
        if Path(which).is_file():
            return Path(which)
        with closing(open_ledger(self._settings, create=False)) as ledger:
            status = ledger.queries.instance_status(which)
        if status is None:
            raise RouterError(f"{which} is neither a file nor an instance that the ledger knows")
        try:
            return spooled_path(self._settings.spool.path, status.instance.spool_key)
        except SpoolDamaged as error:
            raise RouterError(f"{which}: its bytes are not in the spool any more: give the archive's file") from error

    def original(self, report_uid: str, image_uid: str) -> SopInstance | None:
        """What the ledger knows of the image of a report; of an image that was received in two forms, the right one."""
        try:
            ledger = open_ledger(self._settings, create=False)
        except ConfigError:
            return None
        with closing(ledger):
            found = ledger.queries.original_of(report_uid)
            if found is None and (status := ledger.queries.instance_status(image_uid)) is not None:
                found = status.instance
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """The original."""

    instance: SopInstance
    path: Path


def _image(
    settings: Settings,
    known: SopInstance | None,
    given: Path | None,
    uid: str,
    result: Reproduction,
    *,
    digest: Algorithm,
) -> _Image | None:
    """The original, or None and a difference that says why there is none."""
    if given is not None:
        found = instance_in(settings, given, digest=digest)
        if found.sop_instance_uid != uid:
            result.differences.append(f"the file holds {found.sop_instance_uid}, the report is about {uid}")
            return None
        if known is not None and found.digest != known.digest:
            was, now = parsed(known.digest), parsed(found.digest)
            result.differences.append(
                f"original bytes differ: the report was made of {was.name} {was.digits}, the file has {now.digits}"
            )
            return None
        return _Image(instance=known or found, path=given.resolve())
    if known is None:
        result.differences.append(f"the ledger does not know the original {uid}: give its file")
        return None
    try:
        return _Image(instance=known, path=spooled_path(settings.spool.path, known.spool_key).resolve())
    except SpoolDamaged:
        result.differences.append(f"the bytes of the original {uid} are not in the spool any more: give its file")
        return None


def _computed(
    classifiers: Iterable[ClassifierSettings],
    image: _Image,
    wanted: str,
    before: tuple[Reference, ...],
    result: Reproduction,
) -> Analysis | None:
    """By the configured classifier that has the report's weights; None and a difference when none has."""
    others: list[str] = []
    for table in classifiers:
        analysis = _asked(table, image, wanted, before)
        weights = _weights_of(analysis)
        if result.weights_sha256 in (weights, ""):
            result.classifier = table.name
            return analysis
        others.append(f"{table.name} has {weights or 'none that are known here'}")
    result.differences.append(
        f"weights differ: the report names SHA-256 {result.weights_sha256}, "
        + ("; ".join(others) or "no classifier is configured")
    )
    return None


def _asked(table: ClassifierSettings, image: _Image, wanted: str, before: tuple[Reference, ...]) -> Analysis:
    """What one classifier makes of the image. Raises RouterError."""
    analyst = ChildAnalyst(
        command=[sys.executable, "-m", "router.child"],
        arguments=[child_argument(table)],
        time_limit_s=table.time_limit_s,
    )
    try:
        return analyst.analyse(table.name, image.instance, image.path, (wanted,), made_before=before)
    except ChildDied as error:
        raise RouterError(f"the classifier's process died of the original: {error}") from error
    finally:
        analyst.close()


def _weights_of(analysis: Analysis) -> str:
    """The digest of the classifier's weights, as far as its answer tells."""
    if not isinstance(analysis.outcome, NotAnalysed):
        return analysis.outcome.classifier.weights_sha256
    return _weights(read_file(analysis.results[0].data)[1]) if analysis.results else ""


def _weights(document: Level) -> str:
    """As Contributing Equipment says it, for documents without findings."""
    said = [text_in(item, "ContributionDescription") for item in items_in(document, "ContributingEquipmentSequence")]
    return next((text.rpartition("weights sha256 ")[2] for text in said if "weights sha256 " in text), "")


def _predecessor(document: Level) -> tuple[Reference, ...]:
    return tuple(
        Reference(
            sop_class_uid=text_in(instance, "ReferencedSOPClassUID"),
            sop_instance_uid=text_in(instance, "ReferencedSOPInstanceUID"),
            series_instance_uid=text_in(series, "SeriesInstanceUID"),
            study_instance_uid=text_in(study, "StudyInstanceUID"),
        )
        for study in items_in(document, "PredecessorDocumentsSequence")
        for series in items_in(study, "ReferencedSeriesSequence")
        for instance in items_in(series, "ReferencedSOPSequence")
    )


def _received_at(document: Level) -> datetime:
    """When the image came: the one time in a report that says its zone. Raises RouterError."""
    for item in items_in(document, "ContributingEquipmentSequence"):
        try:
            return datetime.strptime(text_in(item, "ContributionDateTime"), "%Y%m%d%H%M%S.%f%z").astimezone(UTC)
        except ValueError:
            continue
    raise RouterError("the report does not say when its image came: it is none of this router's")


def _compare(analysis: Analysis, report: Told, data: bytes, result: Reproduction) -> None:
    if not analysis.results:
        result.differences.append(f"no report comes of it now: {analysis.not_reported or _reason(analysis.outcome)}")
        return
    made = analysis.results[0].data
    while (text_in(read_file(made)[1], "SOPClassUID") != report.itself.sop_class_uid) and (other := variant(made)):
        made = other.data
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(made)
        file.flush()
        now = told(Path(file.name))
    result.findings = _pairs(report, now)
    result.differences += [f"{pair.label}: {_differs(pair)}" for pair in result.findings if not pair.same]
    if report.partial != now.partial:
        result.differences.append(
            f"the report says {report.partial or 'nothing'!r}, now it is {now.partial or 'analysed'!r}"
        )
    for name in ("name", "version", "manufacturer", "parameters"):
        if getattr(report.algorithm, name) != getattr(now.algorithm, name):
            result.differences.append(f"the algorithm's {name} differ: {_changed(report, now, name)}")
    if data[data_set_start(data) :] != made[data_set_start(made) :]:
        result.differences.append(f"the document's bytes differ, in: {', '.join(_elements_that_differ(data, made))}")


def _pairs(report: Told, now: Told) -> list[Compared]:
    said = {finding.label: finding for finding in report.findings}
    computed = {finding.label: finding for finding in now.findings}
    return [
        Compared(label=label, said=said.get(label), computed=computed.get(label))
        for label in dict.fromkeys((*said, *computed))
    ]


def _facts(finding: ToldFinding) -> tuple[Any, ...]:
    return finding.score_percent, finding.threshold_percent, finding.presence, finding.code, finding.site


def _differs(pair: Compared) -> str:
    if pair.said is None:
        return "the report does not have it"
    if pair.computed is None:
        return "it is not computed now"
    names = ("score_percent", "threshold_percent", "presence")
    changed = [(name, getattr(pair.said, name), getattr(pair.computed, name)) for name in names]
    told_changes = [f"{name} was {_shown(a)}, is {_shown(b)}" for name, a, b in changed if a != b]
    return ", ".join(told_changes) or "its codes differ"


def _shown(value: Any) -> str:
    return str(getattr(value, "meaning", value))


def _changed(report: Told, now: Told, name: str) -> str:
    a, b = getattr(report.algorithm, name), getattr(now.algorithm, name)
    if name != "parameters":
        return f"was {a!r}, is {b!r}"
    return "; ".join(sorted(f"{key}={value}" for key, value in set(a) ^ set(b)))


def _elements_that_differ(a: bytes, b: bytes) -> list[str]:
    """Keywords of the outermost elements; «their encoding» when all are equal."""
    first, second = read_file(a)[1], read_file(b)[1]
    tags = sorted(tag for tag in {*first, *second} if first.get(tag) != second.get(tag))
    return [keyword_of(tag) for tag in tags] or ["their encoding"]


def _reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, NotAnalysed) else "the report was held back"
