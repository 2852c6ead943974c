"""A proxy before a real S3 server that spoils some of its answers."""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Spoil = Callable[["Handler", int, dict[str, str], bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Passes requests on; `spoil` answers every so many of those for tars in its own way."""

    protocol_version = "HTTP/1.1"
    server: "Proxy"

    def do_GET(self) -> None:
        status, headers, body = self._asked()
        spoil = self.server.spoil
        if spoil is not None and ".tar" in self.path and self.server.due():
            spoil(self, status, headers, body)
        else:
            self.answer(status, headers, body)

    do_HEAD = do_PUT = do_GET  # noqa: N815 (names of the base class)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _asked(self) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            length = int(self.headers.get("Content-Length", 0))
            # The signature covers the host that the client knows.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(self.rfile.read(length))
            answer = upstream.getresponse()
            left_out = ("transfer-encoding", "connection", "keep-alive")
            headers = {k: v for k, v in answer.getheaders() if k.lower() not in left_out}
            return answer.status, headers, answer.read()
        finally:
            upstream.close()

    def log_message(self, *_: object) -> None:
        """Silent."""


class Proxy(ThreadingHTTPServer):
    """Spoils all but every `every`-th answer, or every one."""

    daemon_threads = True
    spoil: Spoil | None = None
    every: int | None = 3

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.spoiled = 0
        self._lock, self._seen = threading.Lock(), 0

    def due(self) -> bool:
        with self._lock:
            self._seen += 1
            due = self.every is None or self._seen % self.every == 0
            self.spoiled += due
            return due

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of it."""


@contextmanager
def proxied(endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(urlsplit(endpoint).netloc)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def cut(handler: Handler, status: int, headers: dict[str, str], body: bytes) -> None:
    """Says the whole length, sends half of it and hangs up."""
    handler.answer(status, headers, body[: len(body) // 2])
    handler.close_connection = True


def short(handler: Handler, status: int, headers: dict[str, str], body: bytes) -> None:
    """Half of it, as if that were all."""
    half = body[: len(body) // 2]
    names = {name for name in headers if name.lower() in ("content-length", "content-range")}
    kept = {name: value for name, value in headers.items() if name not in names}
    handler.answer(status, {**kept, "Content-Length": str(len(half))}, half)


def reset(handler: Handler, _status: int, _headers: dict[str, str], _body: bytes) -> None:
    """The connection breaks before anything is said."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    handler.connection.close()


def busy(handler: Handler, _status: int, _headers: dict[str, str], _body: bytes) -> None:
    """Asks to be asked less often."""
    _refuse(handler, 503, "SlowDown", "Reduce your request rate.")


def past_the_end(handler: Handler, _status: int, _headers: dict[str, str], _body: bytes) -> None:
    """As AWS and MinIO say it."""
    _refuse(handler, 416, "InvalidRange", "The requested range is not satisfiable")


def denied(handler: Handler, _status: int, _headers: dict[str, str], _body: bytes) -> None:
    """No key opens it."""
    _refuse(handler, 403, "AccessDenied", "Access Denied")


def empty(handler: Handler, _status: int, _headers: dict[str, str], _body: bytes) -> None:
    """Past the end, without a word."""
    handler.answer(416, {"Content-Length": "0"}, b"")


def _refuse(handler: Handler, status: int, code: str, message: str) -> None:
    said = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    handler.answer(status, {"Content-Length": str(len(said)), "Content-Type": "text/xml"}, said)


def flipped(handler: Handler, status: int, headers: dict[str, str], body: bytes) -> None:
    """One bit of the last byte, which belongs to an array."""
    handler.answer(status, headers, body[:-1] + bytes([body[-1] ^ 1]))


def hanging(handler: Handler, _status: int, _headers: dict[str, str], _body: bytes) -> None:
    """Says nothing for longer than anyone waits."""
    time.sleep(4)
    handler.close_connection = True


FAULTS: dict[str, Spoil] = {
    "cut": cut,
    "short": short,
    "reset": reset,
    "busy": busy,
    "flipped": flipped,
    "hanging": hanging,
}
