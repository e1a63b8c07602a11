"""The keeper of the classify child, with children that do what a child must not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from router.core.childproto import Request, decode_request
from router.core.findings import NotAnalysed
from router.core.instance import InstanceKind
from router.core.ports import Analysis
from router.errors import ChildDied, ChildNotReady
from router.work.analyst import ChildAnalyst, batches
from tests.ledger.made import instance
from tests.peers import wait_until

#: Speaks the protocol; `behave(uid)` is put in by each test.
_CHILD = """
import os, signal, sys, time, subprocess
from multiprocessing.connection import Connection
from router.core.childproto import READY, decode_request, encode_reply, failed, ready
from router.core.findings import NotAnalysed
from router.core.instance import InstanceKind
from router.core.ports import Analysis, ResultObject
link = Connection(int(sys.argv[1]))
def result(data):
    return ResultObject(kind=InstanceKind.SR, data=data, sop_instance_uid="1", sop_class_uid="2",
        study_instance_uid="3", series_instance_uid="4", transfer_syntax_uid="5", notes=("a note",))
{greeting}
while True:
    try:
        request = decode_request(link.recv_bytes())
    except EOFError:
        sys.exit(0)
    uid = request.instance.sop_instance_uid
{behaviour}
    outcome = NotAnalysed(code="seen", reason=f"{{request.classifier}} {{request.path}} {{request.results}} {{os.getpid()}}")
    for frame in encode_reply(Analysis(outcome=outcome, results=(result(b"one"), result(b"")))):
        link.send_bytes(frame)
