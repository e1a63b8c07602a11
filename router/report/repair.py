"""Values of a received header as the Standard writes them; None for one that cannot be saved.

Each function takes and gives text without padding; empty stays empty. Source: PS3.5 6.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date

_SEX = {"M": "M", "F": "F", "O": "O", "MALE": "M", "FEMALE": "F", "W": "F", "OTHER": "O"}
_VALID_AGE = re.compile(r"\d{3}[DWMY]")
#: From -1200 to +1400, and not -0000 (PS3.3 C.12.1.1.8).
_VALID_OFFSET = re.compile(r"(?!-0000)(?:[+-](0\d|1[01])[0-5]\d|[+-]1200|\+12[0-5]\d|\+13[0-5]\d|\+1400)", re.A)
#: Beyond these a date is a placeholder, and validators refuse it.
_YEAR_MIN, _YEAR_MAX = 1000, 2999


def _date(text: str) -> str | None:
    digits = re.sub(r"[.\-/]", "", text)
    if not digits:
        return ""
    if not re.fullmatch(r"[0-9]{8}", digits):
        return None
    try:
        year = date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year
    except ValueError:
        return None
    return digits if _YEAR_MIN <= year <= _YEAR_MAX else None


def _time(text: str) -> str | None:
    if not text:
        return ""
    match = re.fullmatch(r"([01]\d|2[0-3])(?:([0-5]\d)(?:([0-5]\d|60)(\.\d{1,6})?\d*)?)?", text.replace(":", ""), re.A)
    return "".join(part or "" for part in match.groups()) if match else None


def _sex(text: str) -> str | None:
    if text.upper() in ("U", "UNKNOWN"):
        return ""
    return _SEX.get(text.upper()) if text else ""


def _age(text: str) -> str | None:
    return text if not text or _VALID_AGE.fullmatch(text) else None


def _offset(text: str) -> str | None:
    return text if not text or _VALID_OFFSET.fullmatch(text) else None


#: DICOM keyword -> what mends its value.
REPAIRS: Mapping[str, Callable[[str], str | None]] = {
    "PatientBirthDate": _date,
    "PatientSex": _sex,
    "PatientAge": _age,
    "StudyDate": _date,
    "StudyTime": _time,
    "TimezoneOffsetFromUTC": _offset,
}
