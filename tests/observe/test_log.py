"""The log: lines of JSON, of the level that was asked for, and never in anybody's way."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading

import pytest

from router.observe import log
from router.observe.log import configure, emit
from tests.peers import ROOT


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_sink", None)


def test_a_line_has_time_level_event_and_fields_and_lesser_levels_are_not_written() -> None:
    stream = io.StringIO()
    configure("warning", stream)
    emit("instance.received", digest="ab")
    emit("spool.short", level=logging.WARNING, free_byte_count=7, reason="disk «sda»")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line.pop("at").endswith("+00:00")
    assert line == {"level": "warning", "event": "spool.short", "free_byte_count": 7, "reason": "disk «sda»"}


def test_of_an_exception_there_is_where_it_was_and_not_what_it_says() -> None:
    stream = io.StringIO()
    configure("info", stream)
    try:
        raise FileNotFoundError(2, "No such file or directory", "Geheim^Gerda.dcm")
    except FileNotFoundError:
        emit("worker.crashed", level=logging.ERROR, exc_info=True)
    line = json.loads(stream.getvalue())
    assert (line["exception"], line["problem"]) == ("FileNotFoundError", "No such file or directory")
    assert line["where"][-1].startswith("test_log.py:")
    assert "Geheim" not in stream.getvalue()


class Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("gone", ["full", "closed"])
def test_a_log_that_cannot_be_written_is_nobodys_error(gone: str) -> None:
    stream = Full() if gone == "full" else io.StringIO()
    configure("info", stream)
    if gone == "closed":
        stream.close()
    emit("instance.received")
    emit("instance.received")  # and holds nobody up


class Sick:
    """In a circle with itself, so that only the collector finds it."""

    def __init__(self) -> None:
        self.self = self

    def __del__(self) -> None:
        raise ValueError("Geheim^Gerda")


_SICK = """
import gc, io, sys
from router.observe.log import configure, emit, log_uncaught
from tests.observe.test_log import Sick

class Collecting(io.StringIO):
    been = False

    def write(self, text):
        if not self.been:
            self.been = True
            Sick()
            gc.collect()
        return super().write(text)

stream = Collecting()
configure("info", stream)
log_uncaught()
emit("instance.received")
print(stream.getvalue())
"""


def test_what_a_finaliser_raises_while_a_line_is_written_is_a_line_of_its_own_and_holds_nobody_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SICK], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    events = [json.loads(line)["event"] for line in done.stdout.splitlines() if line]
    assert (done.returncode, events.count("instance.received")) == (0, 1), done.stderr
    assert "program.failed" in events
    assert "Geheim" not in done.stdout + done.stderr


def test_a_process_without_a_standard_error_writes_no_log_and_goes_on() -> None:
    program = "from router.observe.log import configure, emit; configure(); emit('instance.received'); print('on')"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program],
        stdout=subprocess.PIPE, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "on\n")


def test_a_line_that_cannot_be_made_says_so_and_is_nobodys_error() -> None:
    stream = io.StringIO()
    configure("info", stream)
    emit("instance.received", counts={(1, 2): 3})
    line = json.loads(stream.getvalue())
    assert (line["event"], line["unwritable"]) == ("instance.received", ["counts"])


def test_lines_of_many_threads_are_whole() -> None:
    stream = io.StringIO()
    configure("info", stream)
    threads = [
        threading.Thread(target=lambda n=n: [emit("instance.received", digest=str(n) * 500) for _ in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in stream.getvalue().splitlines()]) == 200


def test_an_event_that_is_not_in_the_table_is_an_error_of_the_program() -> None:
    with pytest.raises(KeyError):
        emit("instance.recieved")
