"""A node hears SIGTERM whichever thread of it receives it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.peers import ROOT

_PROGRAM = """
import signal, sys, threading, time
from router.ending import Ending

def other():
    if sys.argv[1] == "another thread":
        time.sleep(0.5)  # the main thread sleeps by then; if not, this proves less and fails no more
        signal.pthread_kill(threading.get_ident(), {signal})
    threading.Event().wait()

with Ending() as ending:
    if sys.argv[1] == "before":
        signal.raise_signal({signal})
    threading.Thread(target=other, daemon=True).start()
    print("ready", flush=True)
    ending.wait()
    print("ended", flush=True)
    if sys.argv[1] == "twice":
        threading.Event().wait()
"""


def _program(case: str, number: signal.Signals = signal.SIGTERM) -> subprocess.Popen[str]:
    code = _PROGRAM.format(signal=int(number))
    return subprocess.Popen([sys.executable, "-c", code, case], stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("case", ["another thread", "before"])
def test_a_signal_that_does_not_wake_the_main_thread_ends_the_wait_all_the_same(
    case: str, number: signal.Signals
) -> None:
    with _program(case, number) as program:
        try:
            said, _ = program.communicate(timeout=30)
        finally:
            program.kill()
    assert (said, program.returncode) == ("ready\nended\n", 0)


def test_a_second_signal_ends_the_process_at_once() -> None:
    with _program("twice") as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            program.send_signal(signal.SIGTERM)
            assert program.stdout.readline() == "ended\n"
            program.send_signal(signal.SIGTERM)
            assert program.wait(30) == 1
        finally:
            program.kill()
