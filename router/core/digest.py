"""Digests of instances' data sets, and how they are written: the text says by which algorithm.

64 hexadecimal digits are SHA-256 (FIPS 180-4), as all digests were once; `blake3:` and 64 hexadecimal digits are BLAKE3 with
its default length of 256 bits (https://github.com/BLAKE3-team/BLAKE3-specs).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from blake3 import blake3

from router.errors import UnknownDigest

Algorithm = Literal["blake3", "sha256"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

_CHUNK_BYTE_COUNT = 2**20
_MARK = "blake3:"
_TEXT = re.compile(f"({_MARK})?([0-9a-f]{{64}})")
_NAMES: dict[Algorithm, str] = {"blake3": "BLAKE3", "sha256": "SHA-256"}


class Bytes(Protocol):
    """A stream, as far as hashing needs it."""

    def read(self, byte_count: int, /) -> bytes: ...


class Hasher:
    """A digest that is being computed."""

    __slots__ = ("_inner", "_mark", "update")

    def __init__(self, algorithm: Algorithm) -> None:
        self._mark = _MARK if algorithm == "blake3" else ""
        self._inner = blake3() if algorithm == "blake3" else hashlib.sha256()
        self.update = self._inner.update
        """Takes the next bytes. As it is: a call in between costs more than a small piece does."""

    def update_to_end(self, stream: Bytes) -> int:
        """Takes what is left of a stream; returns how many bytes that were."""
        byte_count = 0
        while chunk := stream.read(_CHUNK_BYTE_COUNT):
            self.update(chunk)
            byte_count += len(chunk)
        return byte_count

    def text(self) -> str:
        """Of the bytes so far."""
        return self._mark + self._inner.hexdigest()


@dataclass(frozen=True, slots=True)
class Digest:
    """What a digest's text says."""

    algorithm: Algorithm
    digits: str
    """64, hexadecimal."""

    @property
    def name(self) -> str:
        """Of the algorithm, for people."""
        return _NAMES[self.algorithm]

    @property
    def short(self) -> str:
        """For people who compare at a glance: the algorithm and the first digits."""
        return f"{self.name} {self.digits[:16]}…"

    def hasher(self) -> Hasher:
        """One that computes the same for the same bytes."""
        return Hasher(self.algorithm)


def parsed(text: str) -> Digest:
    """Raises UnknownDigest for a text that is none of ours."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise UnknownDigest(f"{text[:80]!r} is no digest that this program knows")
    return Digest("blake3" if found[1] else "sha256", found[2])


def comparable(one: str, other: str) -> bool:
    """True when both texts are of one algorithm: only then do different ones mean different bytes."""
    return one.startswith(_MARK) == other.startswith(_MARK)


def others(text: str) -> tuple[Algorithm, ...]:
    """The algorithms by which a digest was not computed. Raises UnknownDigest."""
    mine = parsed(text).algorithm
    return tuple(algorithm for algorithm in ALGORITHMS if algorithm != mine)
