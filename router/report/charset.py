"""Specific Character Set (0008,0005) of a received image: what it declares, mended, so that its bytes need not change.

The names and identifiers of a patient are copied byte for byte, so the declared term must fit those bytes; only the term
is ever changed. Sources: PS3.3 C.12.1.1.2, PS3.5 6.1.2.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from pydicom import charset as pydicom_charset

_SINGLE_BYTE = ("100", "101", "109", "110", "144", "127", "126", "138", "148", "203", "13", "166")
_MULTI_BYTE = ("87", "159", "149", "58")
#: Terms that stand alone: nothing may be declared beside them.
_ALONE = ("ISO_IR 192", "GB18030", "GBK")
_KNOWN = frozenset(
    ["", "ISO 2022 IR 6", *_ALONE]
    + [f"ISO_IR {number}" for number in _SINGLE_BYTE]
    + [f"ISO 2022 IR {number}" for number in _SINGLE_BYTE + _MULTI_BYTE]
)
#: What modalities write instead, folded by `_fold`.
_MISSPELT = {
    "UTF8": "ISO_IR 192",
    "LATIN1": "ISO_IR 100",
    "ISO88591": "ISO_IR 100",
    "ISOIR6": "",
    "USASCII": "",
    "ASCII": "",
}
#: Terms in which ASCII means itself. In ISO_IR 13 it does not quite, and pydicom does not know 203.
_ASCII_IN = frozenset(
    ["", "ISO_IR 192"] + [f"ISO_IR {number}" for number in _SINGLE_BYTE if number not in ("13", "203")]
)
_ESCAPE = 0x1B
#: Where a text starts again in the first character set (PS3.5 6.1.2.5.3); PN adds its component and group separators.
_DELIMITERS = {0x0A, 0x0C, 0x0D, 0x5C, 0x3D, 0x5E}


def known_terms() -> list[str]:
    """Defined terms that can be declared, in order."""
    return sorted(term for term in _KNOWN if term)


def settled_terms(declared: Sequence[str], texts: Iterable[bytes]) -> tuple[tuple[str, ...], list[str]]:
    """The terms to declare for `texts`, and what was repaired, in plain English.

    `declared` are the values as stored. No terms mean the default repertoire (ASCII).
    """
    texts = list(texts)
    foreign = any(byte > 0x7E or byte == _ESCAPE for text in texts for byte in text)
    terms = [_mended(term) for term in declared]
    repairs = []
    if unknown := [term for term in terms if term not in _KNOWN]:
        repairs.append(f"character set unknown: {len(unknown)} of {len(terms)} terms are not of the Standard")
        terms = []
    terms = _combined(terms, texts)
    if foreign and not any(terms):
        terms = ["ISO_IR 192" if all(_is_utf8(text) for text in texts) else "ISO_IR 100"]
        repairs.append(f"character set not declared, {terms[0]} assumed")
    elif terms != [term.strip() for term in declared] and not unknown and any(declared):
        repairs.append(f"character set written as {'/'.join(terms) or 'the default repertoire'}")
    return tuple(terms), repairs


def decoded(raw: bytes, terms: Sequence[str]) -> str | None:
    """The text of `raw`, or None when it is not text in these character sets."""
    ascii_ = raw.isascii()
    if not any(terms) and not ascii_:
        return None
    if ascii_ and _ESCAPE not in raw and len(terms) <= 1 and _ASCII_IN.issuperset(terms):
        return raw.decode("ascii")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            encodings = pydicom_charset.convert_encodings(list(terms))
            return str(pydicom_charset.decode_bytes(raw, encodings, _DELIMITERS))
        except (UnicodeError, LookupError, UserWarning):
            return None


def encoded(text: str, terms: Sequence[str]) -> bytes | None:
    """`text` in these character sets, or None when they cannot hold it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            encodings = pydicom_charset.convert_encodings(list(terms))
            return bytes(pydicom_charset.encode_string(text, encodings))
        except (UnicodeError, LookupError, UserWarning, ValueError):
            return None


def _mended(term: str) -> str:
    term = term.strip(" \0")
    if term in _KNOWN:
        return term
    folded = _fold(term)
    if folded in _MISSPELT:
        return _MISSPELT[folded]
    return next((known for known in _KNOWN if _fold(known) == folded), term)


def _fold(term: str) -> str:
    return "".join(c for c in term.upper() if c.isalnum())


def _combined(terms: list[str], texts: Sequence[bytes]) -> list[str]:
    """`terms` as the Standard allows them to stand together."""
    alone = [term for term in terms if term in _ALONE]
    if alone and len(terms) > 1:
        others = [term for term in terms if term not in _ALONE]
        if all(decoded(text, alone[:1]) is not None for text in texts):
            return alone[:1]
        terms = others
    if len(terms) > 1:
        return [term.replace("ISO_IR ", "ISO 2022 IR ") for term in terms]
    if terms == ["ISO 2022 IR 6"]:
        return []
    if terms and terms[0].startswith("ISO 2022 IR "):
        number = terms[0].removeprefix("ISO 2022 IR ")
        # A term for code extension without one; a two-byte set never is the first: ASCII stands before it.
        return ["", terms[0]] if number in _MULTI_BYTE else [f"ISO_IR {number}"]
    return [term for term in terms if term]


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
