"""Whether a word stands anywhere in the memory of a process: memory.py PID WORD. Prints "found" or "not found"."""

import os
import re
import signal
import sys


def regions(pid):
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            first, last, rights = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line).groups()
            # What is shown by the kernel itself has no content to read.
            if rights.startswith("rw") and "[v" not in line:
                yield int(first, 16), int(last, 16)


def has(pid, word):
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for first, last in regions(pid):
            memory.seek(first)
            rest = b""
            while first < last:
                try:
                    piece = memory.read(min(last - first, 1 << 20))
                except OSError:  # a file that is mapped beyond its end
                    break
                if not piece:
                    break
                if word in rest + piece:
                    return True
                rest, first = piece[-len(word) :], first + len(piece)
    return False


def main():
    pid, word = int(sys.argv[1]), sys.argv[2].encode()
    # Nothing moves meanwhile.
    os.kill(pid, signal.SIGSTOP)
    try:
        print("found" if has(pid, word) else "not found")
    finally:
        os.kill(pid, signal.SIGCONT)


main()
