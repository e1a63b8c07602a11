"""One file over HTTP: to a .part file, resumed where that is safe, moved into place only when its digest is right."""

from __future__ import annotations

import hashlib
import http.client
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
_TIMEOUT_S = 60.0
_CHUNK_BYTE_COUNT = 2**18


def fetch(url: str, target: Path, *, sha256: str = "", progress: Progress | None = None) -> str:
    """Downloads `url` to `target` and returns its SHA-256 (hexadecimal); a .part file beside it is resumed.

    Resumed only when `sha256` is known: without it nothing would show that the two halves belong together.
    Raises WeightsUnavailable when the server cannot be reached, stops early or sends other bytes; then `target` is as before.
    """
    if not url.startswith(("https://", "http://")):
        raise WeightsUnavailable(f"{url}: not an http or https address")
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    resumed = bool(sha256) and part.exists() and part.stat().st_size > 0
    try:
        _download(url, part, resume=resumed, progress=progress)
        found = sha256_of(part)
        if sha256 and found != sha256 and resumed:
            # What was there before may have been another file's beginning: once more, from the start.
            _download(url, part, resume=False, progress=progress)
            found = sha256_of(part)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsUnavailable(f"{url}: {_why(error)}") from None
    if sha256 and found != sha256:
        part.unlink()
        raise WeightsUnavailable(f"{url}: SHA-256 is {found}, not {sha256}: not the expected file, removed")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, part: Path, *, resume: bool, progress: Progress | None) -> None:
    done = part.stat().st_size if resume else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310 - see fetch
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310 - see fetch
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            return  # all of it was there already; the digest decides
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            done = 0
        rest = response.headers.get("Content-Length", "")
        total = done + int(rest) if rest.isdigit() else None
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read(_CHUNK_BYTE_COUNT):
                done += len(chunk)
                if done > BYTE_COUNT_MAX:
                    raise OSError("the server sends more than any weights have")
                file.write(chunk)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes; what came is kept")


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
