"""Data sets of Storage Commitment: Action Information and Event Information, from and to bytes. Source: PS3.4 J.3.2, J.3.3."""

from __future__ import annotations

import io
import struct
from typing import Any

from router.core.admission import valid_uid
from router.core.commitment import ALL_COMMITTED, PROCESSING_FAILURE, SOME_FAILED, CommitmentReport, Reference
from router.dimse.contexts import EXPLICIT_VR_LITTLE_ENDIAN

#: A reference has about 150 bytes.
BYTE_COUNT_MAX = 2**21
REFERENCE_COUNT_MAX = 10_000

_TRANSACTION_UID = (0x0008, 0x1195)
_REFERENCED_SOP_SEQUENCE = (0x0008, 0x1199)
_FAILED_SOP_SEQUENCE = (0x0008, 0x1198)
_REFERENCED_SOP_CLASS_UID = (0x0008, 0x1150)
_REFERENCED_SOP_INSTANCE_UID = (0x0008, 0x1155)
_FAILURE_REASON = (0x0008, 0x1197)
_ITEM = (0xFFFE, 0xE000)


class InvalidInformation(ValueError):
    """The data set lacks what the Standard demands or is none; the text says what, without quoting it."""


class TooMany(InvalidInformation):
    """More references than REFERENCE_COUNT_MAX."""


