"""The worker that is under load while things break. Below its route:

/            its version
/sleep?S     the same, after S seconds
/stream?S    a piece every tenth of a second, for S seconds
/post        (POST) the id of the request, and length and checksum of its body; the id is also appended to "posts" in the state
             directory, so that a request that was processed twice is seen
/eat?N       takes N MiB of memory
"""

import os
import pathlib
import signal
import socket
import sys
import threading
import time
import zlib

HERE = pathlib.Path(__file__).resolve().parent
ROUTE = os.environ.get("WORKER_ROUTE", "/")
VERSION = (HERE / "version").read_text().strip()
STATE = os.environ.get("STATE_DIRECTORY", "/nonexistent")


def note(identity):
    """One write, so that lines do not mix. A full disk is no reason not to answer."""
    try:
        descriptor = os.open(f"{STATE}/posts", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError:
        return
    try:
        os.write(descriptor, identity.encode() + b"\n")
    except OSError:
        pass
    finally:
        os.close(descriptor)


def respond(connection, text, status="200 OK"):
    body = text.encode() + b"\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def stream(connection, seconds):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
    begin = time.monotonic()
    for number in range(max(1, round(seconds * 10))):
        connection.sendall(b"6\r\npiece\n\r\n")
        # Not a tenth after the last: on a busy machine that would add up.
        time.sleep(max(0, begin + (number + 1) / 10 - time.monotonic()))
    connection.sendall(b"0\r\n\r\n")


def eat(mib):
    taken = bytearray()
    for _ in range(mib):
        taken += os.urandom(4096) * 256
    return f"took {len(taken) >> 20} MiB"


def one(connection, reader, first):
    method, target, _ = first.decode("latin-1").split(" ", 2)
    fields = {}
    while line := reader.readline(65536).strip():
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.lower()] = value.strip()
    size = int(fields.get("content-length", 0))
    body = reader.read(size) if size else b""
    if len(body) < size:
        return False
    below = target[len(ROUTE) :] if ROUTE != "/" else target
    verb, _, argument = below.strip("/").partition("?")
    if verb == "":
        respond(connection, VERSION)
    elif verb == "sleep":
        time.sleep(float(argument))
        respond(connection, VERSION)
    elif verb == "stream":
        stream(connection, float(argument))
    elif verb == "eat":
        respond(connection, eat(int(argument)))
    elif verb == "post" and method == "POST":
        identity = fields.get("x-id", "?")
        note(identity)
        respond(connection, f"{identity} {len(body)} {zlib.crc32(body)}")
    else:
        respond(connection, "no such verb", "404 Not Found")
    return fields.get("connection", "").lower() != "close"


def talk(connection):
    try:
        with connection, connection.makefile("rb") as reader:
            while first := reader.readline(65536):
                if not one(connection, reader, first):
                    return
    except (OSError, ValueError):
        pass


def main():
    # Deployed with a file "slow" beside it, it takes so many seconds before it answers at all.
    slow = HERE / "slow"
    if slow.exists():
        time.sleep(float(slow.read_text()))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sys.setswitchinterval(0.001)
    listener = socket.socket(fileno=3)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=talk, args=(connection,), daemon=True).start()


main()
