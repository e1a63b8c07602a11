"""The parent's handle of the classify child: starts it, asks it, and kills it when it crashes, hangs or talks nonsense."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from router.core.childproto import (
    BATCH_BYTE_COUNT_MAX,
    BATCH_MAX,
    HEADER_BYTE_COUNT_MAX,
    ProtocolError,
    Request,
    batch_max_of,
    decode_reply,
    encode_request,
    loaded_of,
    result_byte_counts,
    start_problem,
)
from router.core.findings import Loaded, NotAnalysed
from router.core.instance import Reference, SopInstance
from router.core.ports import Analysis
from router.errors import ChildDied, ChildNotReady
from router.faults import fault_point
from router.observe.log import emit
from router.work.watchdog import Watchdog

T = TypeVar("T")
START_LIMIT_S = 60.0
#: Pauses after a child that died at start: a missing library is not mended by starting again a hundred times a second.
START_FIRST_PAUSE_S, START_PAUSE_CAP_S = 1.0, 60.0
_CLOSE_LIMIT_S = 2.0
#: Linux ends a child with the thread that started it (`confinement.die_with_parent`), and a worker may end while another
#: one's image is still there: so a thread that stays starts them all.
_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="child-starter")
#: Ends of a child in words.
_SIGNALS = {
    signal.SIGKILL: "was killed (SIGKILL), perhaps for want of memory",
    signal.SIGSEGV: "crashed (SIGSEGV)",
    signal.SIGABRT: "crashed (SIGABRT)",
    signal.SIGBUS: "crashed (SIGBUS)",
}


class ChildAnalyst:
    """`core.ports.BatchAnalyst` by a child process of its own, which is started when it is needed."""

    def __init__(
        self,
        *,
        command: Sequence[str],
        arguments: Sequence[str] = (),
        time_limit_s: float,
        start_limit_s: float = START_LIMIT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """The child is started as COMMAND FD ARGUMENTS, with its end of a socket pair as file descriptor FD."""
        self._command = tuple(command)
        self._arguments = tuple(arguments)
        self._time_limit_s = time_limit_s
        self._start_limit_s = start_limit_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._starting: _Child | None = None
        self._closing = False
        self._start_failures = 0
        self._no_start_before = 0.0
        self._start_problem = ""
        self._loaded: Loaded | None = None
        self._watcher: Callable[[bool], None] = lambda _: None
        self.in_reserve = False
        """True: started when others have too much to do, and not before."""

    def watched_by(self, watcher: Callable[[bool], None]) -> None:
        """Calls it with True when the child gets images and with False when it has answered."""
        self._watcher = watcher

    @property
    def batch_max(self) -> int:
        """How many images are best asked about together; 1 while there is no child."""
        child = self._child
        return child.batch_max if child is not None else 1

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none that is ready."""
        child = self._child
        return child.pid if child is not None and child.alive() else None

    @property
    def loaded(self) -> Loaded | None:
        """What the child that was ready last has said that it computes with."""
        return self._loaded

    @property
    def ready(self) -> bool:
        """True while a child waits for an image or is at one."""
        child = self._child
        return child is not None and child.alive()

    @property
    def trouble(self) -> str:
        """Why the last child did not start; empty when it did, or none was started yet."""
        return self._start_problem if self._start_failures else ""

    def start(self) -> None:
        """Starts the child and returns when it is ready. Raises ChildNotReady with its reason."""
        with self._lock:
            self._running()

    def analyse(
        self,
        classifier: str,
        instance: SopInstance,
        path: Path,
        results: Sequence[str],
        *,
        made_before: Sequence[Reference] = (),
        given: NotAnalysed | None = None,
    ) -> Analysis:
        """What the child makes of one image. Raises ChildDied, and then the child is a new one by the next call; ChildNotReady."""
        request = Request(
            classifier=classifier,
            instance=instance,
            path=path,
            results=tuple(results),
            made_before=tuple(made_before),
            given=given,
        )
        [answer] = self.analyse_all([request])
        if isinstance(answer, ChildDied):
            raise answer
        return answer

    def layers(self, classifier: str, instance: SopInstance, path: Path) -> Analysis:
        """One image again, with maps of its findings for a page; no results. Raises as `analyse` does."""
        [answer] = self.analyse_all(
            [Request(classifier=classifier, instance=instance, path=path, results=(), layers=True)]
        )
        if isinstance(answer, ChildDied):
            raise answer
        return answer

    def analyse_all(self, requests: Sequence[Request]) -> list[Analysis | ChildDied]:
        """What the child makes of several images, asked about together; ChildDied for those it had no answer for.

        Raises ChildNotReady.
        """
        found: list[Analysis | ChildDied] = []
        self._watcher(True)
        try:
            for together in batches(requests):
                found += self._asked(together)
        finally:
            self._watcher(False)
        return found

    def _asked(self, requests: Sequence[tuple[Request, bytes]]) -> list[Analysis | ChildDied]:
        answers: list[Analysis] = []
        with self._lock:
            child = self._running()
            try:
                frames = [frame for _, frame in requests]
                child.ask(frames, answers.append, time_limit_s=self._time_limit_s * len(requests))
            except ChildDied as error:
                self._child = None
                if self._closing:
                    raise ChildNotReady("the node is stopping") from error
                request, _ = requests[len(answers)]
                emit(
                    "classify.child_died",
                    level=logging.ERROR,
                    reason=str(error),
                    classifier=request.classifier,
                    sop_instance_uid=request.instance.sop_instance_uid,
                    image_count=len(requests) - len(answers),
                )
                return [*answers, *[error] * (len(requests) - len(answers))]
        return [*answers]

    def close(self) -> None:
        """Ends the child. An image that it is at gets a moment; then it is killed, and nobody is to blame: ChildNotReady."""
        self._closing = True
        while not self._lock.acquire(timeout=_CLOSE_LIMIT_S):
            at_work = self._child or self._starting
            if at_work is not None:
                at_work.kill()
        child, self._child = self._child, None
        self._lock.release()
        if child is not None:
            child.close()

    def _running(self) -> _Child:
        if self._closing:  # also for whoever waited for the lock when the child was killed
            raise ChildNotReady("the node is stopping")
        if self._child is not None and self._child.alive():
            return self._child
        if self._child is not None:  # died while it had nothing to do
            emit("classify.child_died", level=logging.ERROR, reason=self._child.end())
            self._child = None
        now = self._monotonic()
        if now < self._no_start_before:
            raise ChildNotReady(
                f"{self._start_problem}; it is started again in {self._no_start_before - now:.0f} s at the earliest"
            )
        try:
            child = self._starting = _Child(self._command, self._arguments)
            child.greet(self._start_limit_s)
        except ChildDied as error:
            self._starting = None
            pause_s = min(START_PAUSE_CAP_S, START_FIRST_PAUSE_S * 2.0 ** min(self._start_failures, 16))
            self._start_failures += 1
            self._start_problem = str(error)
            self._no_start_before = self._monotonic() + pause_s
            emit("classify.child_died", level=logging.ERROR, reason=str(error))
            raise ChildNotReady(str(error)) from error
        self._start_failures = 0
        self._child, self._starting, self._loaded = child, None, child.loaded
        emit("classify.child_started", pid=child.pid)
        return child


