"""How fast the router is beside others, on this machine, now: `make bench`.

    python -m bench [GROUP...] [--quick] [--rounds N] [--minutes M] [--output FOLDER] [--publish]

Groups: receive, send, memory, idle, start, task, latency, report, whole, dashboard. What is measured together is measured in turns,
round by round; figures are medians. Programs that are not installed are rows that say so. Ends only processes that it
started. Writes results.json, results.md and ratios.svg; with --publish also the tables of docs/performance.md. Exit code 1 when a
promise that was measured is not kept (a goal that is marked as one), but for --quick.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import (
    dashboard,
    flight,
    idle,
    latency,
    machine,
    page,
    plot,
    receiving,
    reporting,
    sending,
    starting,
    wakeup,
    whole,
)
from bench.effort import Effort
from bench.goal import broken_promises
from bench.row import Row
from tests.peers import ROOT

GROUPS: Mapping[str, Callable[[Effort, Path], Iterator[Row]]] = {
    module.GROUP: module.measured
    for module in (receiving, sending, latency, whole, flight, idle, starting, wakeup, reporting, dashboard)
}
_PLOT = "ratios.svg"


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="one round of little: to see that it works")
    parser.add_argument("--rounds", type=int, default=3, help="medians are of so many")
    parser.add_argument("--minutes", type=float, default=20, help="at most, for each group")
    parser.add_argument("--output", type=Path, default=ROOT / "bench-results", help="folder of the results")
    parser.add_argument("--publish", action="store_true", help="the tables go into docs/performance.md, too")
    chosen = parser.parse_args(words)
    if unknown := [name for name in chosen.groups if name not in GROUPS]:
        parser.error(f"no such group: {', '.join(unknown)}")
    return chosen


def measure(groups: Sequence[str], effort: Effort) -> Iterator[Row]:
    """Every row, as soon as it is known; a group that breaks is a row with the reason."""
    for name in groups:
        with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
            try:
                yield from GROUPS[name](effort, Path(folder))
            except Exception as error:  # noqa: BLE001 - the other groups are measured all the same
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                yield Row(group=name, what="the rest of the group", who="router", unit="", reason=reason)


def main(words: Sequence[str]) -> int:
    """Measures, prints and writes; the exit code."""
    warnings.simplefilter("ignore")
    chosen = arguments(words)
    effort = Effort(quick=chosen.quick, rounds=1 if chosen.quick else chosen.rounds, minutes_max=chosen.minutes)
    groups = [name for name in GROUPS if name in chosen.groups or not chosen.groups]
    load, begun = machine.load(), time.monotonic()
    rows = []
    for row in measure(groups, effort):
        rows.append(row)
        told = page.shown(row.figure) if row.figure is not None else f"not measured: {row.reason}"
        print(f"{row.group}: {row.what}: {row.who}: {told} {row.unit}", flush=True)
    facts = {
        "command": f"`python -m bench {shlex.join(words)}`".replace(" `", "`"),
        "when": f"{datetime.now(UTC):%Y-%m-%d}, {(time.monotonic() - begun) / 60:.0f} minutes",
        **machine.described(),
        "load": f"{load} before, {machine.load()} after",
    }
    if chosen.quick:
        facts["warning"] = "a quick run: its figures mean nothing"
    _write(rows, facts, chosen.output)
    text = page.markdown(rows, facts, plot="")
    print(f"\n{text}\nwritten to {chosen.output}")
    if chosen.publish:
        _write_plot(rows, ROOT / "docs" / _PLOT)
        page.published(ROOT / "docs" / "performance.md", page.markdown(rows, facts, plot=_PLOT))
    broken = [] if chosen.quick else broken_promises(rows)
    for text in broken:
        print(f"not kept: {text}", file=sys.stderr)
    return 1 if broken else 0


def _write(rows: Sequence[Row], facts: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(page.as_json(rows, facts), encoding="utf-8")
    picture = _PLOT if _write_plot(rows, folder / _PLOT) else ""
    (folder / "results.md").write_text(page.markdown(rows, facts, plot=picture), encoding="utf-8")


def _write_plot(rows: Sequence[Row], path: Path) -> bool:
    picture = plot.svg(rows)
    path.write_text(picture, encoding="utf-8")
    return bool(picture)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
