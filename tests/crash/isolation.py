"""Three destinations, one silent, one slow, one healthy: what the healthy one notices of the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash import senders
from tests.crash.images import make
from tests.crash.recorder import BlackHole, Recorder
from tests.peers import wait_until
from tests.whole.router_process import RouterProcess

SLOW_S = 1.0
RULE = '\n[[rules]]\nname = "all"\nwhen = {{}}\ndeliver = [{}]\n'


@dataclass(slots=True)
class Trio:
    """A node and where it delivers to."""

    node: RouterProcess
    healthy: Recorder
    slow: Recorder
    silent: BlackHole


@contextlib.contextmanager
def trio(
    folder: Path, *, names: str = '"healthy", "slow", "blackhole"', healthy_is_there: bool = True
) -> Iterator[Trio]:
    """A node that runs and delivers everything to `names`."""
    with contextlib.ExitStack() as stack:
        healthy, slow = Recorder(), stack.enter_context(Recorder(delay_s=SLOW_S))
        stack.callback(healthy.stop)
        if healthy_is_there:
            healthy.start()
        silent = BlackHole()
        stack.callback(silent.close)
        tables = (
            healthy.table("healthy", probe_cap_s=1),
            slow.table("slow", associations_max=1),
            silent.table("blackhole", response_timeout_s=3.0, probe_cap_s=2.0),
        )
        node = RouterProcess(folder / "node", *tables, rules=(RULE.format(names),), classifier="")
        with node:
            yield Trio(node, healthy, slow, silent)


def _rate(folder: Path, names: str, count: int) -> float:
    """Instances a second at the healthy destination, from the first to the last, of a queue that is full: it comes late."""
    images = make(folder / "sent", count)
    with trio(folder, names=names, healthy_is_there=False) as found:
        senders.own(found.node.port, images)
        found.healthy.start()
        wait_until(lambda: found.healthy.count() >= count, 120, "the healthy destination has everything")
        arrivals = sorted(arrival.at_s for arrival in found.healthy.arrivals)
    return (count - 1) / (arrivals[-1] - arrivals[0])


def isolation_report(folder: Path, *, count: int = 600, repeats: int = 5) -> str:
    """Rates alone and beside the others, in turns; the medians and how they compare."""
    alone, beside = [], []
    for turn in range(repeats):
        alone.append(_rate(folder / f"alone-{turn}", '"healthy"', count))
        beside.append(_rate(folder / f"beside-{turn}", '"healthy", "slow", "blackhole"', count))
    middle = repeats // 2
    a, b = sorted(alone)[middle], sorted(beside)[middle]
    return (
        f"healthy destination alone {a:.1f}/s, beside one at {1 / SLOW_S:g}/s and a black hole {b:.1f}/s:"
        f" {100 * b / a:.0f} % (each the median of {repeats}, {count} instances)"
    )
