"""Data sets of Storage Commitment from bytes: read, or refused with InvalidInformation, and nothing else."""

from __future__ import annotations

import struct
import warnings

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from router.core.commitment import CommitmentReport, Reference
from router.dimse.commitment import (
    BYTE_COUNT_MAX,
    REFERENCE_COUNT_MAX,
    InvalidInformation,
    TooMany,
    decode_report,
    decode_request,
    encode_report,
    encode_request,
)
from router.dimse.contexts import (
    ABSTRACT_SYNTAX_NOT_SUPPORTED,
    ACCEPTED,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
    VERIFICATION,
    ProposedContext,
    answer,
)
from router.dimse.pdu import AssociateRequest, encode_associate_request, parse_associate_request

CT = "1.2.840.10008.5.1.4.1.1.2"
PUSH = "1.2.840.10008.1.20.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
SYNTAXES = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
REFERENCES = (Reference(CT, "1.2.3"), Reference(CT, "1.2.3.44"))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_request_survives_being_written_and_read_by_us_and_by_pydicom(syntax: str) -> None:
    data = encode_request("2.25.77", REFERENCES, syntax)
    assert decode_request(data, syntax) == ("2.25.77", REFERENCES)
    ds = read_dataset(DicomBytesIO(data), syntax == IMPLICIT_VR_LITTLE_ENDIAN, True)
    assert ds.TransactionUID == "2.25.77"
    assert [item.ReferencedSOPInstanceUID for item in ds.ReferencedSOPSequence] == ["1.2.3", "1.2.3.44"]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_report_survives_being_written_and_read(syntax: str) -> None:
    mixed = CommitmentReport(transaction_uid="2.25.7", committed=REFERENCES[:1], failed={REFERENCES[1]: 0x0112})
    assert decode_report(encode_report(mixed, syntax), syntax, event_type=2) == mixed
    well = CommitmentReport(transaction_uid="2.25.7", committed=REFERENCES, failed={})
    assert decode_report(encode_report(well, syntax), syntax, event_type=1) == well
    with pytest.raises(InvalidInformation, match="event type 1"):
        decode_report(encode_report(mixed, syntax), syntax, event_type=1)
    with pytest.raises(InvalidInformation, match="event type 2"):
        decode_report(encode_report(well, syntax), syntax, event_type=2)


def test_an_instance_that_is_named_twice_is_one() -> None:
    data = encode_request("2.25.7", (REFERENCES[0], REFERENCES[0]), EXPLICIT_VR_LITTLE_ENDIAN)
    assert decode_request(data, EXPLICIT_VR_LITTLE_ENDIAN)[1] == REFERENCES[:1]


def test_sequences_of_undefined_length_are_read() -> None:
    ds = pydicom.Dataset()
    ds.TransactionUID = "2.25.7"
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, "1.2.3"
    item.is_undefined_length_sequence_item = True
    ds.ReferencedSOPSequence = [item]
    ds["ReferencedSOPSequence"].is_undefined_length = True
    for syntax in SYNTAXES:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == IMPLICIT_VR_LITTLE_ENDIAN
        pydicom.filewriter.write_dataset(buffer, ds)
        assert decode_request(buffer.getvalue(), syntax) == ("2.25.7", REFERENCES[:1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode_request("not a uid", REFERENCES, EXPLICIT_VR_LITTLE_ENDIAN),
        encode_request("2.25.7", (), EXPLICIT_VR_LITTLE_ENDIAN),
        encode_request("2.25.7", (Reference("", "1.2"),), EXPLICIT_VR_LITTLE_ENDIAN),
        encode_request("2.25.7", (Reference(CT, "../../x"),), EXPLICIT_VR_LITTLE_ENDIAN),
        encode_request("2.25.7", REFERENCES, EXPLICIT_VR_LITTLE_ENDIAN)[:-5],
        encode_request("2.25.7", REFERENCES, EXPLICIT_VR_LITTLE_ENDIAN).replace(b"SQ", b"OB"),
    ],
    ids=["empty", "Transaction UID", "no reference", "no class", "a path", "cut off", "no sequence"],
)
def test_what_lacks_something_is_refused_without_quoting_it(data: bytes) -> None:
    with warnings.catch_warnings(), pytest.raises(InvalidInformation) as caught:
        warnings.simplefilter("error")
        decode_request(data, EXPLICIT_VR_LITTLE_ENDIAN)
    assert ".." not in str(caught.value)


