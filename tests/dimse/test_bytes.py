"""PDUs, command sets and messages from bytes: read, or refused with ProtocolError, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dimse.command import Command, encode_response, parse_command
from router.dimse.contexts import ProposedContext
from router.dimse.message import COMMAND_BYTE_COUNT_MAX, DataSetPart, MessageAssembler
from router.dimse.pdu import (
    AssociateRequest,
    ProtocolError,
    encode_associate_request,
    encode_command,
    parse_associate_request,
    presentation_data,
)

REQUEST = AssociateRequest(
    version_1=True,
    called_ae_title="ROUTER",
    calling_ae_title="CR_ROOM1",
    application_context="1.2.840.10008.3.1.1.1",
    contexts=(
        ProposedContext(context_id=1, abstract_syntax="1.2.840.10008.1.1", transfer_syntaxes=("1.2.840.10008.1.2",)),
    ),
    pdu_byte_count_max=16384,
    implementation_class_uid="1.2.3",
    implementation_version_name="NAME",
)
STORE = Command(
    field=1, message_id=7, has_data_set=True, affected_sop_class_uid="1.2.3", affected_sop_instance_uid="1.2.3.4"
)


def test_a_request_survives_being_written_and_read() -> None:
    assert parse_associate_request(encode_associate_request(REQUEST)[6:]) == REQUEST


@given(st.binary(max_size=300))
def test_noise_is_no_request(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_associate_request(data)


@given(st.data())
def test_a_damaged_request_is_read_or_refused(data) -> None:
    body = bytearray(encode_associate_request(REQUEST)[6:])
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_associate_request(bytes(body[: data.draw(st.integers(0, len(body)))]))
    except ProtocolError:
        return
    assert all(context.context_id & 1 for context in parsed.contexts)


@given(st.binary(max_size=200))
def test_noise_in_p_data_is_read_or_refused(data: bytes) -> None:
    try:
        assert sum(len(part) + 6 for _, _, part in presentation_data(memoryview(data))) == len(data)
    except ProtocolError:
        return


@given(st.binary(max_size=200))
def test_noise_as_a_command_is_read_or_refused(data: bytes) -> None:
    try:
        parse_command(data)
    except ProtocolError:
        return


def test_a_response_repeats_the_request_and_says_the_status() -> None:
    raw = encode_response(STORE, status=0xA700, comment="no space; " + "x" * 100)
    assert int.from_bytes(raw[8:12], "little") == len(raw) - 12
    assert parse_command(raw).message_id == 7
    assert b"\0\0\0\x09\x02\0\0\0\x00\xa7" in raw
    assert b"\0\0\x02\x09\x40\0\0\0no space; " in raw
    assert b"1.2.3.4" in raw


def test_a_uid_that_is_none_is_not_repeated() -> None:
    raw = encode_response(
        Command(field=1, message_id=1, has_data_set=True, affected_sop_instance_uid="../x"), status=0xC000
    )
    assert b".." not in raw


@pytest.mark.parametrize("limit", [0, 1, 7, 20, 16384])
def test_a_response_is_cut_into_what_a_peer_takes(limit: int) -> None:
    raw = encode_response(STORE, status=0, comment="")
    data, whole, position = encode_command(5, raw, pdu_byte_count_max=limit), b"", 0
    while position < len(data):
        length = int.from_bytes(data[position + 2 : position + 6], "big")
        assert length <= max(limit, 8) or limit == 0
        ((context_id, control, part),) = presentation_data(memoryview(data)[position + 6 : position + 6 + length])
        assert context_id == 5
        whole += part
        position += 6 + length
        assert bool(control & 2) == (position == len(data))
    assert whole == raw


def test_fragments_become_a_command_and_a_data_set() -> None:
    raw = element(0x0100, 1) + element(0x0110, 9) + element(0x0800, 1)
    assembler = MessageAssembler()
    assert not assembler.inside
    assert assembler.fragment(1, 1, memoryview(raw[:7])) is None
    found = assembler.fragment(1, 3, memoryview(raw[7:]))
    assert isinstance(found, Command)
    assert (found.field, found.message_id, found.has_data_set) == (1, 9, True)
    assert assembler.fragment(1, 0, memoryview(b"ab")) == DataSetPart(memoryview(b"ab"), False)
    assert assembler.inside
    assert assembler.fragment(1, 2, memoryview(b"c")) == DataSetPart(memoryview(b"c"), True)
    assert not assembler.inside


def element(number: int, value: int) -> bytes:
    return b"\0\0" + number.to_bytes(2, "little") + b"\2\0\0\0" + value.to_bytes(2, "little")


def test_a_command_set_is_not_collected_beyond_its_limit() -> None:
    assembler = MessageAssembler()
    with pytest.raises(ProtocolError, match="longer than"):
        for _ in range(COMMAND_BYTE_COUNT_MAX // 1000 + 1):
            assembler.fragment(1, 1, memoryview(bytes(1000)))
