"""Runs commands for the host of an emulated machine: one at a time, each a line of JSON on a serial port.

Asked:    {"id": ..., "command": [...], "input": base64}
Answered: {"id": ..., "output": base64} as it comes (both streams in one), then {"id": ..., "status": number}
"""

import base64
import json
import os
import subprocess
import sys
import time

PORTS = ("/dev/virtio-ports/acceptance", "/dev/vport0p1", "/dev/vport1p1")
LONGEST_LINE = 64 << 20


def open_port():
    """The port, as soon as the kernel has made it."""
    for _ in range(600):
        for path in PORTS:
            if os.path.exists(path):
                return os.open(path, os.O_RDWR)
        time.sleep(0.1)
    sys.exit("no serial port for the agent: " + ", ".join(PORTS))


def lines(port):
    """The lines that arrive. Nobody on the other side reads as the end of the file: then there is nothing to do but look again."""
    pending = b""
    while True:
        piece = os.read(port, 65536)
        if not piece:
            pending = b""
            time.sleep(0.1)
            continue
        pending += piece
        if len(pending) > LONGEST_LINE:
            pending = b""
        *complete, pending = pending.split(b"\n")
        yield from complete


def answer(port, identity, **rest):
    data = json.dumps({"id": identity, **rest}).encode() + b"\n"
    while data:
        data = data[os.write(port, data) :]


def run(port, identity, command, given):
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        ) as process:
            try:
                process.stdin.write(given)
                process.stdin.close()
            except BrokenPipeError:
                pass
            # A process left in the background may hold the pipe; who starts one gives it an output of its own.
            while piece := os.read(process.stdout.fileno(), 32768):
                answer(port, identity, output=base64.b64encode(piece).decode())
        status = process.returncode
        answer(port, identity, status=status if status >= 0 else 128 - status)
    except OSError as error:
        answer(port, identity, output=base64.b64encode(f"{error}\n".encode()).decode())
        answer(port, identity, status=127)


def main():
    port = open_port()
    for line in lines(port):
        try:
            request = json.loads(line)
            asked = request["id"], request["command"], base64.b64decode(request.get("input", ""))
        except (ValueError, KeyError, TypeError):
            # Half a line, of a host that went away while it wrote.
            continue
        run(port, *asked)


main()
