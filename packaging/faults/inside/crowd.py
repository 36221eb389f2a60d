#!/usr/bin/env python3
"""Clients that ask once and keep their connections: crowd.py --connections N --seconds S [--rate R]. Tells how many were accepted."""

import argparse
import resource
import select
import socket
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=8080)
parser.add_argument("--connections", type=int, required=True)
parser.add_argument("--seconds", type=float, required=True)
parser.add_argument("--rate", type=float, default=10_000, help="at most so many new ones in a second")
options = parser.parse_args()
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, options.connections + 100), hard))
begin = time.monotonic()
end = begin + options.seconds
poll = select.poll()
crowd = {}
failed = answered = closed = 0
while time.monotonic() < end:
    opened = len(crowd) + failed
    if opened < min(options.connections, (time.monotonic() - begin) * options.rate):
        connection = socket.socket()
        connection.settimeout(1)
        try:
            connection.connect((options.host, options.port))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: crowd\r\n\r\n")
            crowd[connection.fileno()] = connection
            poll.register(connection, select.POLLIN)
        except OSError:
            failed += 1
            connection.close()
        ready = poll.poll(0)
    else:
        ready = poll.poll(10)
    for descriptor, _ in ready:
        try:
            piece = crowd[descriptor].recv(65536)
        except OSError:
            piece = b""
        if piece:
            answered += 1
        else:
            closed += 1
            poll.unregister(descriptor)
            # Not opened again: its place is counted as failed.
            crowd.pop(descriptor).close()
            failed += 1
print(f"crowd of {options.connections}: {answered} answered, {closed} closed by the server, {failed - closed} not connected")
