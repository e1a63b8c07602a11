"""A connection that ends in time, whatever the other side does: one byte a second keeps nobody here."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from router.errors import NotTold


@contextlib.contextmanager
def connected(host: str, port: int, *, timeout_s: float) -> Iterator[socket.socket]:
    """A TCP connection that is cut `timeout_s` from now, also under TLS and in the middle of an answer.

    Raises NotTold with a diagnosis, also in place of what a cut or broken connection raises inside.
    """
    where, end_s = f"{host}:{port}", time.monotonic() + timeout_s
    over = threading.Event()
    try:
        line = socket.create_connection((host, port), timeout=timeout_s)
        line.settimeout(timeout_s)
    except OSError as error:
        raise NotTold(_diagnosis(where, error, timeout_s)) from error
    # The same connection under another number: TLS takes the first one away.
    guard = line.dup()

    def cut() -> None:
        over.set()
        with contextlib.suppress(OSError):
            guard.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, end_s - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield line
    except Exception as error:
        if over.is_set():
            raise NotTold(f"{where} did not finish within {timeout_s:g} s") from error
        if isinstance(error, OSError):
            raise NotTold(_diagnosis(where, error, timeout_s)) from error
        raise
    finally:
        timer.cancel()
        line.close()
        guard.close()


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Certificates are checked, always. Raises NotTold when `ca_file` cannot be used."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise NotTold(f"ca_file {ca_file} cannot be used: {error.strerror or error}") from error


def _diagnosis(where: str, error: OSError, timeout_s: float) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"{where}: its certificate is not trusted: {error.verify_message}; set ca_file if it is your own"
        case ssl.SSLError():
            return f"{where}: TLS fails ({error.reason or type(error).__name__}): does it speak TLS on this port?"
        case socket.gaierror():
            return f"{where}: this name is not known here"
        case TimeoutError():
            return f"{where} did not answer within {timeout_s:g} s"
        case ConnectionRefusedError():
            return f"nothing listens on {where}"
        case _:
            return f"{where}: {error.strerror or type(error).__name__}"
