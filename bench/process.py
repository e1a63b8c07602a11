"""What a process and its children cost, from /proc: processor time, memory. Linux."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += parents.get(one, [])
    return found


def cpu_s(pid: int) -> float:
    """Processor time of the tree so far, user and system, of children that have ended too."""
    total = 0.0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += sum(map(int, _stat(one)[11:15])) * _TICK_S
    return total


def own_cpu_s(pid: int) -> float:
    """Processor time of the process alone."""
    return sum(map(int, _stat(pid)[11:13])) * _TICK_S


def rss_mib(pid: int) -> float:
    """Memory of the tree that is its own: resident, without mapped files."""
    return sum(_status(pid, "RssAnon")) / 1024


def resident_mib(pid: int) -> float:
    """Memory of the tree that is resident, mapped files too."""
    return sum(_status(pid, "VmRSS")) / 1024


def peak_mib(pid: int) -> float:
    """The most that the tree's processes ever had resident, each by itself."""
    return sum(_status(pid, "VmHWM")) / 1024


def _status(pid: int, key: str) -> Iterator[int]:
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith(key + ":"):
                    yield int(line.split()[1])


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on, so that the state is [0]."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
