"""Rows as Markdown: the goals, then a table for each group; and as JSON, so that nothing is lost by rounding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from bench.goal import goals
from bench.row import Row

#: docs/performance.md holds a run's tables between these.
BEGIN = "<!-- what `make bench` measured: begin -->"
END = "<!-- what `make bench` measured: end -->"


def markdown(rows: Sequence[Row], facts: Mapping[str, str], *, plot: str) -> str:
    """Everything that was measured. `facts`: of machine and run; `plot`: a path to the picture, or empty."""
    lines = [*(f"- {name}: {value}" for name, value in facts.items()), ""]
    if plot:
        lines += [f"![Ratios of the table below]({plot})", ""]
    reached = list(_goals(rows))
    if reached:
        lines += ["### Goals", "", "| | measured | at least | aim | |", "|---|---|---|---|---|", *reached, ""]
    for group, some in groupby(rows, key=lambda row: row.group):
        lines += [f"### {group.capitalize()}", "", *_group(list(some)), ""]
    return "\n".join(lines)


def as_json(rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    """Every value of every round."""
    return json.dumps(
        {
            "run": dict(facts),
            "rows": [
                {
                    "group": row.group,
                    "what": row.what,
                    "who": row.who,
                    "unit": row.unit,
                    "median": row.figure,
                    "values": list(row.values),
                    "reason": row.reason,
                }
                for row in rows
            ],
        },
        indent=1,
    )


def published(page: Path, text: str) -> None:
    """Puts the tables in the place of an earlier run's. Raises ValueError when the page has no place for them."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def shown(value: float) -> str:
    """Three digits that tell something."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _goals(rows: Sequence[Row]) -> Iterator[str]:
    for goal in goals():
        figure = goal.figure(rows)
        if figure is not None:
            unit = goal.unit if goal.unit != "x" else "×"
            limits = " | ".join(f"{'≤ ' if goal.less_is_better else ''}{shown(x)}" for x in (goal.least, goal.aim))
            yield f"| {goal.text} | **{shown(figure)}** {unit} | {limits} | {goal.verdict(figure)} |"


def _group(rows: Sequence[Row]) -> Iterator[str]:
    """A table for each set of circumstances: contenders down, units across, and the ratio of the first unit to ours."""
    for what, some in groupby(rows, key=lambda row: row.what):
        of_what = list(some)
        units = list(dict.fromkeys(row.unit for row in of_what if row.values))
        first = next((row for row in of_what if row.ours and row.values), None)
        yield f"**{what}**"
        yield ""
        yield f"| | {' | '.join([*units, 'router / this', 'rounds']) if units else 'figure'} |"
        yield "|---" * (len(units) + 3 if units else 2) + "|"
        for who in dict.fromkeys(row.who for row in of_what):
            mine = {row.unit: row for row in of_what if row.who == who and row.values}
            if not mine:
                reason = next(row.reason for row in of_what if row.who == who)
                yield f"| {who} | not measured: {reason} |" + " |" * (len(units) + 1 if units else 0)
                continue
            cells = [_cell(mine.get(unit)) for unit in units]
            leading = mine.get(units[0])
            yield f"| {who} | {' | '.join([*cells, _compared(first, leading), _rounds(mine.values())])} |"
        yield ""


def _cell(row: Row | None) -> str:
    if row is None or row.figure is None:
        return ""
    spread = f" ({shown(min(row.values))} to {shown(max(row.values))})" if len(row.values) > 1 else ""
    return f"{shown(row.figure)}{spread}"


def _compared(ours: Row | None, row: Row | None) -> str:
    if ours is None or row is None or ours.figure is None or not row.figure or ours.unit != row.unit:
        return ""
    return shown(ours.figure / row.figure)


def _rounds(rows: Iterable[Row]) -> str:
    return str(max(len(row.values) for row in rows))
