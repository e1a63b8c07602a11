"""Small chest phantoms as DICOM files, as many as wanted, each with a SOP Instance UID of its own."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from router.classify.phantom import phantom_dicom
from tests.samples import dataset_bytes

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.1"
TRANSFER_SYNTAX_UID = "1.2.840.10008.1.2.1"


@dataclass(frozen=True, slots=True)
class Image:
    """One file to send."""

    uid: str
    path: Path
    sha256: str
    """Of its data set as it should arrive."""


@cache
def _drawn(seed: int, side: int) -> tuple[bytes, bytes]:
    """A file and the UID in it, as long as every UID of ours: so that one can take the other's place byte for byte."""
    ds = phantom_dicom(seed, rows=side, columns=side)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = new_uid()
    stream = BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue(), str(ds.SOPInstanceUID).encode()


def new_uid() -> str:
    """44 characters, never the same twice. Source: PS3.5 B.2."""
    return f"2.25.{10**38 + secrets.randbelow(2 * 10**38)}"


def make(folder: Path, count: int, *, side: int = 64) -> list[Image]:
    """`count` new files, side x side pixels of two bytes each."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number in range(count):
        template, old = _drawn(number % 8, side)
        uid = new_uid()
        data = template.replace(old, uid.encode())
        path = folder / f"{uid}.dcm"
        path.write_bytes(data)
        images.append(Image(uid=uid, path=path, sha256=digest(data)))
    return images


def digest(file: bytes | Path) -> str:
    """SHA-256 of the data set of a DICOM file."""
    return hashlib.sha256(dataset_bytes(file)).hexdigest()