def test_more_than_we_take_is_too_many() -> None:
    references = tuple(Reference("1.2", f"1.{number}") for number in range(REFERENCE_COUNT_MAX + 1))
    with pytest.raises(TooMany):
        decode_request(encode_request("2.25.7", references, IMPLICIT_VR_LITTLE_ENDIAN), IMPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(TooMany):
        decode_request(bytes(BYTE_COUNT_MAX + 1), IMPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize("explicit", [True, False])
def test_nesting_without_end_is_refused(explicit: bool) -> None:
    head = struct.pack("<HH", 0x0008, 0x1199) + (b"SQ\0\0" if explicit else b"") + b"\xff\xff\xff\xff"
    data = (head + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 20_000
    with pytest.raises(InvalidInformation):
        decode_request(data, EXPLICIT_VR_LITTLE_ENDIAN if explicit else IMPLICIT_VR_LITTLE_ENDIAN)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_are_read_or_refused(data) -> None:
    syntax = data.draw(st.sampled_from(SYNTAXES))
    report = CommitmentReport(transaction_uid="2.25.7", committed=REFERENCES, failed={Reference(CT, "9"): 0x0112})
    raw = bytearray(encode_report(report, syntax))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    for decode in (lambda: decode_request(bytes(raw), syntax), lambda: decode_report(bytes(raw), syntax, event_type=2)):
        try:
            decode()
        except InvalidInformation:
            continue


@given(st.binary(max_size=300), st.sampled_from(SYNTAXES))
@settings(deadline=None)
def test_noise_is_no_request(noise: bytes, syntax: str) -> None:
    with pytest.raises(InvalidInformation):
        decode_request(noise, syntax)


# ---- negotiation


def proposed(abstract_syntax: str, *syntaxes: str) -> ProposedContext:
    return ProposedContext(context_id=1, abstract_syntax=abstract_syntax, transfer_syntaxes=syntaxes)


def test_its_context_is_accepted_only_where_it_is_offered_and_uncompressed() -> None:
    offered = answer(proposed(PUSH, IMPLICIT_VR_LITTLE_ENDIAN), storage_commitment=True)
    assert (offered.result, offered.transfer_syntax) == (ACCEPTED, IMPLICIT_VR_LITTLE_ENDIAN)
    assert answer(proposed(PUSH, IMPLICIT_VR_LITTLE_ENDIAN)).result == ABSTRACT_SYNTAX_NOT_SUPPORTED
    assert answer(proposed(PUSH, DEFLATED), storage_commitment=True).result == TRANSFER_SYNTAXES_NOT_SUPPORTED
    both = answer(proposed(PUSH, *SYNTAXES), storage_commitment=True)
    assert both.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN


def test_who_may_only_answer_gets_no_storage_context() -> None:
    assert answer(proposed(CT, IMPLICIT_VR_LITTLE_ENDIAN), storage=False).result == ABSTRACT_SYNTAX_NOT_SUPPORTED
    assert answer(proposed(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN), storage=False).result == ACCEPTED


def test_role_selection_survives_being_written_and_read() -> None:
    request = AssociateRequest(
        version_1=True,
        called_ae_title="ROUTER",
        calling_ae_title="ORTHANC",
        application_context="1.2.840.10008.3.1.1.1",
        contexts=(proposed(PUSH, *SYNTAXES),),
        roles=((PUSH, False, True), (CT, True, True)),
    )
    assert parse_associate_request(encode_associate_request(request)[6:]) == request
