"""A server of files over HTTP that breaks off, forgets its ranges or changes its files when a test says so."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Server:
    """Serves `files` with ETag, Range and If-Range (RFC 9110)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        """The next answers end after so many bytes each."""
        self.ranges: list[str] = []
        """What was asked for, «» for all of it."""
        self.understands_ranges = True
        self.gives_etags = True
        self.misunderstands_ranges = False
        """Answers 206 with another part than was asked for."""
        state = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                state._answer(self)

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        data = self.files.get(to.path.lstrip("/"))
        if data is None:
            to.send_error(404)
            return
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        asked = to.headers.get("Range", "")
        self.ranges.append(asked)
        valid = to.headers.get("If-Range", etag) == etag
        first = int(re.sub(r"\D", "", asked)) if asked and self.understands_ranges and valid else 0
        if first and first >= len(data):
            to.send_response(416)
            to.send_header("Content-Range", f"bytes */{len(data)}")
            to.end_headers()
            return
        sent_from = 1 if first and self.misunderstands_ranges else first
        to.send_response(206 if first else 200)
        if first:
            to.send_header("Content-Range", f"bytes {sent_from}-{len(data) - 1}/{len(data)}")
        if self.gives_etags:
            to.send_header("ETag", etag)
        to.send_header("Content-Length", str(len(data) - sent_from))
        to.end_headers()
        rest = data[sent_from:]
        to.wfile.write(rest[: self.cuts.pop(0)] if self.cuts else rest)
