"""What a process that decodes a stranger's pixels does to itself first, so that its trouble stays its own."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO

#: Of a child that lives for one answer: reception, delivery and classification go first.
_NICENESS = 10


def for_one_answer(time_limit_s: float) -> IO[bytes]:
    """What a child that lives for one answer does first. Gives the stream for the answer; nothing else leaves it."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    # By the kernel, and also when nobody waits any more: a codec may hang where no Python runs.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, time_limit_s)
    os.nice(_NICENESS)
    one_numeric_thread()
    answer = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # codecs print
    os.dup2(nowhere, 2)
    return answer


def die_with_parent() -> None:
    """Asks Linux to kill us when the thread that started us ends, also while we hang in a codec and listen to nobody."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def no_core_dumps() -> None:
    """Of this process and its children: what they had in memory is patients' data."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


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
