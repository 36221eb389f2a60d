"""A clock: the worker contract in Python, with nothing but the standard library.

The listening socket is file descriptor 3, what arrives there is HTTP/1.1, and SIGTERM means: finish and exit.
Try it alone: systemd-socket-activate -l 8081 python3 src/main.py
"""

import html
import os
import select
import signal
import socket
import string
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path

FIRST_FD = 3  # the first one systemd passes, sd_listen_fds(3)
MOST_STREAMS = 200  # each is a thread; config/worker.yaml leaves room for them
SILENCE = 60  # seconds a connection may be silent before it is closed

ROUTE = os.environ.get("WORKER_ROUTE", "/clock").rstrip("/")
# Read once: what is served is what was there when this generation was accepted.
PAGE = string.Template((Path(__file__).parent.parent / "views" / "clock.html").read_text("utf-8"))

stopping = threading.Event()
streams = threading.BoundedSemaphore(MOST_STREAMS)


def now() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())


class Clock(BaseHTTPRequestHandler):
    """One connection: request after request, until the client closes it or the worker stops."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in (ROUTE, f"{ROUTE}/"):
            self.page()
        elif path == f"{ROUTE}/events":
            self.events()
        else:
            self.text(HTTPStatus.NOT_FOUND, f"there is no {path} here\n")

    do_HEAD = do_GET

    def page(self) -> None:
        values = {"base": ROUTE, "time": now(), "python": sys.version.split()[0]}
        body = PAGE.substitute({name: html.escape(value) for name, value in values.items()})
        self.whole(HTTPStatus.OK, "text/html; charset=utf-8", body.encode())

    def text(self, status: HTTPStatus, text: str) -> None:
        self.whole(status, "text/plain; charset=utf-8", text.encode())

    def whole(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.head(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'self'")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        # A body nobody reads would be taken for the next request, so the connection ends with this one.
        if stopping.is_set() or "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.send_header("Connection", "close")

    def events(self) -> None:
        """The time, every second, as server-sent events."""
        if not streams.acquire(blocking=False):
            self.text(HTTPStatus.SERVICE_UNAVAILABLE, "too many are watching this clock\n")
            return
        try:
            self.head(HTTPStatus.OK, "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if self.command == "HEAD":
                return
            while not stopping.is_set():
                self.chunk(f"data: {now()}\n\n".encode())
                # To just past the next full second, or to the end of this worker.
                stopping.wait(1.01 - time.time() % 1)
            # A whole end, not a broken connection: the browser connects again, to the generation that serves now.
            self.chunk(b"")
        finally:
            streams.release()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def version_string(self) -> str:
        return "clock"

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the proxy has logged the request."""


def serve(connection: socket.socket, open_connections: set[socket.socket]) -> None:
    try:
        Clock(connection, ("", 0), None)
    except OSError:
        pass  # The client went away; there is nobody left to tell.
    finally:
        open_connections.discard(connection)
        connection.close()


def run(listener: socket.socket) -> None:
    """Serves until SIGTERM, then finishes."""
    # A signal writes a byte here, so that one select waits for both.
    terminated, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)

    listener.setblocking(False)
    open_connections: set[socket.socket] = set()
    while terminated not in select.select([listener, terminated], [], [])[0]:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue  # It went away before we came.
        connection.setblocking(True)
        open_connections.add(connection)
        threading.Thread(target=serve, args=(connection, open_connections)).start()

    # What connects from here on waits in the socket, which is systemd's, for the next process.
    listener.close()
    stopping.set()
    for connection in open_connections.copy():
        try:
            # No more requests are read. An answer that is being written is finished, and Python waits for its thread at exit.
            connection.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # Closed in this moment.


def main() -> int:
    # A child would inherit these variables too; LISTEN_PID tells whom they are for.
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        print("no socket was passed; try: systemd-socket-activate -l 8081 python3 src/main.py", file=sys.stderr)
        return 1
    run(socket.socket(fileno=FIRST_FD))
    return 0


if __name__ == "__main__":
    sys.exit(main())
