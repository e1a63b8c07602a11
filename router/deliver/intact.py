"""The spooled bytes, checked against what was received before anything of them leaves."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from router.core.ports import Delivery
from router.errors import SpoolDamaged, TransientError

_CHUNK_BYTE_COUNT = 2**20
_NOT_OF_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@contextmanager
def intact(delivery: Delivery) -> Iterator[BinaryIO]:
    """The delivery's file, open at the first byte of its data set, after its SHA-256 was found right.

    Raises SpoolDamaged; TransientError when this process can open no more files. A disk that changes bits is rare; a changed image in an archive is for ever.
    """
    instance = delivery.instance
    try:
        file = delivery.path.open("rb")
    except OSError as error:
        if error.errno in _NOT_OF_THE_FILE:
            raise TransientError(f"no spool file can be opened now: {error.strerror}") from error
        raise SpoolDamaged(f"spool file {instance.spool_key} cannot be read: {error.strerror}") from error
    with file:
        offset = file.seek(0, 2) - instance.byte_count
        if offset < 0:
            raise SpoolDamaged(f"spool file {instance.spool_key} is shorter than what was received")
        file.seek(offset)
        digest = hashlib.sha256()
        try:
            while data := file.read(_CHUNK_BYTE_COUNT):
                digest.update(data)
        except OSError as error:
            raise SpoolDamaged(f"spool file {instance.spool_key} cannot be read: {error.strerror}") from error
        if digest.hexdigest() != instance.sha256:
            raise SpoolDamaged(f"spool file {instance.spool_key} is not what was received: its SHA-256 differs")
        file.seek(offset)
        yield file
