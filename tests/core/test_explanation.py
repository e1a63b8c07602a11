"""Why a plan is as it is, and what other rules would make of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from router.core.explanation import Sign, compare, deeds_of, explain
from router.core.rules import Plan, Rule, RuleBook
from tests.core.test_rules import instance

CHEST = Rule(
    name="chest",
    when={"Modality": ("CR", "DX")},
    classify=("cxr",),
    deliver=("pacs",),
    results=("sr",),
    results_to=("pacs",),
)
ALL = Rule(name="all", deliver=("pacs",))
BOOK = RuleBook(rules=(CHEST, ALL))
CR = instance({"Modality": "CR", "BodyPartExamined": "CHEST"})
CT = instance({"Modality": "CT"})


def book(*rules: Rule, **more: object) -> RuleBook:
    return replace(BOOK, rules=rules, **more)


def changes(one: object, *rules: Rule, **more: object) -> list[tuple[str, str]]:
    found = compare(one, now=BOOK, edited=book(*rules, **more)).changes
    return [(str(change.sign), change.what) for change in found]


@pytest.mark.parametrize(
    ("one", "because"),
    [
        (CR, ['Modality is "CR"', "it takes everything"]),
        (CT, ['Modality is "CT", the rule wants "CR" or "DX"', "it takes everything"]),
        (instance(), ['Modality is "", the rule wants "CR" or "DX"', "it takes everything"]),
    ],
)
def test_every_rule_says_which_value_decided_it(one: object, because: list[str]) -> None:
    assert [rule.because for rule in explain(one, BOOK).rules] == because


def test_a_rule_that_matches_names_all_that_it_asked_and_long_values_are_cut() -> None:
    rule = Rule(name="x", when={"Modality": ("*",), "BodyPartExamined": ("*",), "StudyDescription": ("*",)})
    one = instance({"Modality": "CR", "BodyPartExamined": "CHEST", "StudyDescription": "x" * 500})
    (answer,) = explain(one, book(rule)).rules
    assert answer.because == f'Modality is "CR", BodyPartExamined is "CHEST" and StudyDescription is "{"x" * 80}…"'


def test_the_same_rules_change_nothing() -> None:
    compared = compare(CR, now=BOOK, edited=BOOK)
    assert (compared.changes, compared.other_rules) == ((), False)
    assert {line.sign for line in compared.lines} == {Sign.STAYS}


def test_what_is_new_and_what_is_no_more_are_told_one_by_one() -> None:
    seen = replace(CHEST, results=("sr", "heatmap"), deliver=("archive",))
    assert changes(CR, seen, ALL) == [
        ("+", "deliver the original to archive"),
        ("+", "send result heatmap of cxr to pacs"),
    ]
    assert changes(CR, replace(CHEST, when={"Modality": ("DX",)}), ALL) == [
        ("-", "classify by cxr"),
        ("-", "send result sr of cxr to pacs"),
    ]
    assert changes(CT, CHEST) == [
        ("-", "deliver the original to pacs"),
        ("+", "refuse with 0x0122: no rule matches and default_deliver is empty"),
    ]
    assert changes(CT, CHEST, default_deliver=("pacs",)) == [], "by another way, but the same"


def test_another_name_of_a_rule_is_no_change_of_what_is_done_and_is_seen_all_the_same() -> None:
    compared = compare(CR, now=BOOK, edited=book(replace(CHEST, name="thorax"), ALL))
    assert (compared.changes, compared.other_rules) == ((), True)


def test_notes_are_part_of_what_is_compared() -> None:
    titled = {"pacs": CR.calling_ae_title}
    assert ("+", "not sent to pacs: it came from there") in changes(CR, CHEST, ALL, ae_titles=titled)


def test_a_plan_that_asks_for_nothing_says_so() -> None:
    assert deeds_of(Plan(rules=("x",))) == ("accept, and do nothing more",)


RULES = [
    Rule(name=name, when={"Modality": globs}, classify=classify, deliver=deliver, results=("sr",), results_to=("pacs",))
    for name, globs, classify, deliver in itertools.product(
        "ab", [("CR",), ("CT",)], [(), ("cxr",)], [("pacs",), ("archive", "pacs")]
    )
]


def test_nothing_changes_exactly_when_the_same_is_done_and_the_way_back_is_the_opposite() -> None:
    turned = {Sign.NEW: Sign.GONE, Sign.GONE: Sign.NEW}
    for now, edited in itertools.product(
        itertools.chain([()], itertools.combinations(RULES, 1), [RULES[:9]]), repeat=2
    ):
        compared = compare(CR, now=book(*now), edited=book(*edited))
        assert (not compared.changes) == (set(compared.now.deeds) == set(compared.edited.deeds))
        back = compare(CR, now=book(*edited), edited=book(*now))
        assert {(turned[c.sign], c.what) for c in compared.changes} == {(c.sign, c.what) for c in back.changes}
