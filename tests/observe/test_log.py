"""The log: lines of JSON, of the level that was asked for, and never in anybody's way."""

from __future__ import annotations

import io
import json
import logging
import threading

import pytest

from router.observe import log
from router.observe.log import configure, emit


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_sink", None)


def test_a_line_has_time_level_event_and_fields_and_lesser_levels_are_not_written() -> None:
    stream = io.StringIO()
    configure("warning", stream)
    emit("instance.received", sha256="ab")
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


def test_lines_of_many_threads_are_whole() -> None:
    stream = io.StringIO()
    configure("info", stream)
    threads = [
        threading.Thread(target=lambda n=n: [emit("instance.received", sha256=str(n) * 500) for _ in range(50)])
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
