"""What a process that decodes a stranger's pixels does to itself first, so that its trouble stays its own."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path


def die_with_parent() -> None:
    """Asks Linux to kill us when the thread that started us ends, also while we hang in a codec and listen to nobody."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def one_numeric_thread() -> None:
    """Before numpy is imported: helper threads make small matrices slower, most of all when cores are busy."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def bound_memory(byte_count: int) -> None:
    """Limits the address space to what is there now plus `byte_count`: a decompression bomb becomes a MemoryError."""
    status = Path("/proc/self/statm")
    if status.exists():
        here = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + byte_count, resource.RLIM_INFINITY))
