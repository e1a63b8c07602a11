"""What takes too long is ended, what does not is left alone; and no thread stays for long."""

from __future__ import annotations

import threading
import time

import pytest

from router.work.watchdog import Watchdog
from tests.peers import wait_until


def watchdogs() -> int:
    return sum(thread.name == "watchdog" for thread in threading.enumerate())


def test_what_takes_too_long_is_ended_each_time() -> None:
    expired = threading.Event()
    dog = Watchdog(expired.set)
    for _ in range(2):
        with dog.watching(0.01):
            assert expired.wait(60)
        expired.clear()
    wait_until(lambda: watchdogs() == 0, 60)


def test_a_shorter_limit_than_the_one_before_counts() -> None:
    expired = threading.Event()
    dog = Watchdog(expired.set)
    with dog.watching(3600):
        time.sleep(0.1)  # its thread sleeps now
    with dog.watching(0.01):
        assert expired.wait(60)
    dog.close()
    wait_until(lambda: watchdogs() == 0, 60)


def test_what_ends_in_time_is_left_alone_by_one_thread_for_all() -> None:
    expired: list[int] = []
    dog = Watchdog(lambda: expired.append(1))
    for _ in range(20):
        with dog.watching(3600):
            assert watchdogs() == 1
    with dog.watching(0.2):
        pass
    time.sleep(0.4)  # nothing happens after the end of the limit either
    dog.close()
    wait_until(lambda: watchdogs() == 0, 60)
    assert expired == []


def test_once_it_is_left_nothing_is_ended_any_more() -> None:
    """Whoever comes next must not be taken for the one before."""
    begun, go_on, left = threading.Event(), threading.Event(), threading.Event()

    def expire() -> None:
        begun.set()
        assert go_on.wait(60)
        assert not left.is_set()

    dog = Watchdog(expire)

    def watch() -> None:
        with dog.watching(0.01):
            assert begun.wait(60)
        left.set()

    thread = threading.Thread(target=watch)
    thread.start()
    assert begun.wait(60)
    assert not left.wait(0.1)
    go_on.set()
    thread.join(60)
    assert left.is_set()


def test_what_takes_too_long_is_ended_also_after_there_could_be_no_thread_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    expired = threading.Event()
    dog = Watchdog(expired.set)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError), dog.watching(0.01):
            raise AssertionError("it would have no limit")
    with dog.watching(0.01):
        assert expired.wait(60)
