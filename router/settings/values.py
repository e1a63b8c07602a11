"""Values of the configuration file: sizes, times, names, each with the error that a person reads."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def _byte_count(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", value)
    if not match or match[2] not in _UNITS:
        raise ValueError(f'not a size: write a number of bytes or a text like "4 GiB" (units: {", ".join(_UNITS)})')
    return int(float(match[1]) * _UNITS[match[2]])


def _process_count(value: object) -> object:
    if value == AUTO:
        return value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= PROCESS_COUNT_MAX:
        raise ValueError(f'must be a whole number from 1 to {PROCESS_COUNT_MAX}, or "auto"')
    return value


def _ae_title(value: str) -> str:
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", value) or not value.strip():
        raise ValueError("not an AE title: 1 to 16 printable ASCII characters without a backslash, not only spaces")
    return value.strip()


def _network(value: object) -> object:
    try:
        if isinstance(value, str):
            return ip_network(value, strict=False)
    except ValueError:
        pass
    raise ValueError('not a network or an address such as "10.1.2.0/24"')


def ledger_url(value: str) -> str:
    """Validator: a ledger we can open, without a password."""
    if not value.startswith(("sqlite:///", "postgresql://")):
        raise ValueError("not a ledger: write sqlite:///PATH or postgresql://USER@HOST/NAME")
    if re.match(r"postgresql://[^/@]*:[^/@]*@", value):
        # Raised without the value, which `_lines` would show.
        raise PydanticCustomError("secret", "holds a password: give it by PGPASSWORD or PGPASSFILE instead")
    return value


#: Of one classifier.
PROCESS_COUNT_MAX = 64
AUTO: Literal["auto"] = "auto"
#: A number of processes; "auto" is up to one for each processor core that may be used.
ProcessCount = Annotated[int | Literal["auto"], BeforeValidator(_process_count)]
#: A number of bytes, or a text with a unit such as "4 GiB".
ByteCount = Annotated[int, BeforeValidator(_byte_count), Field(ge=0)]
#: PS3.5 6.2, VR AE: 1 to 16 characters, no backslash or control characters, not only spaces.
AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class Table(BaseModel):
    """A TOML table: unknown keys are refused, values are not converted. Base of the plugins' own `Settings`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


def _paths(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


FilePath = Annotated[Path, BeforeValidator(_paths)]


def tuple_of(value: object) -> object:
    """Validator: a TOML array as a tuple, which nobody can change."""
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(tuple_of)]


def _globs(value: object) -> object:
    if value == []:
        raise ValueError("an empty list never matches")
    if not isinstance(value, str | list):
        raise ValueError("must be text or a list of texts")  # noqa: TRY004 - the one that pydantic gathers
    return (value,) if isinstance(value, str) else tuple(value)


Globs = Annotated[tuple[str, ...], BeforeValidator(_globs)]
