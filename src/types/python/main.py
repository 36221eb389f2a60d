"""The worker '{{name}}': a page and a health path.

The listening socket is file descriptor 3 (sd_listen_fds(3)), and SIGTERM means: finish and exit.
"""

import os
import select
import signal
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

FIRST_FD = 3  # the first one that systemd passes
SILENCE = 60  # seconds a connection may be silent before it is closed

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{name}}</title>
</head>
<body>
<h1>Hello from {{name}}</h1>
<p>Edit <code>{{directory}}/main.py</code>, save it, and this page follows.</p>
</body>
</html>
"""


class Connection(BaseHTTPRequestHandler):
    """Request after request, until the client closes it or the worker stops."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE
    server: "Server"

    def do_GET(self) -> None:
        base = self.server.route.rstrip("/")
        path = self.path.partition("?")[0]
        if path in (base, f"{base}/"):
            self.answer(HTTPStatus.OK, "text/html", PAGE)
        elif path == f"{base}/health":
            self.answer(HTTPStatus.OK, "text/plain", "ok\n")
        else:
            self.answer(HTTPStatus.NOT_FOUND, "text/plain", "there is nothing here\n")

    do_HEAD = do_GET

    def answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        # A body that nobody reads would be taken for the next request.
        if self.server.stopping or "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one_request(self) -> None:
        idle = self.server.idle
        idle.add(self.connection)
        # In this order: a stop between the two closes it, or is seen.
        if self.server.stopping:
            self.close_connection = True
        else:
            super().handle_one_request()
        idle.discard(self.connection)

    def parse_request(self) -> bool:
        # The first line is here, so this is a request in flight.
        self.server.idle.discard(self.connection)
        return super().parse_request()

    def address_string(self) -> str:
        return "proxy"  # A client on a unix socket has no address.

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Says nothing: the server can log requests (access_log)."""


class Server(ThreadingMixIn, HTTPServer):
    """Serves a socket that is open already, a thread for each connection."""

    daemon_threads = False
    timeout = 0  # handle_request() is for a connection that is there.

    def __init__(self, listener: socket.socket, route: str) -> None:
        super().__init__(("", 0), Connection, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.route = route
        self.stopping = False
        self.idle: set[socket.socket] = set()

    def run(self) -> None:
        """Serves until SIGTERM, then finishes the requests in flight."""
        # A signal writes a byte here, so that one select waits for both.
        terminated, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGTERM, lambda *_: None)
        while terminated not in select.select([self, terminated], [], [])[0]:
            self.handle_request()
        self.stop()

    def stop(self) -> None:
        self.stopping = True
        for connection in self.idle.copy():
            try:
                connection.shutdown(socket.SHUT_RD)
            except OSError:
                pass  # Closed in this moment.
        # What connects from here on waits for the next process. Returns when the last thread has ended.
        self.server_close()


def main() -> int:
    # A child would inherit these variables too; LISTEN_PID tells whom they are for.
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        print("no socket was passed; run this worker with `tqserver dev`", file=sys.stderr)
        return 1
    # The whole path of a request arrives here, so the worker has to know where it is.
    route = os.environ.get("WORKER_ROUTE", "{{route}}")
    server = Server(socket.socket(fileno=FIRST_FD), route)
    print(f"{{name}} serves {route}", flush=True)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
