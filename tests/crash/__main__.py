"""`make crash`: hundreds of rounds of SIGKILL and of lost power, sabotage that must be found, and a table of what held."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.crash import senders
from tests.crash.disks import CannotMount, LoopDisk
from tests.crash.isolation import isolation_report
from tests.crash.life import AT_RANDOM, AT_START, CLASSIFY_POINTS, FREE_POINTS, OTHER_POINTS, SIGTERM, Life
from tests.crash.recorder import Recorder
from tests.crash.tally import Tally
from tests.peers import Orthanc, ProgramMissing, StoreScp

#: Rounds that one data folder goes through: half of them end at fault points.
_ROUNDS_OF_A_LIFE = 12
_ENDS = (*(("point",) * 6), *((AT_RANDOM,) * 4), AT_START, SIGTERM)


def main() -> int:
    """Exit code 1 when anything that was acknowledged was lost, or sabotage was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--power-rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the rounds are the same with the same seed")
    parser.add_argument("--without-sabotage", action="store_true", help="leave out the proof that the proof can fail")
    parser.add_argument("--without-isolation", action="store_true", help="leave out the figure for a slow neighbour")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    print(f"seed {asked.seed}")
    good = True
    with tempfile.TemporaryDirectory(prefix="router-crash-") as name:
        folder = Path(name)
        good &= _show("SIGKILL", kills(folder / "kill", asked.rounds, chance))
        try:
            good &= _show("loss of power", power(folder / "power", asked.power_rounds, chance))
            if not asked.without_sabotage:
                good &= sabotage(folder / "sabotage", chance)
        except CannotMount as error:
            print(f"\nloss of power: NOT RUN, {error}")
        if not asked.without_isolation:
            print(f"\n== one destination slow, one silent\n{isolation_report(folder / 'isolation')}")
    return 0 if good else 1


def kills(folder: Path, rounds: int, chance: random.Random) -> Tally:
    """Rounds that end with SIGKILL (some with SIGTERM), spread over data folders, senders and destinations of all kinds."""
    total = Tally()
    points = {
        name: itertools.cycle(chance.sample(some, len(some)))
        for name, some in (
            ("other", OTHER_POINTS),
            ("classify", CLASSIFY_POINTS),
        )
    }
    # To be reached at the start after a round in which something was delivered.
    points["free"] = (name for free in itertools.cycle(FREE_POINTS) for name in (next(points["other"]), free))
    kinds = itertools.cycle(("recorder", "classify", "storescp", "recorder", "free", "orthanc"))
    while total.rounds < rounds:
        kind = next(kinds)
        with _life(folder / str(total.rounds), kind, chance) as life:
            for end in chance.sample(_ENDS, min(_ROUNDS_OF_A_LIFE, rounds - total.rounds)):
                chosen = next(points.get(kind, points["other"])) if end == "point" else end
                life.round(chosen, passing=1 if kind in ("classify", "free") else chance.randint(1, 8))
            found = life.finish()
        total.add(found)
        print(
            f"{total.rounds:4} rounds, {total.acknowledged} acknowledged, lost {len(total.lost)} ({kind})", flush=True
        )
        if found.wrong:
            print(found.table(), life.node.log.read_text()[-20000:], sep="\n")
    return total


@contextlib.contextmanager
def _life(folder: Path, kind: str, chance: random.Random) -> Iterator[Life]:
    """A data folder with its destination."""
    if kind == "storescp":
        with StoreScp(folder=folder / "storescp") as storescp:
            yield Life(folder, storescp, chance=chance, send_again=False, sender=senders.own)
    elif kind == "orthanc":
        try:
            with Orthanc(folder=folder / "orthanc") as orthanc:
                yield Life(folder, orthanc, chance=chance)
        except ProgramMissing:
            with _life(folder, "storescp", chance) as life:
                yield life
    else:
        with Recorder() as recorder:
            classify, free = kind == "classify", kind == "free"
            each = 2 if classify else 6
            yield Life(folder, recorder, chance=chance, classify=classify, free=free, images_each=each)


def power(folder: Path, rounds: int, chance: random.Random, *, change: str = "", two: bool | None = None) -> Tally:
    """Rounds that end with a loss of power; the destination is away during half of them. `two` disks, or now one, now two."""
    total = Tally()
    for number in range(-(-rounds // 5)):
        here = folder / str(number)
        apart = two if two is not None else number % 2 == 0
        with LoopDisk(here / "spool-disk") as spool, contextlib.ExitStack() as stack:
            ledger = stack.enter_context(LoopDisk(here / "ledger-disk")) if apart else spool
            recorder = Recorder()
            life = Life(here, recorder, chance=chance, change=change, spool_disk=spool, ledger_disk=ledger)
            if number % 4 >= 2:
                stack.enter_context(recorder)
            for turn in range(min(5, rounds - total.rounds)):
                # One association that ends with its response: nobody else's flush comes to the help of a missing one.
                end = ("answer.sent", AT_RANDOM, "accept.committed", "answer.sent", AT_RANDOM)[turn]
                life.round(end, passing=chance.randint(1, 5), associations=1 if turn in (0, 3) else 4)
            if number % 4 < 2:
                stack.enter_context(recorder)
            total.add(life.finish())
    return total


def sabotage(folder: Path, chance: random.Random) -> bool:
    """Takes one step out of the node at a time; True when the rounds found each."""
    print("\n== sabotage: each of these must be found")
    found = {
        "success_first": _bent(folder, "success_first", chance, "answer.sent", "answer.sent"),
        "settled_first": _bent(folder, "settled_first", chance, "deliver.unsent", "deliver.answered"),
        "two_transactions": _bent(folder, "two_transactions", chance, "classify.written", classify=True),
    }
    # Not the sync of a folder: files are made under their names, and ext4 brings a new file's name along with its bytes. It is kept
    # for file systems that need not (POSIX promises nothing), and tests/spool/test_names.py says when it happens.
    for change in ("no_file_sync", "ledger_normal"):
        found[f"{change} (power)"] = power(folder / change, 5, chance, change=change, two=True)
    for name, tally in found.items():
        wrong = ", ".join(f"{k} {len(v) if isinstance(v, list) else v}" for k, v in tally.wrong.items())
        print(f"{name:26}{tally.rounds} rounds, {tally.acknowledged} acknowledged: {wrong or 'NOT FOUND'}")
    return all(tally.wrong for tally in found.values())


def _bent(folder: Path, change: str, chance: random.Random, *ends: str, classify: bool = False) -> Tally:
    with Recorder() as recorder:
        life = Life(
            folder / change,
            recorder,
            chance=chance,
            change=change,
            classify=classify,
            images_each=1 if classify else 6,
            send_again=False,
        )
        for end in ends:
            life.round(end)
        return life.finish(30)


def _show(title: str, tally: Tally) -> bool:
    print(f"\n== {title}\n{tally.table()}", flush=True)
    for name, value in tally.wrong.items():
        print(f"WRONG: {name}: {value}")
    return not tally.wrong


if __name__ == "__main__":
    sys.exit(main())
