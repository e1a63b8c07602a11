"""PDUs from and to bytes, as far as our wire reads and writes them itself. Source: PS3.8 9.3, Annex D, Annex E.

Strict where reading on would mean guessing: what is broken here ends the association.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from router.core.admission import valid_uid
from router.dimse.contexts import IMPLICIT_VR_LITTLE_ENDIAN, AnsweredContext, ProposedContext

A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = 1, 2, 3, 4, 5, 6, 7

#: A real one has at most 128 contexts of some 20 syntaxes: 200 kB.
A_ASSOCIATE_BYTE_COUNT_MAX = 2**18
#: A-RELEASE and A-ABORT are 4 bytes long.
_OTHER_BYTE_COUNT_MAX = 64

#: Longer presentation contexts are read each time anew: nobody may fill our memory with them.
_REMEMBERED_BYTE_COUNT_MAX = 2048

HEADER = struct.Struct(">BxL")
_ITEM = struct.Struct(">BxH")
_WINDOW = struct.Struct(">HH")
#: Length (of what follows it), presentation context ID, message control header.
PDV_HEADER = struct.Struct(">LBB")


class ProtocolError(Exception):
    """The peer breaks PS3.7 or PS3.8 or a limit; the association ends with an A-ABORT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ, as far as we heed it."""

    version_1: bool
    called_ae_title: str
    calling_ae_title: str
    application_context: str
    contexts: tuple[ProposedContext, ...]
    pdu_byte_count_max: int = 0
    """Longest P-DATA-TF that the requestor takes; 0: any."""
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    roles: tuple[tuple[str, bool, bool], ...] = ()
    """SOP Class UID, whether the requestor would be SCU and SCP of it (PS3.7 D.3.3.4); classes not named: SCU."""
    operations: tuple[int, int] | None = None
    """How many operations the requestor would have open, and take from us, at one time (PS3.7 D.3.3.3); 0: any number."""


@dataclass(slots=True)
class _Items:
    application_context: str = ""
    contexts: list[ProposedContext] = field(default_factory=list)
    user: dict[int, bytes] = field(default_factory=dict)
    roles: list[tuple[str, bool, bool]] = field(default_factory=list)


def byte_count_max(pdu_type: int, *, p_data_byte_count_max: int) -> int:
    """The longest PDU of this type that we read. Raises ProtocolError for a type that does not exist."""
    if pdu_type == P_DATA_TF:
        return p_data_byte_count_max
    if pdu_type in (1, 2):
        return A_ASSOCIATE_BYTE_COUNT_MAX
    if pdu_type in (3, 5, 6, 7):
        return _OTHER_BYTE_COUNT_MAX
    raise ProtocolError(f"PDU type 0x{pdu_type:02x} does not exist")


def parse_associate_request(body: bytes) -> AssociateRequest:
    """The request in the bytes after a PDU header. Raises ProtocolError."""
    if len(body) < 68:
        raise ProtocolError("A-ASSOCIATE-RQ is too short")
    found = _Items()
    for kind, value in _items(body[68:]):
        if kind == 0x10:
            found.application_context = _uid(value)
        elif kind == 0x20:
            found.contexts.append(_context(value))
        elif kind == 0x50:
            for item, data in _items(value):
                if item == 0x54 and (role := _role(data)) is not None:
                    found.roles.append(role)
                found.user[item] = data
    identifiers = [context.context_id for context in found.contexts]
    if not identifiers:
        raise ProtocolError("A-ASSOCIATE-RQ proposes no presentation context")
    if len(set(identifiers)) != len(identifiers):
        raise ProtocolError("A-ASSOCIATE-RQ uses a presentation context ID twice")
    length = found.user.get(0x51, b"")
    implementation = _uid(found.user.get(0x52, b""))
    window = found.user.get(0x53, b"")
    return AssociateRequest(
        version_1=bool(body[1] & 1),
        called_ae_title=_ae_title(body[4:20]),
        calling_ae_title=_ae_title(body[20:36]),
        application_context=found.application_context,
        contexts=tuple(found.contexts),
        pdu_byte_count_max=int.from_bytes(length, "big") if len(length) == 4 else 0,
        implementation_class_uid=implementation if valid_uid(implementation) else "",
        implementation_version_name=_text(found.user.get(0x55, b"")),
        roles=tuple(found.roles),
        operations=_WINDOW.unpack(window) if len(window) == _WINDOW.size else None,
    )


def encode_associate_request(request: AssociateRequest) -> bytes:
    """A whole A-ASSOCIATE-RQ PDU with what `request` holds and nothing else."""
    items = _item(0x10, request.application_context.encode())
    for context in request.contexts:
        syntaxes = _item(0x30, context.abstract_syntax.encode())
        syntaxes += b"".join(_item(0x40, uid.encode()) for uid in context.transfer_syntaxes)
        items += _item(0x20, bytes((context.context_id, 0, 0, 0)) + syntaxes)
    return _associate(
        A_ASSOCIATE_RQ,
        request.called_ae_title,
        request.calling_ae_title,
        items,
        _user_information(
            pdu_byte_count_max=request.pdu_byte_count_max,
            implementation_class_uid=request.implementation_class_uid,
            implementation_version_name=request.implementation_version_name,
            roles=request.roles,
            operations=request.operations,
        ),
    )


def encode_associate_accept(
    request: AssociateRequest,
    answers: Sequence[AnsweredContext],
    *,
    pdu_byte_count_max: int,
    implementation_class_uid: str,
    implementation_version_name: str,
    roles: Sequence[tuple[str, bool, bool]] = (),
    operations: tuple[int, int] | None = None,
) -> bytes:
    """A whole A-ASSOCIATE-AC PDU (PS3.8 9.3.3); `roles` and `operations` only where the request has them."""
    items = _item(0x10, request.application_context.encode())
    for answered in answers:
        # One that is refused has a transfer syntax too, of no significance (PS3.8 9.3.3.2).
        syntax = _item(0x40, (answered.transfer_syntax or IMPLICIT_VR_LITTLE_ENDIAN).encode())
        items += _item(0x21, bytes((answered.context_id, 0, answered.result, 0)) + syntax)
    return _associate(
        A_ASSOCIATE_AC,
        request.called_ae_title,
        request.calling_ae_title,
        items,
        _user_information(
            pdu_byte_count_max=pdu_byte_count_max,
            implementation_class_uid=implementation_class_uid,
            implementation_version_name=implementation_version_name,
            roles=roles,
            operations=operations,
        ),
    )


def encode_associate_rejection(*, result: int, source: int, diagnostic: int) -> bytes:
    """A whole A-ASSOCIATE-RJ PDU (PS3.8 9.3.4)."""
    return HEADER.pack(A_ASSOCIATE_RJ, 4) + bytes((0, result, source, diagnostic))


def encode_release(kind: int) -> bytes:
    """A whole A-RELEASE-RQ or A-RELEASE-RP PDU (PS3.8 9.3.6, 9.3.7)."""
    return HEADER.pack(kind, 4) + bytes(4)


def encode_abort(*, diagnostic: int, by_user: bool = False) -> bytes:
    """A whole A-ABORT PDU (PS3.8 9.3.8).

    Of the service provider: 0 no reason, 1 unknown PDU, 2 unexpected PDU, 6 invalid value; of its user there is no reason.
    """
    return HEADER.pack(A_ABORT, 4) + bytes((0, 0, 0 if by_user else 2, diagnostic))


def presentation_data(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Context ID, message control header and fragment of each PDV in the bytes after a P-DATA-TF header.

    Raises ProtocolError.
    """
    position, end = 0, len(body)
    if end == 0:
        raise ProtocolError("P-DATA-TF without a PDV")
    while position < end:
        if end - position < 6:
            raise ProtocolError("PDV is cut off")
        length, context_id, control = PDV_HEADER.unpack_from(body, position)
        if length < 2 or length > end - position - 4:
            raise ProtocolError("PDV is longer than its PDU, or shorter than its header")
        yield context_id, control, body[position + 6 : position + 4 + length]
        position += 4 + length


