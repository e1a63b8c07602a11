"""Attributes of a received data set, read so that nothing in them can raise what the caller does not expect."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from router.classify.reasons import refusal


@cache
def _tag(keyword: str) -> BaseTag:
    """Made once: pydicom makes one for every look by a keyword."""
    return Tag(keyword)


def value(ds: Dataset, keyword: str) -> Any:
    """What pydicom makes of an attribute, or None when it is absent, empty or cannot be parsed."""
    try:
        tag = _tag(keyword)
        found = ds[tag].value if tag in ds else None
    except Exception:  # noqa: BLE001 - converting a malformed value raises whatever the value provokes
        return None
    return None if found is None or found == "" else found


def words(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of an attribute as upper-case text without padding; empty ones are kept, an absent attribute is ()."""
    found = value(ds, keyword)
    if found is None:
        return ()
    many = found if isinstance(found, list | tuple) or (hasattr(found, "__iter__") and not _is_text(found)) else [found]
    return tuple(str(one).strip(" \0").upper() for one in many)


def word(ds: Dataset, keyword: str) -> str:
    """The first value of an attribute as upper-case text without padding; empty when there is none."""
    found = words(ds, keyword)
    return found[0] if found else ""


def plain(ds: Dataset, keyword: str) -> str:
    """An attribute's text as it stands; empty when there is none."""
    found = value(ds, keyword)
    return "" if found is None else str(found)


def integer(ds: Dataset, keyword: str, absent: int | None = None) -> int:
    """A whole number. `absent` stands for a missing attribute; without it, a missing one raises NotForThisClassifier."""
    found = value(ds, keyword)
    if found is None:
        if absent is not None:
            return absent
        raise refusal("header", f"{keyword} is missing")
    try:
        return int(found)
    except (TypeError, ValueError, OverflowError):
        raise refusal("header", f"{keyword} is not a number") from None


def items(ds: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; () when it is absent, empty or no sequence."""
    found = value(ds, keyword)
    if found is None:
        return ()
    return tuple(item for item in found if isinstance(item, Dataset)) if hasattr(found, "__iter__") else ()


def _is_text(found: object) -> bool:
    return isinstance(found, str | bytes) or type(found).__name__ == "PersonName"
