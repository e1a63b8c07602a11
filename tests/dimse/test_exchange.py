"""What both wires share: follow-ups on the association of their request, one at a time, and not without end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from router.core import commitment
from router.dimse.command import C_ECHO_RQ, N_ACTION_RQ, Command, parse_command
from router.dimse.exchange import Exchange, Message
from router.dimse.limits import FOLLOW_UPS_MAX, WireLimits
from router.dimse.pdu import ProtocolError, presentation_data
from router.dimse.store import Answer, DataSetSink, EventReport, PeerIdentity, ServiceRequest, Services
from tests.edge.rawpeer import command, element, us

PUSH, WELL_KNOWN = commitment.SOP_CLASS_UID, commitment.SOP_INSTANCE_UID
PEER = PeerIdentity(calling_ae_title="RAW", called_ae_title="ROUTER", host="127.0.0.1")


@dataclass
class Report:
    """A follow-up that is due at once."""

    settlements: list[int | None] = field(default_factory=list)
    delay_s: float = 0.0
    nothing: bool = False

    def report(self, transfer_syntax_uid: str) -> EventReport | None:
        if self.nothing:
            return None
        return EventReport(sop_class_uid=PUSH, sop_instance_uid=WELL_KNOWN, event_type=1, data_set=b"report")

    def settled(self, status: int | None) -> None:
        self.settlements.append(status)


class Line:
    """An exchange without a wire."""

    def __init__(self, *, idle_timeout_s: float = 60) -> None:
        self.sent: list[bytes] = []
        self.promises: list[Report] = []
        self.written: list[list[bytes]] = []
        self.broken = False
        limits = WireLimits(
            pdu_byte_count_max=2**17, dataset_byte_count_max=2**20, pdu_timeout_s=10, idle_timeout_s=idle_timeout_s
        )
        self.complete: list[Message] = []
        self.exchange = Exchange(
            contexts={1: (PUSH, "1.2.840.10008.1.2.1")},
            peer=PEER,
            peer_pdu_byte_count_max=0,
            limits=limits,
            services=Services(open_sink=self._never, open_service=self._open),
            tell=lambda *_, **__: None,
            send=self._send,
            complete=self.complete.append,
        )

    def ask(self, *promises: Report) -> None:
        """One N-ACTION whose answer promises these."""
        self.promises = list(promises)
        asked = Command(field=N_ACTION_RQ, message_id=1, has_data_set=False)
        self.exchange.answer(Message(1, asked, sink=self._open(None)))

    def reports(self) -> list[int]:
        """Message IDs of the reports that were sent."""
        commands = [parse_command(bytes(next(presentation_data(memoryview(data)[6:]))[2])) for data in self.sent]
        return [one.message_id for one in commands if not one.is_response]

    def hear(self, message_id: int, status: int) -> None:
        """The peer answers a report."""
        parts = element(0x0100, us(0x8100)) + element(0x0120, us(message_id)) + element(0x0800, us(0x0101))
        self.exchange.take(1, 3, memoryview(parts + element(0x0900, us(status))))
        self.exchange.answer(self.complete.pop())

    def _open(self, _request: ServiceRequest | None) -> DataSetSink:
        promises = tuple(self.promises)

        written = self.written

        class Sink:
            def write(self, parts: Sequence[memoryview]) -> None:
                written.append([bytes(part) for part in parts])

            def discard(self) -> None: ...
            def finish(self) -> Answer:
                return Answer(status=0, follow_ups=promises)

        return Sink()

    def _never(self, _request: object) -> DataSetSink:
        raise AssertionError

    def _send(self, data: bytes) -> None:
        if self.broken:
            raise ConnectionError
        self.sent.append(data)


def test_reports_go_out_one_at_a_time_and_the_next_one_after_the_answer() -> None:
    line, reports = Line(), [Report() for _ in range(3)]
    line.ask(*reports)
    for number in (1, 2, 3):
        line.exchange.follow_up()
        line.exchange.follow_up()
        assert line.reports() == list(range(1, number + 1))
        assert line.exchange.due_in_s > 0, "nothing to do before the peer has answered"
        line.hear(number, 0)
    assert [report.settlements for report in reports] == [[0], [0], [0]]


def test_what_cannot_be_told_yet_gives_way_to_the_next() -> None:
    line, reports = Line(), [Report(nothing=True), Report()]
    line.ask(*reports)
    line.exchange.follow_up()
    assert [report.settlements for report in reports] == [[None], []]
    assert line.reports() == [1]


def test_a_peer_that_does_not_answer_a_report_gets_no_other_one(monkeypatch) -> None:
    line, reports = Line(idle_timeout_s=1e-9), [Report() for _ in range(3)]
    line.ask(*reports)
    line.exchange.follow_up()
    line.exchange.follow_up()
    assert line.reports() == [1]
    assert [report.settlements for report in reports] == [[None]] * 3


def test_promises_of_one_association_are_bounded_and_the_others_are_told_at_once() -> None:
    line, reports = Line(), [Report() for _ in range(FOLLOW_UPS_MAX + 5)]
    for report in reports:
        line.ask(report)
    assert [report.settlements for report in reports] == [[]] * FOLLOW_UPS_MAX + [[None]] * 5
    line.exchange.discard()
    assert [report.settlements for report in reports] == [[None]] * len(reports)


def test_an_answer_that_cannot_be_sent_leaves_no_promise_open() -> None:
    line, report = Line(), Report()
    line.broken = True
    with pytest.raises(ConnectionError):
        line.ask(report)
    line.exchange.discard()
    assert report.settlements == [None]


def test_message_ids_of_reports_begin_again_before_they_leave_their_16_bits() -> None:
    line = Line()
    line.exchange._sent_count = 0xFFFE
    line.ask(Report(), Report())
    line.exchange.follow_up()
    line.hear(0xFFFF, 0)
    line.exchange.follow_up()
    assert line.reports() == [0xFFFF, 1]


def test_an_echo_is_complete_without_a_data_set() -> None:
    line = Line()
    line.exchange.take(1, 3, memoryview(command(C_ECHO_RQ)))
    assert not line.exchange.inside
    (message,) = line.complete
    line.exchange.answer(message)
    (sent,) = line.sent
    assert parse_command(bytes(next(presentation_data(memoryview(sent)[6:]))[2])).status == 0


def test_a_command_that_never_ends_is_not_waited_for_however_often_something_comes() -> None:
    line = Line(idle_timeout_s=1e-9)
    with pytest.raises(ProtocolError, match="arrives with less than"):
        for _ in range(3):
            line.exchange.take(1, 1, memoryview(b""))


def test_pieces_that_wait_to_be_written_are_few_however_small_they_are() -> None:
    """Each costs 200 bytes of memory to say where its one byte lies."""
    line = Line()
    line.exchange.take(1, 3, memoryview(command(N_ACTION_RQ, data=True)))
    for number in range(1000):
        line.exchange.take(1, 0, memoryview(bytes([number % 251])))
        assert len(line.exchange._parts) < 100
    line.exchange.take(1, 2, memoryview(b"end"))
    assert len(line.written) < 20, "and are not written one by one"
    assert b"".join(b"".join(parts) for parts in line.written) == bytes(n % 251 for n in range(1000)) + b"end"
