"""Forms as browsers send them, bounded in size and time; a file in one stays in memory. Sources: RFC 7578, RFC 2046 5.1."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import Request

_FIELDS_BYTE_COUNT_MAX = 2**16
_FIELDS_MAX = 2000
_FIELDS_TIMEOUT_S = 30.0
_FILE_TIMEOUT_S = 120.0
_PLAIN_TYPE, _FILE_TYPE = "application/x-www-form-urlencoded", "multipart/form-data"
_DROPPED_FACTOR = 16
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^;\s"]{1,70}))', re.IGNORECASE)
_PARTS_MAX = 50
_PART_HEAD_BYTE_COUNT_MAX = 2**13
_PART_NAME = re.compile(rb'[; ]name="([^"\r\n]*)"')
_PART_FILE_NAME = re.compile(rb'; ?filename\*?="?([^"\r\n]*)')


@dataclass(frozen=True, slots=True)
class Form:
    """What was filled in."""

    fields: Mapping[str, list[str]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Field -> bytes of the file that was chosen there; its name is not kept, it may be a patient's."""


class BadForm(Exception):
    """It is none, or too much of one; the text is for people."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


async def form_of(request: Request, *, file_byte_count_max: int = 0) -> Form:
    """The form in a request; with files only where `file_byte_count_max` allows so many bytes. Raises BadForm."""
    content_type = request.headers.get("content-type", "")
    kind = content_type.split(";")[0].strip().lower()
    with_files = kind == _FILE_TYPE and file_byte_count_max > 0
    if kind != _PLAIN_TYPE and not with_files:
        raise BadForm("Only forms are taken here.", 415)
    most = _FIELDS_BYTE_COUNT_MAX + (file_byte_count_max if with_files else 0)
    body = await _body(request, most, _FILE_TIMEOUT_S if with_files else _FIELDS_TIMEOUT_S)
    try:
        if with_files:
            return _parts(body, content_type)
        fields: dict[str, list[str]] = {}
        for name, value in parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX):
            fields.setdefault(name, []).append(value)
    except ValueError:
        raise BadForm("The form cannot be read.", 400) from None
    return Form(fields)


def is_large(request: Request) -> bool:
    """Whether more may come than fields take."""
    length = request.headers.get("content-length", "")
    return not length.isdigit() or int(length) > _FIELDS_BYTE_COUNT_MAX


async def _body(request: Request, byte_count_max: int, timeout_s: float) -> bytearray:
    """Raises BadForm. What is too much is read on and thrown away for a while: a browser listens only when it has sent."""
    body = bytearray()
    dropped = 0

    async def read() -> None:
        nonlocal dropped
        async for chunk in request.stream():
            if len(body) + len(chunk) > byte_count_max or dropped:
                dropped += len(body) + len(chunk)
                body.clear()
                if dropped > _DROPPED_FACTOR * byte_count_max:
                    return
            else:
                body.extend(chunk)

    try:
        await asyncio.wait_for(read(), timeout_s)
    except TimeoutError:
        raise BadForm("The form did not come.", 408) from None
    if dropped:
        raise BadForm(f"The form is too large: at most {_size(byte_count_max)} are taken.", 413)
    return body


def _parts(body: bytearray, content_type: str) -> Form:
    """Raises ValueError."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise ValueError("no boundary")
    boundary = b"\r\n--" + (found[1] or found[2]).encode("ascii")
    fields: dict[str, list[str]] = {}
    files: dict[str, bytes] = {}
    # As if a line end stood before the first boundary, too: RFC 2046 lets it be part of every one.
    end = len(boundary) - 2 if body.startswith(boundary[2:]) else -1
    for _ in range(_PARTS_MAX):
        if end < 0 or body[end : end + 2] == b"--":
            break
        head_end = body.find(b"\r\n\r\n", end, end + _PART_HEAD_BYTE_COUNT_MAX)
        next_one = body.find(boundary, head_end + 2)
        if head_end < 0 or next_one < 0:
            raise ValueError("a part without an end")
        head = bytes(body[end:head_end])
        if (name := _PART_NAME.search(head)) is None:
            raise ValueError("a part without a name")
        key, value = name[1].decode(), bytes(memoryview(body)[head_end + 4 : next_one])
        if _PART_FILE_NAME.search(head) is not None:
            files[key] = value
        elif len(value) <= _FIELDS_BYTE_COUNT_MAX:
            fields.setdefault(key, []).append(value.decode())
        else:
            raise ValueError("a field that is too long")
        end = next_one + len(boundary)
    else:
        raise ValueError("too many parts")
    if end < 0:
        raise ValueError("no part")
    return Form(fields, files)


def _size(byte_count: int) -> str:
    return f"{byte_count // 2**20} MiB" if byte_count >= 2**20 else f"{byte_count // 2**10} KiB"
