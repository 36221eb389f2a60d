"""Autobahn's cases against an echo worker, directly and through the proxy: websocket.py DIRECTORY HOST:PORT WORKER [CASE...].

The cases are run by kosoku, which drives Autobahn's own files on Python 3. Exits 1 if a case ends in another way through the proxy than
it does directly.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time


def run(directory, name, address, cases):
    reports = pathlib.Path(directory) / "websocket-reports" / name
    shutil.rmtree(reports, ignore_errors=True)
    command = [pathlib.Path(sys.executable).parent / "kosoku", "-m", "fuzzingclient", "-p", "4", "-o", reports]
    for case in cases:
        command += ["-i", case]
    with open(f"{directory}/websocket-{name}.log", "w") as log:
        subprocess.run(command + [address], stdout=log, stderr=subprocess.STDOUT, timeout=1500)
    [report] = json.loads((reports / "index.json").read_text()).values()
    return {case: (found["behavior"], found["behaviorClose"]) for case, found in report.items()}


def beside(worker):
    """The same echo, without a proxy before it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, worker], env=os.environ | {"PORT": str(port)})
    while process.poll() is None:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    return process, f"127.0.0.1:{port}"


def main():
    directory, proxy, worker, *cases = sys.argv[1:]
    process, direct = beside(worker)
    try:
        directly = run(directory, "direct", direct, cases)
    finally:
        process.terminate()
        process.wait()
    through = run(directory, "proxy", f"ws://{proxy}/echo", cases)
    kinds = {}
    for behavior, _ in through.values():
        kinds[behavior] = kinds.get(behavior, 0) + 1
    print("  through the proxy:", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    other = [case for case in sorted(directly.keys() | through.keys()) if directly.get(case) != through.get(case)]
    for case in other:
        print(f"  {case}: {directly.get(case)} directly, {through.get(case)} through the proxy")
    print(f"  {len(through) - len(other)} as without the proxy, {len(other)} not")
    return 1 if other or not through else 0


if __name__ == "__main__":
    sys.exit(main())
