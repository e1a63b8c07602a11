"""The machine that figures come from, and how busy it was with other things."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.peers import ProgramMissing, program


def described() -> dict[str, str]:
    """For people: what a figure has to be read with."""
    return {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "peers": ", ".join(filter(None, (_first_line("dcmsend", "--version"), _orthanc()))),
        "packages": ", ".join(
            f"{name} {_version(name)}" for name in ("pynetdicom", "pydicom", "highdicom", "onnxruntime")
        ),
    }


def load() -> str:
    """Of the last 1, 5 and 15 minutes, our own included."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _first_line(name: str, *arguments: str) -> str:
    try:
        done = subprocess.run([str(program(name)), *arguments], capture_output=True, text=True, timeout=60, check=False)
    except ProgramMissing:
        return f"{name} not installed"
    words = (done.stdout or done.stderr).split()
    return f"dcmtk {words[2]}" if name == "dcmsend" and len(words) > 2 else " ".join(words[:2])


def _orthanc() -> str:
    return _first_line("Orthanc", "--version")
