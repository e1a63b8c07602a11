"""Which rules match an instance, and what they add up to. Patterns, not expressions: nothing to evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from router.core.instance import SopInstance

#: The result (entry point router.results) that is made of a study and not of an image.
STUDY_SUMMARY = "study-summary"
#: What a rule's `when` may name beside DICOM keywords of the routing header.
PREDICATES: tuple[str, ...] = ("CallingAETitle", "CalledAETitle", "SOPClassUID", "TransferSyntaxUID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One `[[rules]]` table. `when` maps a name to globs: every name must match, any glob of a name will do."""

    name: str
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classify: tuple[str, ...] = ()
    deliver: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    results_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOrder:
    """One classifier's share of a plan."""

    classifier: str
    results: tuple[str, ...]
    results_to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be done with one instance, and why."""

    rules: tuple[str, ...]
    """Names of the rules that matched; empty: the default applied."""
    classify: tuple[ClassifyOrder, ...] = ()
    deliver: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Plain English: what a rule asked for and did not get, and why."""
    summary_quiet_s: float = 0.0
    """How long no image of a study must have come before it is summarised; 0: nothing is."""

    @property
    def taken(self) -> bool:
        """False when nothing asks for this instance: no rule matched and there is no default destination."""
        return bool(self.rules or self.deliver or self.notes)


def value_of(instance: SopInstance, name: str) -> str:
    """The text that the globs of `name` are matched against; an absent attribute is empty text."""
    match name:
        case "CallingAETitle":
            return instance.calling_ae_title
        case "CalledAETitle":
            return instance.called_ae_title
        case "SOPClassUID":
            return instance.sop_class_uid
        case "TransferSyntaxUID":
            return instance.transfer_syntax_uid
        case _:
            return instance.header.get(name, "")


def mismatch(rule: Rule, instance: SopInstance) -> str | None:
    """The first name of `rule.when` that does not match, or None when the rule matches. Case counts for nothing."""
    for name, globs in rule.when.items():
        values = value_of(instance, name).upper().split("\\")
        if not any(fnmatchcase(value.strip(), glob.upper()) for value in values for glob in globs):
            return name
    return None


def plan_for(
    instance: SopInstance,
    rules: Sequence[Rule],
    *,
    default_deliver: Sequence[str] = (),
    ae_titles: Mapping[str, str] | None = None,
) -> Plan:
    """Every rule that matches adds to the plan.

    `ae_titles` maps destination names to AE titles: an instance is never sent back to the AE title it came from, and a
    result object made by any router node is never classified. Both are noted in the plan.
    """
    hit = [rule for rule in rules if mismatch(rule, instance) is None]
    deliver = list(dict.fromkeys(name for rule in hit for name in rule.deliver)) if hit else list(default_deliver)
    notes: list[str] = []
    for name in tuple(deliver):
        if ae_titles and instance.calling_ae_title and ae_titles.get(name) == instance.calling_ae_title:
            deliver.remove(name)
            notes.append(f"not sent to {name}: it came from there")
    orders: dict[str, ClassifyOrder] = {}
    for rule in hit:
        for classifier in rule.classify:
            old = orders.get(classifier)
            orders[classifier] = ClassifyOrder(
                classifier=classifier,
                results=_union(old.results if old else (), rule.results),
                results_to=_union(old.results_to if old else (), rule.results_to),
            )
    if orders and instance.made_by_router:
        notes.append("not classified: a result object made by a router node")
        orders = {}
    return Plan(
        rules=tuple(rule.name for rule in hit),
        classify=tuple(orders.values()),
        deliver=tuple(deliver),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleBook:
    """The rules of one configuration, with what else of it a plan depends on."""

    rules: tuple[Rule, ...] = ()
    default_deliver: tuple[str, ...] = ()
    ae_titles: Mapping[str, str] = field(default_factory=dict)
    """Destination -> its AE title, of those that have one."""
    summary_quiet_s: float = 0.0

    def plan(self, instance: SopInstance) -> Plan:
        """`plan_for` with these rules."""
        made = plan_for(instance, self.rules, default_deliver=self.default_deliver, ae_titles=self.ae_titles)
        if any(STUDY_SUMMARY in rule.results for rule in self.rules):
            return replace(made, summary_quiet_s=self.summary_quiet_s)
        return made

    @property
    def names(self) -> frozenset[str]:
        """What the rules ask of an instance: DICOM keywords and `PREDICATES`."""
        return frozenset(name for rule in self.rules for name in rule.when)


def _union(a: Sequence[str], b: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*a, *b)))
