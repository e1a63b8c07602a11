"""Somebody who reads documents and types every command line, in order, in a folder that looks like a fresh clone."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

from click.testing import CliRunner

from router.cli import cli
from router.ledger.store import SqlLedger
from tests.peers import ROOT, wait_until

#: Long, because machines are slow and busy: nothing is judged by it.
DEADLINE_S = 300.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A command line of a page."""

    page: str
    text: str
    shown: tuple[str, ...] = ()
    """What the page shows that it prints."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of one."""

    code: int
    printed: str


def blocks(page: str) -> Iterator[list[str]]:
    """The shell blocks of a page, line by line."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in re.finditer(r"^( *)```(?:console|sh|bash)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        yield [line.removeprefix(found[1]) for line in found[2].splitlines()]


def command_lines(page: str) -> list[Line]:
    """Every command line in the shell blocks of a page, with what the page shows below it."""
    found: list[Line] = []
    for block in blocks(page):
        assert block[0].startswith("$ "), f"{page}: a shell block begins with a command: {block[0]}"
        for line in block:
            if line.startswith("$ "):
                found.append(Line(page=page, text=line.removeprefix("$ ")))
            else:
                last = found.pop()
                found.append(Line(page=page, text=last.text, shown=(*last.shown, line)))
    return found


def table_commands(page: str) -> list[Line]:
    """Every command of ours in the first cell of a table."""
    rows = re.findall(r"^\| (`router .*?) \|", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    return [Line(page=page, text=text) for row in rows for text in re.findall(r"`(router [^`]+)`", row)]


def clone(folder: Path, *, copied: Mapping[str, Callable[[str], str]]) -> None:
    """What a fresh clone has and commands use, installed; `copied`: files that are changed on the way, path -> change."""
    folder.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements", "scripts", "router"):
        (folder / name).symlink_to(ROOT / name)
    for name, change in copied.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(change((ROOT / name).read_text(encoding="utf-8")), encoding="utf-8")
    (folder / ".venv").mkdir()
    for inside in Path(sys.prefix).iterdir():
        if not inside.name.startswith(".installed"):
            (folder / ".venv" / inside.name).symlink_to(inside)
    for stamp in (".installed-demo", ".installed-test"):  # newer than what they depend on: make installs nothing
        (folder / ".venv" / stamp).touch()


@dataclass(kw_only=True)
class Reader:
    """A person at some terminals of one machine. What was typed once and went well is not typed again."""

    folder: Path
    translate: Callable[[str], str] = lambda text: text
    """Of everything typed, and of what pages show: for ports that are free here."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Command line -> what is typed for it."""
    answers: Mapping[str, str] = field(default_factory=dict)
    """Command line -> what is typed when it asks."""
    stays: Mapping[str, Callable[[str], bool]] = field(default_factory=dict)
    """What is typed and does not end by itself -> whether it is at work, told what it has printed."""
    elsewhere: tuple[str, ...] = ()
    """Programs that are called in a terminal of their own, where nothing was sourced."""
    done: dict[str, Done] = field(default_factory=dict)
    _sourced: list[str] = field(default_factory=list)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def type(self, line: Line) -> Done:
        """Types a line and waits for its end, or, of what goes on, until it is at work."""
        text = self.instead.get(line.text, line.text)
        if text not in self.done:
            self.done[text] = self._typed(text)
        return self.done[text]

    def shown(self, line: Line) -> list[str]:
        """What the page shows of its output and it did not print."""
        printed = self.type(line).printed.splitlines()
        return [shown for shown in line.shown if self.translate(shown) not in printed]

    def end(self, text: str, number: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C, or another signal, at the terminal of something that goes on; its exit code."""
        process = self._running.pop(text)
        os.killpg(process.pid, number)
        return process.wait(DEADLINE_S)

    def owed_count(self) -> int:
        """Tasks of the node in this folder that are not done, failed ones not counted."""
        return len(self.ask(lambda ledger: ledger.queries.owed(limit=1000)))

    def ask(self, question: Callable[[SqlLedger], T]) -> T:
        """Asks the ledger of the node in this folder."""
        ledger = SqlLedger(f"sqlite:///{self.folder}/var/ledger.db")
        try:
            return question(ledger)
        finally:
            ledger.close()

    def settle(self) -> None:
        """Returns when nothing is owed any more."""
        wait_until(lambda: self.owed_count() == 0, DEADLINE_S, "nothing is owed any more")

    def _typed(self, original: str) -> Done:
        text = self.translate(original)
        if text.startswith((". ", "umask ")):
            self._sourced.append(text)
            text = "true"
        if original in self.stays:
            return self._started(original, text)
        if re.fullmatch(r"router [^|<>&;]+", text):
            return self._ours(text, self.answers.get(original, ""))
        process = self._popen(text, subprocess.PIPE)
        printed, _ = process.communicate(self.answers.get(original, "").encode(), timeout=DEADLINE_S)
        return Done(code=process.returncode, printed=printed.decode(errors="replace"))

    def _ours(self, text: str, answer: str) -> Done:
        """In this process: what is imported already need not be imported for each command."""
        with contextlib.chdir(self.folder):
            asked = CliRunner().invoke(cli, shlex.split(text)[1:], input=answer)
        return Done(code=asked.exit_code, printed=f"{asked.output}{asked.exception or ''}")

    def _started(self, original: str, text: str) -> Done:
        log = self.folder / f"terminal-{len(self._running)}-{len(self.done)}.log"
        with log.open("wb") as stream:
            process = self._running[original] = self._popen(text, stream)
        wait_until(
            lambda: process.poll() is not None or self.stays[original](log.read_text(errors="replace")),
            DEADLINE_S,
            text,
        )
        return Done(code=process.poll() or 0, printed=log.read_text(errors="replace"))

    def _popen(self, text: str, output: int | BinaryIO) -> subprocess.Popen[bytes]:
        """A session of its own: no terminal to ask passwords at, and one group to interrupt."""
        script = "\n".join((*(() if text.startswith(self.elsewhere) else self._sourced), text))
        return subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.folder,
            stdin=subprocess.PIPE if output == subprocess.PIPE else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
