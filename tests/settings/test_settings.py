"""What a right configuration means. What a wrong one says is in tests/bad_config."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router import registry, settings
from router.errors import ConfigError
from router.settings import NodeSettings, Settings


def test_an_empty_file_is_a_node_with_every_default() -> None:
    assert settings.parse({}) == Settings()
    assert Settings().node == NodeSettings()


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError):
        settings.parse({}).node.port = 1


@pytest.mark.parametrize(
    ("written", "byte_count"),
    [
        ("4 GiB", 2**32),
        ("4GiB", 2**32),
        ("1.5 kB", 1500),
        ("0 B", 0),
        (" 2 MiB ", 2**21),
        (123, 123),
        ("2 TB", 2 * 10**12),
    ],
)
def test_a_size_is_a_number_or_a_text_with_a_unit(written: object, byte_count: int) -> None:
    assert settings.parse({"spool": {"free_byte_count_min": written}}).spool.free_byte_count_min == byte_count


@pytest.mark.parametrize("written", ["4", "GiB", "4 gib", "-4 GiB", "4 GiB 3", "0x4 GiB", "", True, 4.5, ["4 GiB"]])
def test_anything_else_is_no_size(written: object) -> None:
    with pytest.raises(ConfigError, match=r"spool\.free_byte_count_min"):
        settings.parse({"spool": {"free_byte_count_min": written}})


def test_a_number_of_seconds_may_be_whole_or_not() -> None:
    node = settings.parse({"node": {"idle_timeout_s": 5, "pdu_timeout_s": 0.5}}).node
    assert (node.idle_timeout_s, node.pdu_timeout_s) == (5.0, 0.5)


@pytest.mark.parametrize("written", [float("nan"), float("inf"), -1.0, 0, "5", True])
def test_a_time_that_is_no_length_of_time_is_refused(written: object) -> None:
    with pytest.raises(ConfigError, match=r"node\.idle_timeout_s"):
        settings.parse({"node": {"idle_timeout_s": written}})


def test_spaces_around_an_ae_title_do_not_count() -> None:
    """PS3.5 6.2: leading and trailing spaces of an AE are not significant."""
    assert settings.parse({"node": {"ae_title": " ROUTER "}}).node.ae_title == "ROUTER"


def test_an_address_is_a_network_of_one() -> None:
    peers = settings.parse(
        {"peers": [{"ae_title": "A", "hosts": ["10.0.0.7", "10.1.2.3/24", "::1"]}, {"ae_title": "B"}]}
    ).peers
    assert peers[0].hosts == (ip_network("10.0.0.7/32"), ip_network("10.1.2.0/24"), ip_network("::1/128"))
    assert peers[1].hosts == ()


def test_rules_become_what_the_core_wants_and_one_glob_may_stand_alone() -> None:
    given_rule = {"name": "r", "when": {"Modality": "CR", "BodyPartExamined": ["CHEST", ""]}, "deliver": ["pacs"]}
    read = settings.parse({"destinations": _folder(), "rules": [given_rule]})
    (rule,) = read.core_rules()
    assert rule.when == {"Modality": ("CR",), "BodyPartExamined": ("CHEST", "")}
    assert rule.deliver == ("pacs",)


def test_the_routing_header_holds_what_rules_name_but_not_what_no_header_has() -> None:
    when = {"Modality": "CR", "ReferringPhysicianName": "*", "CallingAETitle": "A"}
    read = settings.parse({"destinations": _folder(), "rules": [{"name": "r", "when": when, "deliver": ["pacs"]}]})
    assert "ReferringPhysicianName" in read.header_keywords()
    assert "CallingAETitle" not in read.header_keywords()


def test_a_plugin_whose_package_is_missing_is_one_of_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(group: str, name: str) -> type:
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr(registry, "load", missing)
    with pytest.raises(ConfigError) as refused:
        settings.parse({"classifiers": {"cxr": {"type": "xrv"}}, "node": {"port": -1}})
    assert refused.value.problems == (
        "classifiers.cxr.type: 'xrv' cannot be loaded: No module named 'torch'",
        "node.port: must be at least 0 (it is -1)",
    )


_keys = st.sampled_from([*Settings.model_fields, *NodeSettings.model_fields, "name", "when", "deliver", "type", "x"])
_toml = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_keys, _toml, max_size=4))
def test_whatever_a_file_says_the_answer_is_settings_or_a_list_of_problems(data: dict[str, Any]) -> None:
    try:
        settings.parse(data)
    except ConfigError as error:
        assert error.problems
        assert all("\n" not in problem for problem in error.problems)


def _folder() -> dict[str, Any]:
    return {"pacs": {"type": "folder", "path": "var/delivered"}}
