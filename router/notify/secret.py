"""Secrets, read where the configuration says each time they are needed: a new one counts without a restart."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from router.errors import NotTold

_PREFIX = "whsec_"


def read_secret(source: str) -> str:
    """What stands in `env:NAME` or `file:PATH`, without the end of its line. Raises NotTold, which never quotes it."""
    kind, _, where = source.partition(":")
    if kind == "env":
        value = os.environ.get(where, "")
    else:
        try:
            value = Path(where).read_text(encoding="utf-8")
        except OSError as error:
            raise NotTold(f"the secret {source} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise NotTold(f"the secret {source} is not text") from error
    value = value.strip("\r\n")
    if not value:
        raise NotTold(f"the secret {source} is not there or empty")
    if not (value.isascii() and value.isprintable()):
        raise NotTold(f"the secret {source} is not one line of ASCII")
    return value


def signing_key(secret: str) -> bytes:
    """The key behind a secret as Standard Webhooks writes it (whsec_ and base64), or any other text. Raises NotTold."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise NotTold(f"the secret begins with {_PREFIX} and is not base64 after that") from error