def decode_request(data: bytes, transfer_syntax_uid: str) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID and references of an N-ACTION-RQ, each once. Raises InvalidInformation, TooMany."""
    dataset = _decode(data, transfer_syntax_uid)
    references = tuple(dict.fromkeys(reference for reference, _ in _items(dataset, _REFERENCED_SOP_SEQUENCE)))
    if not references:
        raise InvalidInformation("no Referenced SOP Sequence, or an empty one")
    return _transaction_uid(dataset), references


def decode_report(data: bytes, transfer_syntax_uid: str, *, event_type: int) -> CommitmentReport:
    """What an N-EVENT-REPORT-RQ says. Raises InvalidInformation, TooMany."""
    dataset = _decode(data, transfer_syntax_uid)
    committed = tuple(dict.fromkeys(reference for reference, _ in _items(dataset, _REFERENCED_SOP_SEQUENCE)))
    failed = {
        reference: PROCESSING_FAILURE if reason is None else reason
        for reference, reason in _items(dataset, _FAILED_SOP_SEQUENCE)
    }
    if event_type == ALL_COMMITTED and (failed or not committed):
        raise InvalidInformation("event type 1 with failed instances, or without committed ones")
    if event_type == SOME_FAILED and not failed:
        raise InvalidInformation("event type 2 without failed instances")
    return CommitmentReport(transaction_uid=_transaction_uid(dataset), committed=committed, failed=failed)


def encode_request(transaction_uid: str, references: tuple[Reference, ...], transfer_syntax_uid: str) -> bytes:
    """The data set of an N-ACTION-RQ."""
    write = _Writer(explicit=transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN)
    items = [write.reference(reference) for reference in references]
    return write.uid(_TRANSACTION_UID, transaction_uid) + write.sequence(_REFERENCED_SOP_SEQUENCE, items)


def encode_report(report: CommitmentReport, transfer_syntax_uid: str) -> bytes:
    """The data set of an N-EVENT-REPORT-RQ."""
    write = _Writer(explicit=transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN)
    out = write.uid(_TRANSACTION_UID, report.transaction_uid)
    if report.failed:
        failed = [
            write.reference(reference) + write.number(_FAILURE_REASON, reason)
            for reference, reason in report.failed.items()
        ]
        out += write.sequence(_FAILED_SOP_SEQUENCE, failed)
    if report.committed:
        out += write.sequence(_REFERENCED_SOP_SEQUENCE, [write.reference(one) for one in report.committed])
    return out


class _Writer:
    """Elements in ascending order, lengths always given."""

    def __init__(self, *, explicit: bool) -> None:
        self._explicit = explicit

    def uid(self, tag: tuple[int, int], value: str) -> bytes:
        data = value.encode("ascii")
        return self._element(tag, b"UI", data + b"\0" * (len(data) % 2))

    def number(self, tag: tuple[int, int], value: int) -> bytes:
        return self._element(tag, b"US", struct.pack("<H", value))

    def reference(self, reference: Reference) -> bytes:
        return self.uid(_REFERENCED_SOP_CLASS_UID, reference.sop_class_uid) + self.uid(
            _REFERENCED_SOP_INSTANCE_UID, reference.sop_instance_uid
        )

    def sequence(self, tag: tuple[int, int], items: list[bytes]) -> bytes:
        data = b"".join(struct.pack("<HHL", *_ITEM, len(item)) + item for item in items)
        head = (
            struct.pack("<HH2sHL", *tag, b"SQ", 0, len(data))
            if self._explicit
            else struct.pack("<HHL", *tag, len(data))
        )
        return head + data

    def _element(self, tag: tuple[int, int], vr: bytes, data: bytes) -> bytes:
        if self._explicit:
            return struct.pack("<HH2sH", *tag, vr, len(data)) + data
        return struct.pack("<HHL", *tag, len(data)) + data


def _decode(data: bytes, transfer_syntax_uid: str) -> Any:
    from pydicom.filereader import read_dataset

    if len(data) > BYTE_COUNT_MAX:
        raise TooMany(f"longer than {BYTE_COUNT_MAX} bytes")
    try:
        return read_dataset(
            io.BytesIO(data), is_implicit_VR=transfer_syntax_uid != EXPLICIT_VR_LITTLE_ENDIAN, is_little_endian=True
        )
    except Exception as error:  # whatever pydicom meets in hostile bytes, endless nesting among it
        raise InvalidInformation(f"not a data set ({type(error).__name__})") from error


def _transaction_uid(dataset: Any) -> str:
    uid = _uid(dataset, _TRANSACTION_UID)
    if not valid_uid(uid):
        raise InvalidInformation("no Transaction UID, or one that breaks the rules for UIDs")
    return uid


def _items(dataset: Any, tag: tuple[int, int]) -> list[tuple[Reference, int | None]]:
    """References of a sequence, each with its failure reason."""
    from pydicom.sequence import Sequence

    try:
        value = dataset[tag].value if tag in dataset else ()
    except Exception as error:  # a sequence is decoded when it is asked for
        raise InvalidInformation(f"a sequence is broken ({type(error).__name__})") from error
    if not value:
        return []
    if not isinstance(value, Sequence):
        raise InvalidInformation("what should be a sequence is none")
    if len(value) > REFERENCE_COUNT_MAX:
        raise TooMany(f"more than {REFERENCE_COUNT_MAX} references")
    found = []
    for item in value:
        reference = Reference(_uid(item, _REFERENCED_SOP_CLASS_UID), _uid(item, _REFERENCED_SOP_INSTANCE_UID))
        if not (valid_uid(reference.sop_class_uid) and valid_uid(reference.sop_instance_uid)):
            raise InvalidInformation("a reference lacks a UID, or has one that breaks the rules for UIDs")
        found.append((reference, _number(item, _FAILURE_REASON)))
    return found


def _raw(dataset: Any, tag: tuple[int, int]) -> bytes:
    """The bytes of a value: converting it would make pydicom judge it, and warn of what we refuse ourselves."""
    value = dataset.get_item(tag).value if tag in dataset else b""
    return value if isinstance(value, bytes) else b""


def _uid(dataset: Any, tag: tuple[int, int]) -> str:
    return _raw(dataset, tag).decode("latin_1").rstrip("\0 ")


def _number(dataset: Any, tag: tuple[int, int]) -> int | None:
    value = _raw(dataset, tag)
    return int.from_bytes(value, "little") if len(value) == 2 else None
