"""A collector of traces: OTLP over HTTP as a real one takes it, decoded with the protocol's own definitions."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.peers import HOST


class Collector:
    """Listens on a port of its own while it is open."""

    def __init__(self, port: int = 0) -> None:
        self.bodies: list[bytes] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.status == 200:
                    collector.bodies.append(body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer((HOST, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self._server.server_port}/v1/traces"

    def spans(self) -> list[Any]:
        """In the order in which they came; each with its numbers in hexadecimal."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in list(self.bodies)]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def attributes(span: Any) -> dict[str, Any]:
    """Name -> value."""
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def tree(spans: list[Any]) -> list[str]:
    """Every way from the root down, as «receive > durable > deliver»; a span of an unknown parent begins with «?»."""
    by_id = {span.span_id: span for span in spans}

    def way(span: Any) -> str:
        name = span.name + (f" {target}" if (target := attributes(span).get("router.target")) else "")
        if not span.parent_span_id:
            return name
        parent = by_id.get(span.parent_span_id)
        return f"{way(parent) if parent is not None else '?'} > {name}"

    return sorted(way(span) for span in by_id.values())
