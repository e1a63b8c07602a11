"""Serves the web application from a thread of the node."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from router.errors import ConfigError


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
    ) -> None:
        """With a certificate and its key it speaks HTTPS. Raises ConfigError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
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
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="web", daemon=True)

    @property
    def port(self) -> int:
        """The real port."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()