def batches(requests: Sequence[Request]) -> Iterator[list[tuple[Request, bytes]]]:
    """Requests with their frames, as many together as may wait for their answers at one time."""
    rest = list(requests)
    while rest:
        count = _fitting(rest)
        together, rest = rest[:count], rest[count:]
        yield [
            (request, encode_request(replace(request, following=count - 1 - n))) for n, request in enumerate(together)
        ]


def _fitting(requests: Sequence[Request]) -> int:
    """How many of the first of them go together; at least one."""
    if len(requests) == 1:
        return 1  # as nearly always: it is not encoded twice
    byte_counts = accumulate(len(encode_request(request)) for request in requests[:BATCH_MAX])
    return max(1, sum(byte_count <= BATCH_BYTE_COUNT_MAX for byte_count in byte_counts))


class _Child:
    """One process and our end of its socket. After ChildDied it is dead and reaped."""

    def __init__(self, command: Sequence[str], arguments: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            try:
                self._process = _STARTER.submit(
                    subprocess.Popen,
                    [*command, str(fd), *arguments],
                    pass_fds=(fd,),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # a group of its own, so that whatever it starts dies with it
                ).result()
            except OSError as error:
                ours.close()
                raise ChildDied(f"the classify child cannot be started: {error.strerror}") from error
        self._socket = ours
        self._connection: Connection[bytes, bytes] = Connection(os.dup(ours.fileno()))
        self._too_late = False
        self._watchdog = Watchdog(self._expire)
        self.batch_max = 1
        self.loaded: Loaded | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def greet(self, limit_s: float) -> None:
        """Returns when the child has said that it is ready."""

        def listen() -> None:
            frame = self._connection.recv_bytes(HEADER_BYTE_COUNT_MAX)
            if problem := start_problem(frame):
                raise ChildDied(f"the classify child cannot start: {problem}")
            self.batch_max, self.loaded = batch_max_of(frame), loaded_of(frame)

        self._within(limit_s, "start", listen)

    def ask(self, requests: Sequence[bytes], answered: Callable[[Analysis], None], *, time_limit_s: float) -> None:
        """Questions, then an answer to each, in order."""

        def converse() -> None:
            for request in requests:
                self._connection.send_bytes(request)
            fault_point("classify.asked")
            for _ in requests:
                header = self._connection.recv_bytes(HEADER_BYTE_COUNT_MAX)
                # A frame of another length than announced is refused before or after it is read.
                frames = [self._connection.recv_bytes(max(1, count)) for count in result_byte_counts(header)]
                answered(decode_reply(header, frames))

        self._within(time_limit_s, "answer", converse)

    def close(self) -> None:
        """Lets it end by itself, then sees that it has."""
        self._hang_up()
        self._linger()
        self._kill()

    def kill(self) -> None:
        """SIGKILL, also from another thread than the one that talks with it."""
        self._kill()

    def end(self) -> str:
        """Kills it if need be; how it ended, in words."""
        self._kill()
        self._hang_up()
        code = self._process.returncode
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
            return f"the classify child {_SIGNALS.get(signal.Signals(-code), f'was ended by {name}')}"
        return f"the classify child ended with exit code {code}"

    def _within(self, limit_s: float, what: str, conversation: Callable[[], T]) -> T:
        """Runs it against the clock. Killing ends every read and write that waits for the child, at whichever byte."""
        self._too_late = False
        try:
            with self._watchdog.watching(limit_s):
                return conversation()
        except (EOFError, OSError) as error:
            if isinstance(error, OSError) and "bad message length" in str(error):
                self.end()
                raise ChildDied("the classify child answered more than is allowed and was killed") from error
            # The socket closes before the process is gone; what it died of is known once it is reaped.
            self._linger()
            ended = self.end()
            if self._too_late:
                raise ChildDied(f"the classify child did not {what} within {limit_s:g} s and was killed") from error
            raise ChildDied(ended) from error
        except ProtocolError as error:
            self.end()
            raise ChildDied(f"the classify child talked nonsense and was killed: {error}") from error
        except BaseException:
            # ChildDied, or no memory here: what it still says would be taken for the answer to the next question.
            self.end()
            raise

    def _expire(self) -> None:
        self._too_late = True
        self._kill()
        # Something that it started may still hold the other end.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._connection.close()
        self._watchdog.close()

    def _linger(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_LIMIT_S)

    def _kill(self) -> None:
        # The group also when its leader is gone: what that has started must not live on.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
