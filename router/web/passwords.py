"""Passwords are kept as scrypt hashes: 32 MiB of memory and some tenths of a second for each guess.

Sources: RFC 7914; OWASP Password Storage Cheat Sheet (N = 2^15, r = 8, p = 3); NIST SP 800-63B 5.1.1 for what is asked of a password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import unicodedata

LENGTH_MIN, LENGTH_MAX = 12, 1024
_LOG2_N, _R, _P = 15, 8, 3
_LOG2_N_MAX = 20
_SALT_BYTE_COUNT = 16


def complaint(password: str, *, user_name: str) -> str:
    """Why this is no password to accept, in a few words; empty when it is one."""
    if len(password) < LENGTH_MIN:
        return f"a password has at least {LENGTH_MIN} characters"
    if len(password) > LENGTH_MAX:
        return f"a password has at most {LENGTH_MAX} characters"
    if len(set(password)) < 4 or password.casefold().replace(user_name.casefold(), "") == "":
        return "this password is too easy to guess"
    return ""


def hash_password(password: str, *, log2_n: int = _LOG2_N) -> str:
    """What may be written down: `scrypt$log2 N$r$p$salt$hash`."""
    salt = os.urandom(_SALT_BYTE_COUNT)
    digest = _scrypt(password, salt, log2_n, _R, _P)
    return "$".join(["scrypt", str(log2_n), str(_R), str(_P), _text(salt), _text(digest)])


def verify(password: str, stored: str) -> bool:
    """Whether it is the one. Takes as long for a wrong one as for the right one. Raises ValueError for what is no hash of ours."""
    kind, *numbers, salt, digest = stored.split("$")
    if kind != "scrypt" or len(numbers) != 3:
        raise ValueError("not a hash of this program")
    log2_n, r, p = map(int, numbers)
    if not (1 <= log2_n <= _LOG2_N_MAX and 1 <= r <= 32 and 1 <= p <= 16):
        raise ValueError("a hash that would take too long")
    found = _scrypt(password, base64.b64decode(salt), log2_n, r, p)
    return hmac.compare_digest(found, base64.b64decode(digest))


def _scrypt(password: str, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    # The same password typed on another keyboard may be other code points.
    secret = unicodedata.normalize("NFKC", password[: LENGTH_MAX + 1]).encode()
    n = 1 << log2_n
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=128 * r * (n + p + 4))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
