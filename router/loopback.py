"""Ports of this machine alone, for what `router demo` and `router selftest` start beside a node."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
#: Below those that systems take for outgoing connections, of which one could take a port between our look and its use.
_PORTS = range(10_000, 15_000)

_given: set[int] = set()


def free_port(ports: range = _PORTS) -> int:
    """A TCP port of HOST that nobody listens on, never the same twice in one process. Raises OSError when there is none."""
    for port in random.sample(ports, len(ports)):
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no free port of {HOST} from {ports.start} to {ports.stop - 1}")
