#!/usr/bin/env python3
"""Does harm to a process, and notes when: the moments by which verdict.py tells which requests were in it.

    moment.py FILE kill PID [SIGNAL]        sends it, and waits for the end of the process
    moment.py FILE freeze PID SECONDS       stops it, for so long at most; then lets it go on. Prints "died" or "went on", and seconds
    moment.py FILE watch UNIT               notes the end of each main process of a unit, until SIGTERM
    moment.py FILE outage begin|end         from here, to here, nobody is there to serve: requests that begin then may be refused

A moment is a line of JSON, with times of CLOCK_MONOTONIC. A death lies between "from" and "to".
"""

import json
import os
import select
import signal
import subprocess
import sys
import time

# A death that was only observed happened at most so long before: a poll, and the clearing up of a process.
OBSERVED = 0.25
# Longest wait for a process that was killed.
DYING = 30


def note(path, **moment):
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(moment) + "\n")


def ended(handle, seconds):
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def kill(path, pid, name="KILL"):
    handle = os.pidfd_open(int(pid))
    begin = time.monotonic()
    signal.pidfd_send_signal(handle, getattr(signal, f"SIG{name}"))
    if not ended(handle, DYING):
        sys.exit(f"{pid} is still there {DYING} s after SIG{name}")
    note(path, what="death", **{"from": begin, "to": time.monotonic()})


def freeze(path, pid, seconds):
    handle = os.pidfd_open(int(pid))
    begin = time.monotonic()
    signal.pidfd_send_signal(handle, signal.SIGSTOP)
    try:
        died = ended(handle, float(seconds))
    finally:
        try:
            signal.pidfd_send_signal(handle, signal.SIGCONT)
        except ProcessLookupError:
            pass
    end = time.monotonic()
    if died:
        note(path, what="death", frozen=begin, **{"from": max(begin, end - OBSERVED), "to": end})
    print("died" if died else "went on", f"{end - begin:.2f}", flush=True)


def main_pid(unit):
    shown = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", unit], stdout=subprocess.PIPE, text=True, check=False
    )
    return int(shown.stdout.strip() or 0)


def watch(path, unit):
    while True:
        pid = main_pid(unit)
        try:
            handle = os.pidfd_open(pid) if pid else None
        except OSError:
            handle = None
        if handle is None:
            time.sleep(0.02)
            continue
        while not ended(handle, 3600):
            pass
        end = time.monotonic()
        os.close(handle)
        note(path, what="death", **{"from": end - OBSERVED, "to": end})


def outage(path, edge):
    note(path, what="outage", edge=edge, at=time.monotonic())


def main():
    path, verb, *rest = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    {"kill": kill, "freeze": freeze, "watch": watch, "outage": outage}[verb](path, *rest)


main()
