"""A port that takes connections, each into a thread of its own. It sleeps until somebody comes or `stop` is called."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from router.dimse.store import Tell

_BACKLOG = 256
#: After a connection could not be taken, for want of file descriptors or threads: the reason will not pass in no time.
_PAUSE_S = 0.1


class Listener:
    """Listens from construction on; `start` takes connections until `stop`. Raises OSError when the port is taken."""

    def __init__(self, host: str, port: int, *, connected: Callable[[socket.socket, str], None], tell: Tell) -> None:
        """`connected`: gets a connection and its address, in a thread of its own; the connection is its to close."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._socket.setblocking(False)
        self._wake_read, self._wake_write = socket.socketpair()
        self._connected = connected
        self._tell = tell
        self._thread = threading.Thread(target=self._run, name="dimse-listener", daemon=True)
        self._started = False
        self.port = int(self._socket.getsockname()[1])
        """The real one, also where 0 was asked for."""

    def start(self) -> None:
        """Takes connections in a thread of its own."""
        self._started = True
        self._thread.start()

    def stop(self) -> None:
        """The port is closed when this returns. May be called twice."""
        with suppress(OSError):
            self._wake_write.send(b"\0")
        if self._started:
            self._thread.join()
        for one in (self._socket, self._wake_read, self._wake_write):
            one.close()

    def _run(self) -> None:
        poll = select.poll()  # unlike select(), it knows no highest file descriptor
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        pause = select.poll()
        pause.register(self._wake_read, select.POLLIN)
        while self._wake_read.fileno() not in {fd for fd, _ in poll.poll()}:
            try:
                self._accept()
            except BlockingIOError:
                continue  # it went away before we came
            except (OSError, RuntimeError) as error:
                self._tell("association.rejected", level=logging.ERROR, reason=f"cannot take a connection: {error}")
                pause.poll(_PAUSE_S * 1000)

    def _accept(self) -> None:
        """Raises OSError, RuntimeError when there can be no further thread."""
        connection, address = self._socket.accept()
        try:
            threading.Thread(
                target=self._serve, args=(connection, address), name="dimse-connection", daemon=True
            ).start()
        except RuntimeError:
            connection.close()
            raise

    def _serve(self, connection: socket.socket, address: Any) -> None:
        try:
            self._connected(connection, str(address[0]))
        except Exception as error:  # noqa: BLE001 - one connection ends, the others go on
            self._tell("association.failed", level=logging.ERROR, exc_info=error)
            connection.close()
