"""The routing header of an encoded data set: who it is, what rules may ask about it; no pixel is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from router.core import provenance
from router.core.admission import CANNOT_UNDERSTAND, UID_TEXT_LENGTH_MAX, Identity
from router.core.ports import Readable
from router.errors import RefusedError
from router.receive.values import text_of
from router.receive.walk import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Found,
    walk,
)
from router.receive.window import FileWindow, InflatedWindow, Window

# PS3.5 A.1, A.5, A.3; every other transfer syntax that we accept has explicit VRs, little endian (A.4).
_IMPLICIT, _DEFLATED, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_IDENTITY_TAGS = (_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES)
_CHARACTER_SET = 0x00080005


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingHeader:
    """What a data set says about itself."""

    identity: Identity
    values: Mapping[str, str]
    """See core.instance.SopInstance.header."""
    made_by_router: bool


def read_header(
    file: Readable, *, offset: int, byte_count: int, transfer_syntax_uid: str, keywords: Collection[str]
) -> RoutingHeader:
    """The routing header of the data set at `offset` in a file; `keywords` are what `values` may hold.

    The whole structure is checked on the way. Raises RefusedError (0xC000) for what is truncated, nested too deep or no
    data set at all, or names an identity twice; OSError.
    """
    tags = _tags(frozenset(keywords))
    window: Window
    if transfer_syntax_uid == _DEFLATED:
        window = InflatedWindow(file, offset=offset, byte_count=byte_count)
    else:
        window = FileWindow(file, offset=offset, byte_count=byte_count)
    encoding = {_IMPLICIT: IMPLICIT_LITTLE, _BIG: EXPLICIT_BIG}.get(transfer_syntax_uid, EXPLICIT_LITTLE)
    if byte_count == 0:
        raise RefusedError("the data set is empty", status=CANNOT_UNDERSTAND)
    found = walk(window, encoding, tags)
    if not found.repeated.isdisjoint(_IDENTITY_TAGS):
        # Whoever receives it from us might believe the other one.
        raise RefusedError("a UID stands in the data set more than once", status=CANNOT_UNDERSTAND)
    return RoutingHeader(
        identity=Identity(
            sop_class_uid=_uid(found, _SOP_CLASS),
            sop_instance_uid=_uid(found, _SOP_INSTANCE),
            study_instance_uid=_uid(found, _STUDY),
            series_instance_uid=_uid(found, _SERIES),
        ),
        values=_texts(found, tags, big_endian=encoding is EXPLICIT_BIG),
        made_by_router=any(
            provenance.is_ours(
                manufacturer=_plain(item, 0x00080070),
                model_name=_plain(item, 0x00081090),
                purpose_code=_plain(item, 0x00080100),
                purpose_scheme=_plain(item, 0x00080102),
            )
            for item in found.equipment
        ),
    )


@lru_cache(maxsize=16)
def _tags(keywords: frozenset[str]) -> Mapping[int, tuple[str, str]]:
    """Tag -> (keyword or nothing, VR of PS3.6) of everything to keep. Raises KeyError for what is no keyword."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tags: dict[int, tuple[str, str]] = dict.fromkeys(_IDENTITY_TAGS, ("", "UI"))
    tags[_CHARACTER_SET] = ("", "CS")
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise KeyError(keyword)
        tags[tag] = (keyword, dictionary_VR(tag))
    return tags


def _texts(found: Found, tags: Mapping[int, tuple[str, str]], *, big_endian: bool) -> dict[str, str]:
    character_set = _plain({tag: value for tag, (_, value) in found.values.items()}, _CHARACTER_SET)
    texts: dict[str, str] = {}
    for tag, (vr, value) in found.values.items():
        keyword, dictionary_vr = tags[tag]
        if not keyword:
            continue
        # «US or SS» and the like: which one makes no difference to what rules ask about.
        own_vr = vr.decode("latin_1") if vr and vr != b"UN" else dictionary_vr[:2]
        text = text_of(own_vr, value, character_set=character_set, big_endian=big_endian)
        if text is not None:
            texts[keyword] = text
    return texts


def _uid(found: Found, tag: int) -> str:
    """As it stands there, a UID or not; empty when it is absent, or longer than anything that the ledger files under."""
    text = found.values[tag][1].decode("latin_1").strip(" \0") if tag in found.values else ""
    return text.replace("\0", " ") if len(text) <= UID_TEXT_LENGTH_MAX else ""


def _plain(item: Mapping[int, bytes], tag: int) -> str:
    return item.get(tag, b"").decode("latin_1").strip(" \0")
