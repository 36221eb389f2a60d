"""Runs one command in an emulated machine through its agent: channel.py DIRECTORY COMMAND...

What is on standard input, unless it is a terminal, goes to the command. Output and status are the command's; 255 says that the machine
did not answer.
"""

import base64
import json
import os
import socket
import sys
import uuid

# Longest silence: no step says nothing for so long.
SILENCE = float(os.environ.get("TQ_CHANNEL_SILENCE", "900"))


def main():
    directory, command = sys.argv[1], sys.argv[2:]
    given = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    identity = uuid.uuid4().hex
    # The path of a unix socket has a limit.
    os.chdir(directory)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SILENCE)
    try:
        connection.connect("channel")
        request = {"id": identity, "command": command, "input": base64.b64encode(given).decode()}
        # A line end first: it ends what an earlier host may have left half written.
        connection.sendall(b"\n" + json.dumps(request).encode() + b"\n")
        for line in connection.makefile("rb"):
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            # Answers to a host that went away are none of ours.
            if answer.get("id") != identity:
                continue
            if "status" in answer:
                return answer["status"]
            sys.stdout.buffer.write(base64.b64decode(answer["output"]))
            sys.stdout.buffer.flush()
    except OSError as error:
        print(f"channel: {error}", file=sys.stderr)
    return 255


sys.exit(main())
