"""Data sets of Storage Commitment: Action Information and Event Information, from and to bytes. Source: PS3.4 J.3.2, J.3.3."""

from __future__ import annotations

import struct

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
_SEQUENCES = frozenset((_REFERENCED_SOP_SEQUENCE, _FAILED_SOP_SEQUENCE))
_ITEM, _ITEM_DELIMITER, _SEQUENCE_DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)  # PS3.5 7.1.2
_DEPTH_MAX = 8

#: Tag -> value: bytes, or the items of a sequence.
_Elements = dict[tuple[int, int], "bytes | list[_Elements]"]


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


class _Reader:
    """A strict reader of small data sets: what is cut off, out of place or nested deeply is refused, never guessed."""

    def __init__(self, data: bytes, *, explicit: bool) -> None:
        self._data = data
        self._explicit = explicit

    def elements(self, start: int, end: int | None, depth: int = 0) -> tuple[_Elements, int]:
        """The elements up to `end`, or None: up to an item delimiter; and where the next one begins."""
        found: _Elements = {}
        position, limit = start, len(self._data) if end is None else end
        while position < limit:
            tag, vr, length, position = self._head(position, limit)
            if tag == _ITEM_DELIMITER and end is None:
                return found, position
            if tag[0] == _ITEM[0] or tag in found:
                raise InvalidInformation("an element is out of place, or there twice")
            if length == _UNDEFINED:
                if vr not in (b"SQ", b""):
                    raise InvalidInformation("a length is undefined where none may be")
                found[tag], position = self._sequence(position, limit, None, depth + 1)
            elif length > limit - position:
                raise InvalidInformation("the data set is cut off")
            elif vr == b"SQ" or (not vr and tag in _SEQUENCES):
                found[tag], position = self._sequence(position, limit, position + length, depth + 1)
            else:
                found[tag], position = self._data[position : position + length], position + length
        if end is None:
            raise InvalidInformation("the data set is cut off")
        return found, position

    def _sequence(self, position: int, limit: int, end: int | None, depth: int) -> tuple[list[_Elements], int]:
        if depth > _DEPTH_MAX:
            raise InvalidInformation(f"sequences are nested more than {_DEPTH_MAX} deep")
        items: list[_Elements] = []
        while end is None or position < end:
            tag, _, length, position = self._head(position, limit if end is None else end)
            if tag == _SEQUENCE_DELIMITER and end is None:
                return items, position
            if tag != _ITEM:
                raise InvalidInformation("a sequence holds what is no item")
            item_end = None if length == _UNDEFINED else position + length
            if item_end is not None and item_end > (limit if end is None else end):
                raise InvalidInformation("the data set is cut off")
            item, position = self.elements(position, item_end, depth)
            items.append(item)
            if len(items) > REFERENCE_COUNT_MAX:
                raise TooMany(f"more than {REFERENCE_COUNT_MAX} references")
        return items, position

    def _head(self, position: int, limit: int) -> tuple[tuple[int, int], bytes, int, int]:
        """Tag, VR (empty when there is none), length, and where the value begins."""
        try:
            group, element = struct.unpack_from("<HH", self._data, position)
            if not self._explicit or group == _ITEM[0]:
                (length,) = struct.unpack_from("<L", self._data, position + 4)
                vr, value_at = b"", position + 8
            else:
                vr = self._data[position + 4 : position + 6]
                long = vr in _LONG_VRS
                (length,) = struct.unpack_from("<L" if long else "<H", self._data, position + (8 if long else 6))
                value_at = position + (12 if long else 8)
        except struct.error as error:
            raise InvalidInformation("the data set is cut off") from error
        if value_at > limit or (vr and not (vr.isalpha() and vr.isupper())):
            raise InvalidInformation("the data set is cut off, or none")
        return (group, element), vr, length, value_at


def _decode(data: bytes, transfer_syntax_uid: str) -> _Elements:
    if len(data) > BYTE_COUNT_MAX:
        raise TooMany(f"longer than {BYTE_COUNT_MAX} bytes")
    explicit = transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN
    return _Reader(data, explicit=explicit).elements(0, len(data))[0]


def _transaction_uid(dataset: _Elements) -> str:
    uid = _uid(dataset, _TRANSACTION_UID)
    if not valid_uid(uid):
        raise InvalidInformation("no Transaction UID, or one that breaks the rules for UIDs")
    return uid


def _items(dataset: _Elements, tag: tuple[int, int]) -> list[tuple[Reference, int | None]]:
    """References of a sequence, each with its failure reason."""
    items = dataset.get(tag, [])
    if isinstance(items, bytes):
        raise InvalidInformation("what should be a sequence is none")
    found = []
    for item in items:
        reference = Reference(_uid(item, _REFERENCED_SOP_CLASS_UID), _uid(item, _REFERENCED_SOP_INSTANCE_UID))
        if not (valid_uid(reference.sop_class_uid) and valid_uid(reference.sop_instance_uid)):
            raise InvalidInformation("a reference lacks a UID, or has one that breaks the rules for UIDs")
        reason = item.get(_FAILURE_REASON)
        number = int.from_bytes(reason, "little") if isinstance(reason, bytes) and len(reason) == 2 else None
        found.append((reference, number))
    return found


def _uid(dataset: _Elements, tag: tuple[int, int]) -> str:
    value = dataset.get(tag, b"")
    return value.decode("latin_1").rstrip("\0 ") if isinstance(value, bytes) else ""
