"""Why a plan is as it is, and what would be otherwise with other rules: in words, for people and machines alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from router.core.instance import SopInstance
from router.core.rules import Plan, Rule, RuleBook, mismatch, value_of

#: Of a value that is shown as a reason.
_VALUE_LENGTH_MAX = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAnswer:
    """What one rule says of an instance."""

    name: str
    matches: bool
    because: str
    """The values that decided it. May hold patient data, where the rule asks for such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A plan and its reasons."""

    plan: Plan
    rules: tuple[RuleAnswer, ...]
    """Every rule there is, in order."""

    @property
    def matched(self) -> tuple[RuleAnswer, ...]:
        """Those that make up the plan."""
        return tuple(rule for rule in self.rules if rule.matches)

    @property
    def deeds(self) -> tuple[str, ...]:
        """See `deeds_of`."""
        return deeds_of(self.plan)


class Sign(StrEnum):
    """What becomes of a deed with other rules."""

    NEW = "+"
    GONE = "-"
    STAYS = "="


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One deed, and what becomes of it."""

    sign: Sign
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One instance by the rules in force and by edited ones."""

    now: Explanation
    edited: Explanation

    @property
    def lines(self) -> tuple[Change, ...]:
        """Every deed of either plan: first what is done now, in order, then what is new."""
        now, edited = self.now.deeds, self.edited.deeds
        return (
            *(Change(sign=Sign.STAYS if what in edited else Sign.GONE, what=what) for what in now),
            *(Change(sign=Sign.NEW, what=what) for what in edited if what not in now),
        )

    @property
    def changes(self) -> tuple[Change, ...]:
        """What would be otherwise; empty: nothing."""
        return tuple(line for line in self.lines if line.sign is not Sign.STAYS)

    @property
    def other_rules(self) -> bool:
        """Whether other rules match than now: their names stand in the ledger, also where the same is done."""
        return self.now.plan.rules != self.edited.plan.rules


def explain(instance: SopInstance, book: RuleBook) -> Explanation:
    """What would be done with an instance, by which rules, and why the others do not match."""
    return Explanation(plan=book.plan(instance), rules=tuple(_answer(rule, instance) for rule in book.rules))


def compare(instance: SopInstance, *, now: RuleBook, edited: RuleBook) -> Comparison:
    """The same by two sets of rules."""
    return Comparison(now=explain(instance, now), edited=explain(instance, edited))


def deeds_of(plan: Plan) -> tuple[str, ...]:
    """A plan as sentences, each about one thing, so that two plans differ by whole sentences."""
    deeds = [f"deliver the original to {name}" for name in plan.deliver]
    for order in plan.classify:
        deeds.append(f"classify by {order.classifier}")
        deeds += [
            f"send result {result} of {order.classifier} to {destination}"
            for result in order.results
            for destination in order.results_to
        ]
    deeds += plan.notes
    if not plan.taken:
        deeds.append("refuse with 0x0122: no rule matches and default_deliver is empty")
    elif not (plan.deliver or plan.classify):
        deeds.append("accept, and do nothing more")
    return tuple(deeds)


def _answer(rule: Rule, instance: SopInstance) -> RuleAnswer:
    name = mismatch(rule, instance)
    if name is not None:
        wanted = " or ".join(_quoted(glob) for glob in rule.when[name])
        because = f"{_fact(instance, name)}, the rule wants {wanted}"
    elif rule.when:
        because = _and([_fact(instance, asked) for asked in rule.when])
    else:
        because = "it takes everything"
    return RuleAnswer(name=rule.name, matches=name is None, because=because)


def _fact(instance: SopInstance, name: str) -> str:
    return f"{name} is {_quoted(value_of(instance, name))}"


def _quoted(value: str) -> str:
    return f'"{value[:_VALUE_LENGTH_MAX]}…"' if len(value) > _VALUE_LENGTH_MAX else f'"{value}"'


def _and(parts: Sequence[str]) -> str:
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else parts[0]