def encode_command(context_id: int, command: bytes, *, pdu_byte_count_max: int) -> bytes:
    """P-DATA-TF PDUs that carry a command set; no longer than the peer takes (0: any)."""
    return _fragments(context_id, command, control=1, pdu_byte_count_max=pdu_byte_count_max)


def encode_data_set(context_id: int, data_set: bytes, *, pdu_byte_count_max: int) -> bytes:
    """The same for the data set that belongs to a command."""
    return _fragments(context_id, data_set, control=0, pdu_byte_count_max=pdu_byte_count_max)


def _fragments(context_id: int, data: bytes, *, control: int, pdu_byte_count_max: int) -> bytes:
    # Even: dcmtk, for one, does not take fragments of an odd length.
    step = max(2, (pdu_byte_count_max - 6) & ~1) if pdu_byte_count_max else max(2, len(data))
    out = bytearray()  # not bytes: for a peer that takes 8 bytes a PDU, each += would copy all of it
    for start in range(0, len(data), step):
        part = data[start : start + step]
        flags = control | 2 if start + step >= len(data) else control
        out += HEADER.pack(P_DATA_TF, len(part) + 6) + PDV_HEADER.pack(len(part) + 2, context_id, flags) + part
    return bytes(out)


def _associate(kind: int, called: str, calling: str, items: bytes, user: bytes) -> bytes:
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    body += items + _item(0x50, user)
    return HEADER.pack(kind, len(body)) + body