"""


@pytest.fixture
def analyst(tmp_path: Path) -> Iterator[Callable[..., ChildAnalyst]]:
    made: list[ChildAnalyst] = []

    def make(behaviour: str = "pass", *, greeting: str = "link.send_bytes(READY)", **more: float) -> ChildAnalyst:
        script = tmp_path / f"child{len(made)}.py"
        script.write_text(_CHILD.format(greeting=greeting, behaviour=f"    {behaviour}"))
        options = {"time_limit_s": 20.0, "start_limit_s": 20.0, **more}
        made.append(ChildAnalyst(command=[sys.executable, str(script)], **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for item in made:
        item.close()


def ask(analyst: ChildAnalyst, uid: str = "1.good") -> NotAnalysed:
    analysis = analyst.analyse("cxr", instance(uid), Path("/spool/x"), ["sr"])
    assert isinstance(analysis.outcome, NotAnalysed)
    assert [result.data for result in analysis.results] == [b"one", b""]
    assert analysis.results[0].kind is InstanceKind.SR
    return analysis.outcome


def pid(outcome: NotAnalysed) -> int:
    return int(outcome.reason.split()[-1])


def test_a_question_gets_its_answer_from_one_and_the_same_child(analyst: Callable[..., ChildAnalyst]) -> None:
    keeper = analyst()
    first = ask(keeper)
    assert first.reason.startswith("cxr /spool/x ('sr',) ")
    assert pid(ask(keeper)) == pid(first)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("if uid == '1.bad': os.kill(os.getpid(), signal.SIGSEGV)", r"crashed \(SIGSEGV\)"),
        ("if uid == '1.bad': os.abort()", r"crashed \(SIGABRT\)"),
        ("if uid == '1.bad': os.kill(os.getpid(), signal.SIGKILL)", "perhaps for want of memory"),
        ("if uid == '1.bad': os._exit(3)", "exit code 3"),
        ("if uid == '1.bad': link.send_bytes(b'not json')", "talked nonsense"),
        ("if uid == '1.bad': link.send_bytes(b'{}')", "talked nonsense"),
        ("if uid == '1.bad': link.send_bytes(b'[]')", "talked nonsense"),
        ("if uid == '1.bad': link.send_bytes(b'x' * 5_000_000)", "more than is allowed"),
        ("if uid == '1.bad': os.write(link.fileno(), b'\\x7f\\xff\\xff\\xff')", "more than is allowed"),
        (
            'if uid == \'1.bad\': link.send_bytes(b\'{"outcome": 1, "not_reported": "", "results": [{"byte_count": 9e9}]}\')',
            "talked nonsense",
        ),
        (
            'if uid == \'1.bad\': link.send_bytes(b\'{"outcome": 1, "not_reported": "", "results": [{"byte_count": 3}]}\');'
            " link.send_bytes(b'xxxxxxxx')",
            "more than is allowed",
        ),
    ],
)
def test_a_child_that_crashes_or_talks_nonsense_is_a_new_one_by_the_next_call(
    analyst: Callable[..., ChildAnalyst], behaviour: str, words: str
) -> None:
    keeper = analyst(behaviour)
    before = pid(ask(keeper))
    with pytest.raises(ChildDied, match=words):
        ask(keeper, "1.bad")
    assert pid(ask(keeper)) != before


def test_an_answer_that_could_not_be_taken_is_never_taken_for_the_next_images(
    analyst: Callable[..., ChildAnalyst], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = analyst()
    before = pid(ask(keeper))

    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("router.work.analyst.fault_point", no_memory)  # asked, and the answer is not read
        with pytest.raises(MemoryError):
            keeper.analyse("cxr", instance("1.first"), Path("/spool/first"), ["sr"])
    second = ask(keeper, "1.second")
    assert "/spool/first" not in second.reason, "that would be another patient's report"
    assert pid(second) != before


@pytest.mark.parametrize(
    "behaviour",
    [
        "if uid == '1.bad': time.sleep(1000)",
        "if uid == '1.bad': os.write(link.fileno(), b'\\0\\0'); time.sleep(1000)",
        "if uid == '1.bad': os.write(link.fileno(), b'\\0\\0\\0\\x40half'); time.sleep(1000)",
        "if uid == '1.bad': signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)",
        # what it started holds its end of the socket
        "if uid == '1.bad': subprocess.Popen(['sleep', '60'], pass_fds=[link.fileno()]); os._exit(1)",
        "if uid == '1.bad': subprocess.Popen(['sleep', '5'], pass_fds=[link.fileno()], start_new_session=True); os._exit(1)",
    ],
)
def test_a_child_that_hangs_at_whichever_byte_is_killed_in_time(
    analyst: Callable[..., ChildAnalyst], behaviour: str
) -> None:
    keeper = analyst(behaviour, time_limit_s=5)
    before = pid(ask(keeper))
    keeper._time_limit_s = 0.3
    with pytest.raises(ChildDied, match=r"did not answer within 0\.3 s"):
        ask(keeper, "1.bad")
    assert not Path(f"/proc/{before}").exists(), "killed and reaped"
    wait_until(lambda: not _of_group(before), what="its whole group is gone")
    keeper._time_limit_s = 20
    assert pid(ask(keeper)) != before


@pytest.mark.parametrize("where", ["at an image", "at its start"])
def test_closing_waits_for_no_child_that_hangs_and_blames_no_image(
    analyst: Callable[..., ChildAnalyst], where: str
) -> None:
    if where == "at an image":
        keeper = analyst("time.sleep(1000)", time_limit_s=600)
        keeper.start()
    else:
        keeper = analyst(greeting="time.sleep(1000)", start_limit_s=600)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            ask(keeper)
        except ChildNotReady as error:
            caught.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    wait_until(keeper._lock.locked, what="the child is asked")
    keeper.close()
    worker.join(30)
    assert len(caught) == 1


def test_closing_waits_for_no_second_image_that_waits_for_the_same_child(analyst: Callable[..., ChildAnalyst]) -> None:
    keeper = analyst("time.sleep(1000)", time_limit_s=600)
    keeper.start()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            ask(keeper)
        except ChildNotReady as error:
            caught.append(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for worker in workers:
        worker.start()
    wait_until(keeper._lock.locked, what="the child is asked")
    closing = threading.Thread(target=keeper.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive(), "whoever waited got a new child, and the node does not end"
    for worker in workers:
        worker.join(60)
    assert len(caught) == len(workers), "nobody is to blame"
    with pytest.raises(ChildNotReady):
        keeper.start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with the thread that started it")
def test_the_end_of_the_worker_that_started_a_child_is_not_the_end_of_the_child(
    analyst: Callable[..., ChildAnalyst],
) -> None:
    keeper = analyst(
        greeting="from router.confinement import die_with_parent; die_with_parent(); link.send_bytes(READY)"
    )
    worker = threading.Thread(target=keeper.start)
    worker.start()
    worker.join(60)
    wait_until(lambda: not Path(f"/proc/self/task/{worker.native_id}").exists(), what="the worker's thread is gone")
    child = keeper._child
    assert child is not None
    assert pid(ask(keeper)) == child.pid, "another worker may have had an image there"


def _of_group(number: int) -> list[str]:
    """Processes that are still in a process group, zombies aside."""
    fields = [
        path.read_text().rsplit(") ", 1)[1].split() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()
    ]
    return [state for state, _, group, *_ in fields if group == str(number) and state != "Z"]


def test_a_child_that_cannot_start_says_why_and_is_not_started_again_at_once(
    analyst: Callable[..., ChildAnalyst],
) -> None:
    now = [0.0]
    keeper = analyst(greeting="link.send_bytes(failed('no weights')); sys.exit(1)")
    keeper._monotonic = lambda: now[0]
    for pause_s in (1, 2, 4):
        with pytest.raises(ChildNotReady, match=r"cannot start: no weights$"):
            keeper.start()
        now[0] += pause_s - 0.1
        with pytest.raises(ChildNotReady, match="no weights; it is started again in 0 s at the earliest"):
            keeper.start()
        now[0] += 0.2


def test_a_child_that_is_not_ready_in_time_is_killed(analyst: Callable[..., ChildAnalyst]) -> None:
    with pytest.raises(ChildNotReady, match=r"did not start within 0\.2 s"):
        analyst(greeting="time.sleep(1000)", start_limit_s=0.2).start()


def test_a_program_that_is_not_there_is_said_so() -> None:
    with pytest.raises(ChildNotReady, match="cannot be started: No such file"):
        ChildAnalyst(command=["/none/such"], time_limit_s=1).start()


def test_a_child_that_dies_while_idle_is_replaced_without_anyone_noticing(
    analyst: Callable[..., ChildAnalyst],
) -> None:
    import os
    import signal

    keeper = analyst()
    before = pid(ask(keeper))
    os.kill(before, signal.SIGKILL)
    assert keeper._child is not None
    keeper._child._process.wait(10)
    assert pid(ask(keeper)) != before


def test_close_ends_the_child(analyst: Callable[..., ChildAnalyst]) -> None:
    keeper = analyst()
    number = pid(ask(keeper))
    keeper.close()
    assert not Path(f"/proc/{number}").exists()
    keeper.close()


# ---- several at once


def _requests(*uids: str) -> list[Request]:
    return [Request(classifier="cxr", instance=instance(uid), path=Path("/spool/x"), results=("sr",)) for uid in uids]


def test_several_questions_get_their_answers_in_order(analyst: Callable[..., ChildAnalyst]) -> None:
    keeper = analyst("outcome_of = uid", greeting="link.send_bytes(ready(16))")
    keeper.start()
    assert keeper.batch_max == 16
    answers = keeper.analyse_all(_requests("1.1", "1.2", "1.3"))
    assert [len(answer.results) for answer in answers if isinstance(answer, Analysis)] == [2, 2, 2]


def test_a_death_in_the_middle_keeps_the_answers_before_it(analyst: Callable[..., ChildAnalyst]) -> None:
    keeper = analyst("if uid == '1.2': os.kill(os.getpid(), signal.SIGKILL)")
    first, second, third = keeper.analyse_all(_requests("1.1", "1.2", "1.3"))
    assert isinstance(first, Analysis)
    assert isinstance(second, ChildDied)
    assert isinstance(third, ChildDied)
    assert isinstance(keeper.analyse_all(_requests("1.3"))[0], Analysis), "alone it is no trouble"


def test_more_than_a_socket_holds_are_asked_about_in_turns() -> None:
    long = [replace(request, results=("x" * 60_000,)) for request in _requests("1.1", "1.2", "1.3")]
    turns = [[request.instance.sop_instance_uid for request, _ in turn] for turn in batches(long)]
    assert turns == [["1.1", "1.2"], ["1.3"]]
    following = [decode_request(frame).following for turn in batches(long) for _, frame in turn]
    assert following == [1, 0, 0]
    assert [len(turn) for turn in batches(_requests(*(f"1.{n}" for n in range(70))))] == [32, 32, 6]


@pytest.mark.parametrize("nonsense", ["0", "-1", "33", "true", '"many"'])
def test_a_child_that_wants_an_impossible_number_at_once_is_refused(
    analyst: Callable[..., ChildAnalyst], nonsense: str
) -> None:
    keeper = analyst(greeting=f'link.send_bytes(b\'{{"ready": true, "batch_max": {nonsense}}}\')')
    with pytest.raises(ChildNotReady, match="nonsense"):
        keeper.start()
