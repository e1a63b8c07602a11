"""What the classifiers do: which weights run where, how much and how quickly, what they refuse, and whether scores have moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from starlette.responses import Response

from router.classify.reasons import REASONS
from router.classify.trust import FIRST_USE
from router.core.drift import Grade
from router.core.findings import ClassifierIdentity, Loaded
from router.ledger.outcomes import ANALYSED
from router.ledger.tallies import Computed, DayScores, Pace, Tallies, day_of
from router.observe.meters import answered_within_s
from router.web.drifts import DriftWatch, Judged
from router.web.paper import Paper
from router.web.plot import Panel, panel
from router.web.ways import NotFound, Visit

#: Days that can be looked at.
PERIODS = (35, 90, 365)
#: So many calling AE titles beside each other, and so many days of all of them; one alone can be chosen among more.
_PANELS_MAX, _PANEL_DAYS_MAX = 6, 1100
_CHOICES_MAX = 500
_DRAWN_MAX = 32
#: Classifier, finding, calling AE title, days.
Plotted = tuple[str, str, str, int]
_PACE_DAYS = 7
#: Codes of outcomes that no gate gives.
_MORE_REASONS = {
    "child_died": "the classifier's process died of the image, twice",
    "unreadable": "the data set cannot be read",
    "unreadable_pixels": "the pixels cannot be decoded",
}


class Analyst(Protocol):
    """`work.analyst.ChildAnalyst`: a process, or the place of one that is started when it is needed."""

    @property
    def pid(self) -> int | None: ...
    @property
    def loaded(self) -> Loaded | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """One table [classifiers.NAME]."""

    name: str
    type: str
    analysts: Sequence[Analyst]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One classifier as the page shows it."""

    name: str
    type: str
    """Empty: it is not configured any more."""
    pids: Sequence[int]
    process_count_max: int
    identity: ClassifierIdentity | None
    """Of what is loaded, else of what spoke last; None: nothing was loaded yet, and nothing said."""
    loaded: Loaded | None
    earlier: Sequence[Computed]
    pace: Pace | None
    judged: Sequence[Judged]

    @property
    def first_use(self) -> bool:
        """Nobody said what the digest of its weights should be."""
        return self.loaded is not None and self.loaded.trust == FIRST_USE

    @property
    def drifted(self) -> Sequence[Judged]:
        """What is marked."""
        return [one for one in self.judged if one.drifted]

    @property
    def compared(self) -> int:
        """Comparisons for which there were images enough."""
        return sum(one.verdict.grade is not Grade.TOO_FEW for one in self.judged)

    @property
    def refusals(self) -> Sequence[tuple[str, str, int]]:
        """(code, reason, images), the most frequent first."""
        codes = self.pace.codes if self.pace else {}
        rows = [(code, reason_of(code), count) for code, count in codes.items() if code != ANALYSED]
        return sorted(rows, key=lambda row: (-row[2], row[0]))

    def answer_s(self, share: float) -> float | None:
        """How long its processes took to answer since the node's start."""
        return answered_within_s(self.name, share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which scores are drawn."""

    classifier: str
    finding: str
    calling_ae_title: str
    """Empty: of all."""
    days: int
    classifiers: Sequence[str]
    findings: Sequence[str]
    calling_ae_titles: Sequence[str]


class ClassifierPage:
    """`/classifiers`."""

    def __init__(
        self,
        *,
        configured: Sequence[Configured],
        tallies: Tallies,
        drifts: DriftWatch,
        paper: Paper,
    ) -> None:
        self._configured = configured
        self._tallies = tallies
        self._drifts = drifts
        self._paper = paper
        self._drawn: tuple[Mapping[str, Sequence[Judged]], dict[Plotted, tuple[Sequence[Panel], int]]] = {}, {}
        """Plots, as old as the judgement that is marked in them: reading a year of scores takes a tenth of a second."""

    def page(self, visit: Visit) -> Response:
        """All classifiers, and the scores of one finding. Counts, names and AE titles: nothing of patients."""
        judged = self._drifts()
        choice = self._choice(visit, judged)
        panels, more = self._kept_panels(choice, judged) if choice is not None else ([], 0)
        return self._paper.page(
            "classifiers.html",
            principal=visit.principal,
            here="classifiers",
            classifiers=self._shown(judged),
            choice=choice,
            panels=panels,
            more=more,
            limits=self._drifts.limits,
            periods=PERIODS,
            pace_days=_PACE_DAYS,
            direction=direction,
            drifted=[one for of_one in judged.values() for one in of_one if one.drifted],
        )

    def _shown(self, judged: Mapping[str, Sequence[Judged]]) -> Sequence[Shown]:
        now = self._drifts.now()
        computed = self._tallies.computed(since=day_of(now) - timedelta(days=400))
        configured = {one.name: one for one in self._configured}
        names = [*configured, *sorted(name for name in {**computed, **judged} if name not in configured)]
        pace = self._tallies.pace(names, since=day_of(now) - timedelta(days=_PACE_DAYS - 1), now=now)
        shown = []
        for name in names:
            table = configured.get(name)
            analysts = table.analysts if table else ()
            loaded = next((one.loaded for one in analysts if one.loaded is not None), None)
            spoke = computed.get(name, [])
            identity = loaded.identity if loaded else spoke[0].identity if spoke else None
            shown.append(
                Shown(
                    name=name,
                    type=table.type if table else "",
                    pids=[one.pid for one in analysts if one.pid is not None],
                    process_count_max=len(analysts),
                    identity=identity,
                    loaded=loaded,
                    earlier=[one for one in spoke if one.identity != identity],
                    pace=pace.get(name),
                    judged=judged.get(name, ()),
                )
            )
        return shown

    def _choice(self, visit: Visit, judged: Mapping[str, Sequence[Judged]]) -> Choice | None:
        """What was asked for, or what most deserves a look: the largest drift, else the first finding."""
        there = {name: of_one for name, of_one in judged.items() if of_one}
        if not there:
            return None
        asked = visit.query("classifier")
        if asked and asked not in there:
            raise NotFound("No images were scored lately by a classifier of this name.")
        of_one = there[asked] if asked else max(there.values(), key=lambda rows: max(map(_weight, rows)))
        findings = sorted({one.finding for one in of_one})
        ae_titles = sorted({one.calling_ae_title for one in of_one})
        finding, ae_title, days = visit.query("finding"), visit.query("ae_title"), visit.query("days")
        return Choice(
            classifier=of_one[0].classifier,
            finding=finding if finding in findings else max(of_one, key=_weight).finding,
            calling_ae_title=ae_title if ae_title in ae_titles else "",
            days=int(days) if days in map(str, PERIODS) else PERIODS[0],
            classifiers=sorted(there),
            findings=findings,
            calling_ae_titles=ae_titles[:_CHOICES_MAX],
        )

    def _kept_panels(self, choice: Choice, judged: Mapping[str, Sequence[Judged]]) -> tuple[Sequence[Panel], int]:
        of, drawn = self._drawn
        if of is not judged or len(drawn) >= _DRAWN_MAX:
            drawn = {}
            self._drawn = judged, drawn
        key = choice.classifier, choice.finding, choice.calling_ae_title, choice.days
        if key not in drawn:
            drawn[key] = self._panels(choice, judged)
        return drawn[key]

    def _panels(self, choice: Choice, judged: Mapping[str, Sequence[Judged]]) -> tuple[Sequence[Panel], int]:
        """One for each calling AE title, the marked ones and then the busiest first; and how many more there are."""
        of_finding = {one.calling_ae_title: one for one in judged[choice.classifier] if one.finding == choice.finding}
        order = sorted(of_finding.values(), key=_weight, reverse=True)
        wanted = [choice.calling_ae_title] if choice.calling_ae_title else [one.calling_ae_title for one in order]
        last = day_of(self._drifts.now())
        first = last - timedelta(days=choice.days - 1)
        reference, recent = self._drifts.windows()
        most = min(_PANELS_MAX, _PANEL_DAYS_MAX // choice.days)
        rows: dict[str, list[DayScores]] = {ae_title: [] for ae_title in wanted[:most]}
        for row in self._tallies.scores(
            choice.classifier, since=first, finding=choice.finding, calling_ae_titles=list(rows)
        ):
            rows[row.calling_ae_title].append(row)
        panels = [
            panel(of_one, of_finding.get(ae_title), first=first, last=last, reference=reference, recent=recent)
            for ae_title, of_one in rows.items()
            if of_one
        ]
        return panels, max(0, len(wanted) - most)


def reason_of(code: str) -> str:
    """In words; empty for a code that only its classifier knows."""
    return REASONS.get(code) or _MORE_REASONS.get(code, "")


def direction(judged: Judged) -> str:
    """Where scores have gone, in a word."""
    recent, reference = judged.verdict.recent, judged.verdict.reference
    moved = recent.quantile(0.5) - reference.quantile(0.5)
    if abs(moved) < 0.02:
        return "spread differently"
    return "higher" if moved > 0 else "lower"


def _weight(judged: Judged) -> tuple[bool, float, int]:
    return judged.drifted, judged.verdict.psi if judged.drifted else 0.0, judged.verdict.recent.count
