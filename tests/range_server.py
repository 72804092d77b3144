"""A server of files, here, which sends ranges of bytes and counts them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Files by name, and what was sent of them: (start, stop) of every request."""

    def __init__(self, files: dict[str, bytes], ranges: bool) -> None:
        self.files, self.ranges = files, ranges
        self.sent: list[tuple[int, int]] = []
        self.url = ""

    @property
    def nbytes(self) -> int:
        return sum(stop - start for start, stop in self.sent)


@contextmanager
def serving(files: dict[str, bytes], ranges: bool = True) -> Iterator[Server]:
    """Serve files on a port of this machine."""
    state = Server(files, ranges)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def _answer(self, body: bool) -> None:
            data = state.files.get(self.path.strip("/"))
            if data is None:
                self.send_error(404)
                return
            start, stop = 0, len(data)
            asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked and state.ranges:
                start, stop = int(asked[1]), min(len(data), int(asked[2] or len(data)) + 1)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            else:
                self.send_response(200)
            if state.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if body:
                state.sent.append((start, stop))
                self.wfile.write(data[start:stop])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
