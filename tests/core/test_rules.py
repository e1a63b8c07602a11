"""plan_for: which rules match, what they add up to, and what is left out and why. A new kind of rule is a new line here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.instance import SopInstance
from router.core.rules import PREDICATES, ClassifyOrder, Rule, mismatch, plan_for, value_of

CR = "1.2.840.10008.5.1.4.1.1.1"


def instance(header: dict[str, str] | None = None, **other: Any) -> SopInstance:
    values: dict[str, Any] = {
        "sop_instance_uid": "1.2.3",
        "sop_class_uid": CR,
        "study_instance_uid": "1.2",
        "series_instance_uid": "1.2.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.4.50",
        "digest": "0" * 64,
        "byte_count": 1,
        "spool_key": "k",
        "received_at": datetime(2026, 1, 1, tzinfo=UTC),
        "calling_ae_title": "CR_ROOM1",
        "called_ae_title": "ROUTER",
    }
    return SopInstance(**{**values, **other, "header": header or {}})


def rule(name: str = "r", /, **values: Any) -> Rule:
    when = {key: (globs,) if isinstance(globs, str) else tuple(globs) for key, globs in values.pop("when", {}).items()}
    return Rule(name=name, when=when, **values)


# name, when, header of the instance, matches?
TABLE: list[tuple[str, dict[str, Any], dict[str, str], bool]] = [
    ("no condition takes everything", {}, {}, True),
    ("one value", {"Modality": "CR"}, {"Modality": "CR"}, True),
    ("another value", {"Modality": "CR"}, {"Modality": "CT"}, False),
    ("any of several values", {"Modality": ["CR", "DX"]}, {"Modality": "DX"}, True),
    ("all of several names", {"Modality": "CR", "BodyPartExamined": "CHEST"}, {"Modality": "CR"}, False),
    ("lower case in the rule", {"Modality": "cr"}, {"Modality": "CR"}, True),
    ("lower case in the image", {"BodyPartExamined": "CHEST"}, {"BodyPartExamined": "Chest"}, True),
    ("star", {"StudyDescription": "*thorax*"}, {"StudyDescription": "RX THORAX PA"}, True),
    ("question mark is one character", {"StationName": "ROOM?"}, {"StationName": "ROOM1"}, True),
    ("question mark is not two", {"StationName": "ROOM?"}, {"StationName": "ROOM12"}, False),
    ("a set of characters", {"StationName": "ROOM[12]"}, {"StationName": "ROOM2"}, True),
    ("outside the set", {"StationName": "ROOM[!12]"}, {"StationName": "ROOM2"}, False),
    ("no star, no part", {"StudyDescription": "THORAX"}, {"StudyDescription": "RX THORAX"}, False),
    ("empty text is an absent attribute", {"BodyPartExamined": ["CHEST", ""]}, {}, True),
    ("empty text is an empty attribute", {"BodyPartExamined": ""}, {"BodyPartExamined": ""}, True),
    ("a star takes absent ones, too", {"BodyPartExamined": "*"}, {}, True),
    ("question mark and star: any text at all, but some", {"BodyPartExamined": "?*"}, {}, False),
    ("any of several values of the image", {"ImageType": "PRIMARY"}, {"ImageType": "ORIGINAL\\PRIMARY\\AXIAL"}, True),
    ("none of several values", {"ImageType": "SECONDARY"}, {"ImageType": "ORIGINAL\\PRIMARY"}, False),
    ("spaces around a value do not count", {"ImageType": "PRIMARY"}, {"ImageType": "ORIGINAL\\ PRIMARY "}, True),
    ("calling AE title", {"CallingAETitle": "CR_*"}, {}, True),
    ("another calling AE title", {"CallingAETitle": "CT_*"}, {}, False),
    ("called AE title", {"CalledAETitle": "ROUTER"}, {}, True),
    ("SOP class", {"SOPClassUID": CR}, {}, True),
    ("transfer syntax", {"TransferSyntaxUID": "1.2.840.10008.1.2.4.*"}, {}, True),
]


@pytest.mark.parametrize(("when", "header", "matches"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_rule_matches(when: dict[str, Any], header: dict[str, str], matches: bool) -> None:
    assert (mismatch(rule(when=when), instance(header)) is None) is matches


def test_the_first_name_that_does_not_match_is_told() -> None:
    asked = rule(when={"Modality": "CR", "BodyPartExamined": "CHEST", "StationName": "X"})
    assert mismatch(asked, instance({"Modality": "CR", "BodyPartExamined": "HIP"})) == "BodyPartExamined"


def test_every_predicate_has_a_value_even_without_a_header() -> None:
    assert all(value_of(instance(), name) for name in PREDICATES)


@given(st.dictionaries(st.sampled_from(["Modality", "StudyDescription", "CallingAETitle"]), st.text(max_size=20)))
def test_no_text_in_an_image_or_a_rule_can_break_matching(texts: dict[str, str]) -> None:
    mismatch(rule(when=texts), instance(texts))


def test_every_rule_that_matches_adds_and_nothing_is_owed_twice() -> None:
    plan = plan_for(
        instance({"Modality": "CR"}),
        [
            rule("chest", when={"Modality": "CR"}, deliver=("pacs", "research")),
            rule("ct", when={"Modality": "CT"}, deliver=("ct-archive",)),
            rule("everything", deliver=("pacs", "backup")),
        ],
    )
    assert plan.rules == ("chest", "everything")
    assert plan.deliver == ("pacs", "research", "backup")
    assert plan.notes == ()
    assert plan.taken


def test_orders_to_one_classifier_are_joined_across_rules() -> None:
    plan = plan_for(
        instance(),
        [
            rule("a", classify=("cxr",), results=("sr",), results_to=("pacs",)),
            rule("b", classify=("cxr", "nodule"), results=("heatmap", "sr"), results_to=("pacs", "viewer")),
        ],
    )
    assert plan.classify == (
        ClassifyOrder(classifier="cxr", results=("sr", "heatmap"), results_to=("pacs", "viewer")),
        ClassifyOrder(classifier="nodule", results=("heatmap", "sr"), results_to=("pacs", "viewer")),
    )


def test_what_no_rule_matches_goes_to_the_default() -> None:
    plan = plan_for(instance(), [rule(when={"Modality": "CT"}, deliver=("ct",))], default_deliver=("pacs",))
    assert (plan.rules, plan.deliver) == ((), ("pacs",))
    assert plan.taken


def test_the_default_is_not_added_when_a_rule_matches() -> None:
    assert plan_for(instance(), [rule(deliver=("a",))], default_deliver=("pacs",)).deliver == ("a",)


def test_without_rule_and_default_nobody_takes_it_and_it_must_be_refused() -> None:
    assert not plan_for(instance(), []).taken


def test_an_instance_is_not_sent_back_to_where_it_came_from_and_the_plan_says_so() -> None:
    asked = [rule(deliver=("orthanc", "backup"))]
    titles = {"orthanc": "ORTHANC", "backup": "BACKUP"}
    plan = plan_for(instance(calling_ae_title="ORTHANC"), asked, ae_titles=titles)
    assert plan.deliver == ("backup",)
    assert plan.notes == ("not sent to orthanc: it came from there",)


def test_an_instance_whose_only_destination_is_its_source_is_taken_and_owes_nothing() -> None:
    """Orthanc forwards everything to the router: refusing would make it try for ever."""
    titles = {"orthanc": "ORTHANC"}
    for asked, default in (([rule(deliver=("orthanc",))], ()), ([], ("orthanc",))):
        plan = plan_for(instance(calling_ae_title="ORTHANC"), asked, default_deliver=default, ae_titles=titles)
        assert plan.deliver == ()
        assert plan.taken


def test_a_result_still_goes_to_the_archive_that_sent_the_image() -> None:
    asked = [rule(classify=("cxr",), results=("sr",), results_to=("orthanc",))]
    plan = plan_for(instance(calling_ae_title="ORTHANC"), asked, ae_titles={"orthanc": "ORTHANC"})
    assert plan.classify[0].results_to == ("orthanc",)


def test_a_destination_without_ae_title_never_counts_as_the_source() -> None:
    plan = plan_for(instance(calling_ae_title=""), [rule(deliver=("folder",))], ae_titles={"folder": ""})
    assert plan.deliver == ("folder",)


def test_a_result_object_of_a_router_is_delivered_but_never_classified() -> None:
    """An archive that forwards everything back must not start a loop."""
    asked = [rule(classify=("cxr",), deliver=("pacs",), results=("sr",), results_to=("pacs",))]
    plan = plan_for(instance(made_by_router=True), asked)
    assert plan.classify == ()
    assert plan.deliver == ("pacs",)
    assert plan.notes == ("not classified: a result object made by a router node",)


@given(st.permutations(range(4)))
def test_the_order_of_rules_changes_only_the_order_of_the_plan(order: list[int]) -> None:
    rules = [
        rule("0", deliver=("a",)),
        rule("1", deliver=("b", "a")),
        rule("2", classify=("x",), results=("sr",), results_to=("a",)),
        rule("3", when={"Modality": "CT"}, deliver=("never",)),
    ]
    plan = plan_for(instance({"Modality": "CR"}), [rules[i] for i in order])
    assert set(plan.rules) == {"0", "1", "2"}
    assert set(plan.deliver) == {"a", "b"}
    assert [o.classifier for o in plan.classify] == ["x"]
