"""Settling beside the sending: alone at once, together in one transaction, never in the sender's way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from router.deliver import settling
from router.deliver.settling import Settling

DEADLINE_S = 60


class Book:
    """Writes down in which thread what was written; a write can be held."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, ...]] = []
        self.threads: list[threading.Thread] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def write(self, some: Sequence[str]) -> None:
        self.begun.set()
        assert self.go.wait(DEADLINE_S)
        self.groups.append(tuple(some))
        self.threads.append(threading.current_thread())


@pytest.fixture
def book() -> Iterator[Book]:
    book = Book()
    yield book
    book.go.set()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for company as long as it takes."""
    monkeypatch.setattr(settling, "GATHER_S", DEADLINE_S)


def test_one_that_comes_alone_is_written_at_once_by_who_brings_it(book: Book) -> None:
    one = Settling(book.write)
    one.add("a", last=True)
    assert book.groups == [("a",)]
    assert book.threads == [threading.current_thread()]
    one.finish()
    assert book.groups == [("a",)]


def test_what_comes_one_after_the_other_shares_a_transaction(book: Book, patient: None) -> None:
    several = Settling(book.write)
    for name in "abc":
        several.add(name, last=name == "c")
    several.finish()
    assert book.groups == [("a", "b", "c")]


def test_what_waits_for_no_company_is_written_while_nothing_more_comes(book: Book) -> None:
    """A peer that takes a minute for each instance: the ledger knows of the first long before the last."""
    slow = Settling(book.write)
    slow.add("a", last=False)
    assert book.begun.wait(DEADLINE_S)
    slow.finish()
    assert book.groups == [("a",)]


def test_a_sender_goes_on_while_a_transaction_is_written(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "GATHER_S", 0)
    book.go.clear()
    going = Settling(book.write)
    going.add("a", last=False)
    assert book.begun.wait(DEADLINE_S)
    going.add("b", last=False)  # would wait for ever here
    going.add("c", last=False)
    book.go.set()
    going.finish()
    assert sorted(name for group in book.groups for name in group) == ["a", "b", "c"]
    assert {thread is threading.current_thread() for thread in book.threads} >= {False}


def test_a_batch_is_over_when_everything_of_it_is_written(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "GATHER_S", 0)
    book.go.clear()
    held = Settling(book.write)
    held.add("a", last=False)
    assert book.begun.wait(DEADLINE_S)
    ended = threading.Event()

    def finish() -> None:
        held.finish()
        assert book.groups
        ended.set()

    thread = threading.Thread(target=finish)
    thread.start()
    assert not ended.is_set()
    book.go.set()
    thread.join(DEADLINE_S)
    assert ended.is_set()
