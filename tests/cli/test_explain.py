"""`router explain`: a file, or what came before, by the rules in force and by edited ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Site
from tests.report.made import HEADER, encoded, meta

EDITED = """\
[[rules]]
name = "chest radiographs"
when = { Modality = ["CR"] }
classify = ["cxr"]
results = ["sr", "heatmap"]
results_to = ["pacs"]
"""


@pytest.fixture
def rules(site: Site) -> Path:
    path = site.folder / "edited.toml"
    path.write_text(EDITED)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.dcm"
    path.write_bytes(meta(sop_instance=HEADER["SOPInstanceUID"].decode()) + encoded(HEADER))
    return path


CHANGES = [
    {"sign": "-", "what": "deliver the original to pacs"},
    {"sign": "+", "what": "send result heatmap of cxr to pacs"},
]


def test_a_file_by_edited_rules_shows_what_would_change(site: Site, image: Path, rules: Path) -> None:
    shown = site.here("explain", image, "--rules", rules)
    assert shown.code == 0
    assert "- no more  deliver the original to pacs" in shown.out
    assert "= as now   classify by cxr" in shown.out
    assert "+ new      send result heatmap of cxr to pacs" in shown.out
    told = site.here("explain", image, "--rules", rules, "--json").json
    assert (told["changes"], told["deliver"], told["edited"]["deliver"]) == (CHANGES, ["pacs"], [])
    assert site.audited() == [], "a file that somebody has is no look into this node"


def test_the_same_rules_change_nothing_and_that_is_said(site: Site, image: Path, rules: Path) -> None:
    text = site.config.read_text()
    rules.write_text(text[text.index("[[rules]]") :])
    assert "Nothing would change." in site.here("explain", image, "--rules", rules).out
    assert site.here("explain", image, "--rules", rules, "--json").json["changes"] == []


def test_edited_rules_that_take_nothing_are_1(site: Site, image: Path, rules: Path) -> None:
    rules.write_text(EDITED.replace('"CR"', '"CT"'))
    assert site.here("explain", image).code == 0
    assert site.here("explain", image, "--rules", rules).code == 1


def test_what_came_before_is_found_by_its_uid_its_study_or_as_the_last(site: Site, rules: Path) -> None:
    first = site.receive()
    second = site.receive({"SOPInstanceUID": b"1.2.3.4"})
    for arguments, uids in (
        ((first.sop_instance_uid,), [first.sop_instance_uid]),
        ((first.study_instance_uid,), ["1.2.3.4", first.sop_instance_uid]),
        (("--last", "1"), ["1.2.3.4"]),
        (("--last", "9"), ["1.2.3.4", first.sop_instance_uid]),
    ):
        told = site.here("explain", *arguments, "--rules", rules, "--json")
        assert told.code == 0
        assert [one["sop_instance_uid"] for one in told.json["instances"]] == uids
        assert {str(one["changes"]) for one in told.json["instances"]} == {str(CHANGES)}
        assert told.json["changed_count"] == len(uids)
    shown = site.here("explain", "--last", "9", "--rules", rules)
    assert "2 of 2 would be handled differently" in shown.out
    assert second.sop_instance_uid in shown.out
    assert site.here("explain", first.sop_instance_uid).code == 0
    assert "heatmap" not in site.here("explain", "--last", "9").out


def test_a_value_that_the_ledger_did_not_keep_comes_from_the_bytes_and_is_unknown_without_them(
    site: Site, rules: Path
) -> None:
    image = site.receive({"ReferringPhysicianName": b"HOUSE^G"})
    rules.write_text(EDITED.replace('Modality = ["CR"]', 'ReferringPhysicianName = "house*"'))
    (told,) = site.here("explain", image.sop_instance_uid, "--rules", rules, "--json").json["instances"]
    assert (told["edited"]["taken"], "unknown" in told) == (True, False)
    (file,) = site.folder.glob(f"spool/objects/*/{image.spool_key}")
    file.unlink()
    done = site.here("explain", image.sop_instance_uid, "--rules", rules, "--json")
    (told,) = done.json["instances"]
    assert (done.code, told["edited"]["taken"], told["unknown"]) == (1, False, ["ReferringPhysicianName"])
    assert "Not known of some" in site.here("explain", image.sop_instance_uid, "--rules", rules).out


def test_edited_rules_that_mean_nothing_are_refused_with_their_lines(site: Site, image: Path, rules: Path) -> None:
    rules.write_text(EDITED.replace("results_to", "result_to"))
    done = site.here("explain", image, "--rules", rules)
    assert (done.code, done.out) == (1, "")
    assert f"{rules}:6: rules[0].result_to: unknown key; did you mean 'results_to'?" in done.err
    rules.write_bytes(b"\xff")
    assert site.here("explain", image, "--rules", rules).code == 2


@pytest.mark.parametrize(
    "arguments", [(), ("none.dcm",), ("1.2", "--last", "1"), ("--last", "0"), ("1.2", "--rules", "none")]
)
def test_wrong_use_is_2(site: Site, arguments: tuple[str, ...]) -> None:
    assert site.here("explain", *arguments).code == 2


def test_what_nobody_sent_is_1(site: Site) -> None:
    done = site.here("explain", "1.2.3.4.5")
    assert (done.code, done.out) == (1, "")
    assert "knows no original with the UID 1.2.3.4.5" in done.err
    assert site.here("explain", "--last", "3").code == 1
