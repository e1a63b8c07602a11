"""What `make bench` makes of its figures: tables, goals, the picture, and rows for what could not be measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import page, plot, receiving, turns
from bench.__main__ import GROUPS, arguments, measure
from bench.effort import Effort
from bench.goal import goals
from bench.receiver import STORESCP_B, Sink, ours
from bench.row import Row
from bench.sender import NAGLE_OFF, ROUTER_LANE, ROUTER_SEND, NotAllStored, seconds_to_send, stored
from bench.workload import CHEST, CT, TINY, instances
from tests.peers import ProgramMissing, wait_until
from tests.project import tree

EFFORT = Effort(quick=True, rounds=3, minutes_max=10)
CT_X1 = receiving.what(CT, NAGLE_OFF, 1)


def received(who: str, *values: float, reason: str = "") -> Row:
    return Row(group=receiving.GROUP, what=CT_X1, who=who, unit=receiving.RATE, values=values, reason=reason)


def test_a_goal_is_a_ratio_of_medians_and_its_verdict_stands_beside_it() -> None:
    rows = [received(ours(), 700, 900, 800), received(STORESCP_B, 1000, 1000, 4000)]
    (line,) = [
        line for line in page.markdown(rows, {}, plot="").splitlines() if "bit-preserving |" in line and "/" in line
    ]
    assert line == f"| receive, Nagle off, {CT.name} x1: router / {STORESCP_B} | **0.80** × | 0.70 | 1.00 | reached |"


@pytest.mark.parametrize(("figure", "verdict"), [(0.69, "missed"), (0.7, "reached"), (1.0, "aim")])
def test_more_is_better_in_a_rate_and_less_in_a_time(figure: float, verdict: str) -> None:
    rate = next(goal for goal in goals() if goal.text.startswith("receive, Nagle off") and goal.least == 0.7)
    assert rate.verdict(figure) == verdict
    time_ms = next(goal for goal in goals() if goal.text.startswith("a new task"))
    assert [time_ms.verdict(x) for x in (20, 50, 51)] == ["aim", "reached", "missed"]


def test_what_could_not_be_measured_is_a_row_with_the_reason() -> None:
    def missing() -> turns.Figures:
        raise ProgramMissing("Orthanc")

    asked = iter(range(10))
    contenders = {"router": lambda: {"ms": float(next(asked))}, "Orthanc": missing}
    rows = list(turns.rows(EFFORT, group="g", what="w", since=float("inf"), contenders=contenders))
    assert [(row.who, row.values, row.reason) for row in rows] == [
        ("router", [0.0, 1.0, 2.0], ""),
        ("Orthanc", (), "Orthanc is not installed (Debian package orthanc)"),
    ]
    assert "| Orthanc | not measured: Orthanc is not installed" in page.markdown(rows, {}, plot="")


def test_a_group_that_has_used_its_time_up_ends_with_the_first_round() -> None:
    contenders = {"router": lambda: {"ms": 1.0}}
    (row,) = turns.rows(EFFORT, group="g", what="w", since=float("-inf"), contenders=contenders)
    assert list(row.values) == [1.0]


def test_a_group_that_breaks_leaves_the_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(effort: Effort, folder: Path) -> Iterator[Row]:
        raise RuntimeError("no such luck")
        yield

    fine = received("router", 1)
    monkeypatch.setattr("bench.__main__.GROUPS", {"a": broken, "b": lambda *_: iter([fine])})
    first, second = measure(["a", "b"], EFFORT)
    assert first.reason == "RuntimeError: no such luck"
    assert second is fine


def test_the_picture_shows_each_ratio() -> None:
    picture = plot.svg([received(ours(), 800), received(STORESCP_B, 1000)])
    texts = [element.text for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert "0.80" in texts
    assert plot.svg([]) == ""


def test_publishing_replaces_the_last_runs_tables_and_nothing_else(tmp_path: Path) -> None:
    copy = tmp_path / "performance.md"
    copy.write_text(tree.read("docs/performance.md"))
    page.published(copy, "one")
    page.published(copy, "two")
    text = copy.read_text()
    assert "two" in text
    assert "\none\n" not in text
    assert text.partition(page.BEGIN)[0] == tree.read("docs/performance.md").partition(page.BEGIN)[0]
    copy.write_text("nothing")
    with pytest.raises(ValueError, match="has no lines"):
        page.published(copy, "three")


def test_every_value_of_every_round_is_kept() -> None:
    (row,) = json.loads(page.as_json([received("router", 1.23456, 2)], {"when": "now"}))["rows"]
    assert row["values"] == [1.23456, 2]


def test_a_group_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["receive", "speed"])
    assert "no such group: speed" in capsys.readouterr().err


def test_every_group_is_on_the_page() -> None:
    text = tree.read("docs/performance.md")
    assert [name for name in GROUPS if f"`{name}`" not in text] == []


@pytest.mark.parametrize("window", [1, 8])
def test_the_receiver_that_discards_counts_what_our_senders_send(tmp_path: Path, window: int) -> None:
    files = [*instances(TINY, 20, tmp_path / "files"), *instances(CHEST, 1, tmp_path / "files")]
    with Sink(folder=tmp_path / "sink", window=window) as sink:
        for number, how in enumerate((ROUTER_SEND, ROUTER_LANE), 1):
            assert stored(how, files, sink.port, sink.ae_title) == 21
            told = wait_until(lambda number=number: sink.told() if len(sink.told()) == number else [], 60)
            assert told[-1]["instances"] == 21
            assert told[-1]["bytes"] > sum(path.stat().st_size for path in files) - 21 * 500


def test_a_sender_that_stored_less_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.sender._command", lambda *_: [sys.executable, "-S", "-c", ""])
    with pytest.raises(NotAllStored, match="0 of 2"):
        seconds_to_send(ROUTER_SEND, [tmp_path / "1", tmp_path / "2"], 1, "SINK")
