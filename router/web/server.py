"""Serves the web application from a thread of the node."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from router.errors import ConfigError
from router.settings import WebSettings
from router.web.connections import BoundedProtocol, ConnectionLimits, Connections, loop_factory


class WebServer:
    """Owns the listening socket, so that port 0 works and a port in use is a clear error before anything starts."""

    def __init__(
        self,
        app: Starlette,
        *,
        host: str,
        port: int,
        certificate_file: Path | None = None,
        key_file: Path | None = None,
        limits: ConnectionLimits | None = None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """With a certificate and its key it speaks HTTPS; without `limits`, those of the defaults. Raises ConfigError.

        `on_start` is called when it starts; it must return at once.
        """
        limits = limits or ConnectionLimits.of(WebSettings())
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With its protocol: only then does asyncio switch Nagle's algorithm off, which costs every page 40 ms.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise ConfigError([f"web.port: cannot listen on {host}:{port}: {error.strerror}"]) from error
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=partial(BoundedProtocol, connections=Connections(limits)),  # type: ignore[arg-type]  # what makes one will do
            timeout_graceful_shutdown=2,
            server_header=False,
            proxy_headers=False,  # who may tell another's address is web.trusted_proxy's matter alone
            ssl_certfile=certificate_file,
            ssl_keyfile=key_file,
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            self._socket.close()
            raise ConfigError([f"web.certificate_file: cannot be used: {error.strerror or error}"]) from error
        self._server = uvicorn.Server(config)
        self._on_start = on_start
        self._new_loop = loop_factory(limits)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    @property
    def port(self) -> int:
        """The real port."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._on_start()
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            runner.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()
