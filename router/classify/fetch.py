"""One file over HTTP: to a .part file, resumed where that is safe, moved into place only when its digest is right.

Resumed means: a Range request for what is missing. It is safe when the whole file's digest is known, or when the server gave
the first half a strong ETag, which goes back to it as If-Range: then a changed file is sent from its start.
Source: RFC 9110 sections 8.8.3 (ETag), 13.1.5 (If-Range), 14.2 to 14.4 (Range).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from router.errors import WeightsUnavailable

#: done, total (None when the server does not say), both in bytes.
Progress = Callable[[int, int | None], None]

#: No published weights are larger; a server that sends more is not the right one.
BYTE_COUNT_MAX = 2**30
#: A line that breaks off again and again without bringing anything is given up; so is one that breaks off this often.
_TRIES_MAX = 20
_TIMEOUT_S = 60.0
_CHUNK_BYTE_COUNT = 2**18


def fetch(url: str, target: Path, *, sha256: str = "", progress: Progress | None = None) -> str:
    """Downloads `url` to `target` and returns its SHA-256 (hexadecimal).

    A connection that breaks off is taken up again where it ended, now and by the next call: what came stays in a .part
    file. A server that knows no ranges starts again.
    Raises WeightsUnavailable when the server cannot be reached, gives up or sends other bytes; then `target` is as before.
    """
    if not url.startswith(("https://", "http://")):
        raise WeightsUnavailable(f"{url}: not an http or https address")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(target, url, digest_known=bool(sha256))
    resumed = part.byte_count > 0
    try:
        _persist(part, progress)
        found = sha256_of(part.path)
        if sha256 and found != sha256 and resumed:
            # What was there before may have been another file's beginning: once more, from the start.
            part.forget()
            _persist(part, progress)
            found = sha256_of(part.path)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsUnavailable(f"{url}: {_why(error)}") from None
    if sha256 and found != sha256:
        part.forget()
        raise WeightsUnavailable(f"{url}: SHA-256 is {found}, not {sha256}: not the expected file, removed")
    with part.path.open("rb") as file:
        os.fsync(file.fileno())
    part.path.replace(target)
    part.forget()
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _BrokeOff(OSError):
    """The connection ended before the file did."""


class _Part:
    """What has come so far: NAME.part, and NAME.part.json with the ETag of the file whose beginning it is."""

    def __init__(self, target: Path, url: str, *, digest_known: bool) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._facts = target.with_name(f"{target.name}.part.json")
        self.url = url
        self._digest_known = digest_known
        self.etag = self._remembered()

    @property
    def byte_count(self) -> int:
        """How much of it can be used."""
        return self.path.stat().st_size if self.path.exists() and (self.etag or self._digest_known) else 0

    def begin(self, etag: str) -> None:
        """Nothing of it is used; what comes now is of this ETag (weak ones do not say that bytes are equal)."""
        self.forget()
        self.etag = "" if etag.startswith("W/") else etag
        if self.etag:
            self._facts.write_text(json.dumps({"url": self.url, "etag": self.etag}), encoding="utf-8")

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._facts.unlink(missing_ok=True)
        self.etag = ""

    def _remembered(self) -> str:
        try:
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
            return str(facts["etag"]) if facts["url"] == self.url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""


def _persist(part: _Part, progress: Progress | None) -> None:
    """Downloads until all is there; raises when a try brought nothing that the next one could use."""
    for _ in range(_TRIES_MAX):
        before = part.byte_count
        try:
            _download(part, progress)
        except (_BrokeOff, ConnectionError, TimeoutError, http.client.HTTPException):
            if part.byte_count <= before:
                raise
        else:
            return
    raise OSError(f"the connection ended {_TRIES_MAX} times; what came is kept, try again")


def _download(part: _Part, progress: Progress | None) -> None:
    done = part.byte_count
    headers = {"Range": f"bytes={done}-", **({"If-Range": part.etag} if part.etag else {})} if done else {}
    request = urllib.request.Request(part.url, headers=headers)  # noqa: S310 - see fetch
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310 - see fetch
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            if part.etag and error.headers.get("Content-Range") != f"bytes */{done}":
                return _again(part, progress)  # it has another file now
            return None  # all of it was there already; the digest decides
        raise
    with response:
        if response.status == http.client.PARTIAL_CONTENT:
            if not response.headers.get("Content-Range", f"bytes {done}-").startswith(f"bytes {done}-"):
                return _again(part, progress)  # another part than was asked for
        else:
            done = 0
            part.begin(response.headers.get("ETag", ""))
        rest = response.headers.get("Content-Length", "")
        total = done + int(rest) if rest.isdigit() else None
        with part.path.open("ab") as file:
            while chunk := response.read(_CHUNK_BYTE_COUNT):
                done += len(chunk)
                if done > BYTE_COUNT_MAX:
                    raise OSError("the server sends more than any weights have")
                file.write(chunk)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise _BrokeOff(f"the connection ended after {done} of {total} bytes; what came is kept")
    return None


def _again(part: _Part, progress: Progress | None) -> None:
    """From the start."""
    part.forget()
    _download(part, progress)


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
