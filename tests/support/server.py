"""A web server of a folder on this machine, that counts what it sends and breaks off when told."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Server:
    """How it behaves, to be changed at any time, and what it has done."""

    root: Path
    address: str = ""
    ranges: bool = True
    """Whether it honours Range, or sends everything."""
    length: bool = True
    """Whether it says how much will come."""
    break_after: int | None = None
    """Bytes of the body, of each answer, after which it closes the connection."""
    stall: bool = False
    """Keep the connection open, silent, in place of closing it."""
    redirect: str | None = None
    shift: int = 0
    """Of the part it sends, against the one asked for: a server in the wrong."""
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes of bodies by file name."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Names and Range headers of the requests."""
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def total(self) -> int:
        return sum(self.sent.values())


@contextmanager
def serve(root: Path) -> Iterator[Server]:
    """Serve the folder `root` until the end of the block."""
    server = Server(root)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            asked = self.headers.get("Range")
            server.asked.append((name, asked))
            if server.redirect is not None:
                self.send_response(302)
                self.send_header("Location", server.redirect + self.path)
                self.end_headers()
                return
            file = server.root / self.path.lstrip("/")
            if not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            start = max(0, start + server.shift) if start else 0
            body = content[start:]
            if start:
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if server.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            limit = len(body) if server.break_after is None else server.break_after
            self.wfile.write(body[:limit])
            self.wfile.flush()
            server.sent[name] = server.sent.get(name, 0) + len(body[:limit])
            if server.stall and limit < len(body):
                server.stalled.set()
                server.go_on.wait(60)

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()
