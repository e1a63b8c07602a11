"""Deterministic UIDs: the same work gives the same UID on every node, other work another one, for ever."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from router.core import uids
from router.core.admission import valid_uid

_words = st.text(alphabet=st.characters(exclude_characters="\x1f", exclude_categories=["Cs"]), max_size=10)

SOP: dict[str, str] = {
    "kind": "sr",
    "source_sop_instance_uid": "1.2.3",
    "source_digest": "ab",
    "weights_sha256": "cd",
    "parameters": "ef",
    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34",
    "writer": "1",
}


@given(st.lists(_words, max_size=5))
def test_every_derived_uid_is_a_uid_of_the_standard(parts: list[str]) -> None:
    uid = uids.derived_uid(*parts)
    assert valid_uid(uid)
    assert uid.startswith("2.25.")
    assert len(uid) <= 44
    assert not uid.startswith("2.25.0")


@given(st.lists(_words, max_size=4), st.lists(_words, max_size=4))
def test_other_parts_give_another_uid(a: list[str], b: list[str]) -> None:
    assert (uids.derived_uid(*a) == uids.derived_uid(*b)) == ("\x1f".join(a) == "\x1f".join(b))


def test_where_one_part_ends_matters() -> None:
    assert uids.derived_uid("ab", "c") != uids.derived_uid("a", "bc")


def test_the_uids_of_today_are_those_of_tomorrow() -> None:
    """A change here gives every result in every archive a twin: it needs a decision, not a refactoring."""
    assert uids.result_sop_instance_uid(**SOP) == "2.25.167815023963597217610458091460590184596"
    assert (
        uids.result_series_instance_uid(kind="sr", study_instance_uid="1.2", weights_sha256="cd", parameters="ef")
        == "2.25.199278567726377967540060579173156682054"
    )


def test_whatever_changes_a_result_changes_its_uid() -> None:
    base = uids.result_sop_instance_uid(**SOP)
    changed: dict[str, Any] = {name: uids.result_sop_instance_uid(**{**SOP, name: "other"}) for name in SOP}
    assert base not in changed.values()
    assert len(set(changed.values())) == len(SOP)


def test_results_of_one_kind_and_classifier_share_a_series_in_their_study() -> None:
    same = {"kind": "sr", "study_instance_uid": "1.2", "weights_sha256": "cd", "parameters": "ef"}
    base = uids.result_series_instance_uid(**same)
    assert all(uids.result_series_instance_uid(**{**same, name: "other"}) != base for name in same)


def test_a_finding_keeps_its_tracking_uid_when_the_classifier_is_retrained() -> None:
    """It takes no weights; a retrained network is another device."""
    effusion = uids.tracking_uid(source_sop_instance_uid="1.2.3", label="Effusion")
    assert effusion != uids.tracking_uid(source_sop_instance_uid="1.2.3", label="Nodule")
    assert uids.device_uid(weights_sha256="ab") != uids.device_uid(weights_sha256="cd")


@given(st.dictionaries(_words, _words, max_size=5))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, str]) -> None:
    assert uids.digest(value) == uids.digest(dict(reversed(value.items())))
    assert len(uids.digest(value)) == 64


def test_a_digest_tells_values_and_keys_apart() -> None:
    assert len({uids.digest(v) for v in ({}, {"a": "b"}, {"b": "a"}, {"a": "b", "c": ""}, {"a": 1}, {"a": "1"})}) == 6
