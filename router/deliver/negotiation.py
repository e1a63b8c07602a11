"""A-ASSOCIATE as requestor: our request to bytes, the peer's acceptance from bytes. Source: PS3.8 9.3.2, 9.3.3, Annex D; PS3.7 D.3.3."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from router.core.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

#: PS3.8 9.3.2.2: presentation context IDs are odd numbers of one byte.
CONTEXT_COUNT_MAX = 128
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_FIXED = struct.Struct(">HH16s16s32x")
_ITEM = struct.Struct(">BxH")
_PDU_HEAD = struct.Struct(">BxL")

#: SOP class and transfer syntax.
Context = tuple[str, str]


class NotAnAcceptance(ValueError):
    """The bytes are no A-ASSOCIATE-AC, or a broken one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What the peer agreed to."""

    transfer_syntaxes: Mapping[int, str]
    """Presentation context ID -> transfer syntax, of the accepted ones."""
    pdu_byte_count_max: int
    """Longest P-DATA-TF that the peer takes; 0: any."""
    operations_max: int
    """Operations that we may have outstanding; 0: any number. 1 when the peer says nothing of it."""
    not_scp_of: frozenset[str]
    """SOP classes for which the peer refused us the role of SCP."""


def context_id_at(index: int) -> int:
    """Of the context at this place of a proposal."""
    return 2 * index + 1


def encode_request(
    *,
    calling_ae_title: str,
    called_ae_title: str,
    contexts: Sequence[Context],
    pdu_byte_count_max: int,
    operations_max: int = 1,
    scp_of: Collection[str] = (),
) -> bytes:
    """A whole A-ASSOCIATE-RQ that proposes each context by itself. `operations_max` over 1 asks for that window (PS3.7 D.3.3.3)."""
    items = _item(0x10, _APPLICATION_CONTEXT)
    for index, (sop_class_uid, transfer_syntax_uid) in enumerate(contexts):
        syntaxes = _item(0x30, sop_class_uid.encode()) + _item(0x40, transfer_syntax_uid.encode())
        items += _item(0x20, bytes((context_id_at(index), 0, 0, 0)) + syntaxes)
    user = _item(0x51, pdu_byte_count_max.to_bytes(4, "big")) + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
    if operations_max > 1:
        user += _item(0x53, struct.pack(">HH", operations_max, 1))
    for uid in scp_of:
        user += _item(0x54, struct.pack(">H", len(uid)) + uid.encode() + b"\0\1")
    user += _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    fixed = _FIXED.pack(1, 0, called_ae_title.ljust(16).encode(), calling_ae_title.ljust(16).encode())
    body = fixed + items + _item(0x50, user)
    return _PDU_HEAD.pack(0x01, len(body)) + body


def parse_acceptance(body: bytes) -> Acceptance:
    """The acceptance in the bytes after a PDU header. Raises NotAnAcceptance."""
    if len(body) < _FIXED.size:
        raise NotAnAcceptance("too short")
    accepted: dict[int, str] = {}
    user: dict[int, bytes] = {}
    not_scp_of = set()
    for kind, value in _items(body[_FIXED.size :]):
        if kind == 0x21:
            if len(value) < 4:
                raise NotAnAcceptance("a presentation context is too short")
            if value[2] == 0:
                syntaxes = [data for inner, data in _items(value[4:]) if inner == 0x40]
                accepted[value[0]] = _uid(syntaxes[0]) if syntaxes else ""
        elif kind == 0x50:
            for inner, data in _items(value):
                if inner == 0x54 and (refused := _refused_as_scp(data)):
                    not_scp_of.add(refused)
                user[inner] = data
    length, window = user.get(0x51, b""), user.get(0x53, b"")
    return Acceptance(
        transfer_syntaxes=accepted,
        pdu_byte_count_max=int.from_bytes(length, "big") if len(length) == 4 else 0,
        operations_max=int.from_bytes(window[:2], "big") if len(window) == 4 else 1,
        not_scp_of=frozenset(not_scp_of),
    )


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        if offset + _ITEM.size > len(data):
            raise NotAnAcceptance("an item has no length")
        kind, length = _ITEM.unpack_from(data, offset)
        offset += _ITEM.size
        if offset + length > len(data):
            raise NotAnAcceptance("an item is longer than what holds it")
        yield kind, data[offset : offset + length]
        offset += length


def _refused_as_scp(role: bytes) -> str:
    """The SOP class for which the peer takes no requests from us as SCP; empty when it does, or when nobody can tell."""
    length = int.from_bytes(role[:2], "big")
    return _uid(role[2 : 2 + length]) if len(role) >= length + 4 and not role[length + 3] else ""


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")
