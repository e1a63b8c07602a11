"""Digests: right, told apart by their text, and none taken for one that it is not."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys

import pytest

from router.core.digest import ALGORITHMS, Algorithm, Hasher, comparable, others, parsed
from router.errors import UnknownDigest

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

#: Bytes -> the first 32 bytes that BLAKE3's authors publish (test_vectors.json): the numbers 0 to 250, again and again.
BLAKE3_VECTORS = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1023: "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    102400: "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
}


def numbers(byte_count: int) -> bytes:
    return bytes(number % 251 for number in range(byte_count))


def text_of(data: bytes, algorithm: Algorithm) -> str:
    hasher = Hasher(algorithm)
    hasher.update(data)
    return hasher.text()


@pytest.mark.parametrize(("byte_count", "digits"), BLAKE3_VECTORS.items())
def test_blake3_is_that_of_its_authors(byte_count: int, digits: str) -> None:
    assert text_of(numbers(byte_count), "blake3") == f"blake3:{digits}"


def test_sha256_is_written_as_ever() -> None:
    assert text_of(b"", "sha256") == EMPTY_SHA256
    assert text_of(b"abc", "sha256") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_pieces_of_any_kind_and_a_stream_give_the_digest_of_the_whole(algorithm: Algorithm) -> None:
    data = numbers(3_000_000)
    hasher = Hasher(algorithm)
    hasher.update(memoryview(data)[:7])
    hasher.update(bytearray(data[7:5000]))
    assert hasher.update_to_end(io.BytesIO(data[5000:])) == len(data) - 5000
    assert hasher.text() == text_of(data, algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_digest_is_checked_by_the_algorithm_that_its_text_names(algorithm: Algorithm) -> None:
    digest = parsed(text_of(b"abc", algorithm))
    assert digest.algorithm == algorithm
    hasher = digest.hasher()
    hasher.update(b"abc")
    assert hasher.text() == text_of(b"abc", algorithm)


def test_people_are_told_the_algorithm_and_the_digits() -> None:
    assert parsed(EMPTY_SHA256).short == "SHA-256 e3b0c44298fc1c14…"
    blake3 = parsed(f"blake3:{BLAKE3_VECTORS[0]}")
    assert blake3.short == "BLAKE3 af1349b9f5f9a1a6…"
    assert (blake3.name, blake3.digits) == ("BLAKE3", BLAKE3_VECTORS[0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab",
        "g" * 64,
        "A" * 64,
        "0" * 63,
        "0" * 65,
        "0" * 64 + "\n",
        "blake3:",
        "blake2:" + "0" * 64,
        "sha256:" + "0" * 64,
    ],
)
def test_a_text_that_is_no_digest_is_refused_by_name(text: str) -> None:
    with pytest.raises(UnknownDigest):
        parsed(text)


def test_only_digests_of_one_algorithm_can_be_compared() -> None:
    blake3 = f"blake3:{BLAKE3_VECTORS[0]}"
    assert not comparable(EMPTY_SHA256, blake3)
    assert not comparable(blake3, EMPTY_SHA256)
    assert comparable(EMPTY_SHA256, "0" * 64)
    assert comparable(blake3, blake3)
    assert (others(blake3), others(EMPTY_SHA256)) == (("sha256",), ("blake3",))


def test_hashing_loads_no_network_and_no_numpy() -> None:
    code = "import sys, router.core.digest; print({'numpy', 'torch'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