def _user_information(
    *,
    pdu_byte_count_max: int,
    implementation_class_uid: str,
    implementation_version_name: str,
    roles: Sequence[tuple[str, bool, bool]],
    operations: tuple[int, int] | None,
) -> bytes:
    user = _item(0x51, pdu_byte_count_max.to_bytes(4, "big"))
    if implementation_class_uid:
        user += _item(0x52, implementation_class_uid.encode())
    if operations is not None:
        user += _item(0x53, _WINDOW.pack(*operations))
    for uid, scu, scp in roles:
        user += _item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes((scu, scp)))
    if implementation_version_name:
        user += _item(0x55, implementation_version_name.encode())
    return user


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        if len(data) - position < 4:
            raise ProtocolError("an item of A-ASSOCIATE-RQ is cut off")
        kind, length = _ITEM.unpack_from(data, position)
        position += 4
        if length > len(data) - position:
            raise ProtocolError("an item of A-ASSOCIATE-RQ is longer than what it lies in")
        yield kind, data[position : position + length]
        position += length


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _context(value: bytes) -> ProposedContext:
    if len(value) < 4:
        raise ProtocolError("a presentation context is cut off")
    if not value[0] & 1:
        raise ProtocolError("a presentation context ID is even")
    # The abstract syntax comes first; what follows it is the same in context after context, and read once.
    first = 8 + int.from_bytes(value[6:8], "big") if value[4:5] == b"\x30" else len(value)
    rest = _syntaxes if len(value) > _REMEMBERED_BYTE_COUNT_MAX else _remembered_syntaxes
    abstract, transfer = (a + b for a, b in zip(_syntaxes(value[4:first]), rest(value[first:]), strict=True))
    if len(abstract) != 1 or not transfer:
        raise ProtocolError("a presentation context lacks its abstract or its transfer syntax")
    return ProposedContext(context_id=value[0], abstract_syntax=abstract[0], transfer_syntaxes=transfer)


def _syntaxes(items: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Abstract and transfer syntaxes."""
    found = list(_items(items))
    return (
        tuple(_uid(data) for kind, data in found if kind == 0x30),
        tuple(_uid(data) for kind, data in found if kind == 0x40),
    )


_remembered_syntaxes = lru_cache(maxsize=512)(_syntaxes)


def _role(value: bytes) -> tuple[str, bool, bool] | None:
    """None for one that is cut off: then the default roles are meant."""
    if len(value) < 4 or len(value) != 4 + int.from_bytes(value[:2], "big"):
        return None
    return _uid(value[2:-2]), bool(value[-2]), bool(value[-1])


def _uid(value: bytes) -> str:
    return value.decode("latin_1").rstrip("\0 ")


def _text(value: bytes) -> str:
    return "".join(c for c in value.decode("latin_1") if " " <= c <= "~")[:64].strip()


def _ae_title(value: bytes) -> str:
    """Without padding; empty for what is no AE title (PS3.5 6.2), so that it matches nothing that is configured."""
    text = value.decode("latin_1").strip(" \0")
    return text if all(" " <= c <= "~" and c != "\\" for c in text) else ""
