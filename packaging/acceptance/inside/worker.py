"""A worker of the acceptance suite: says its version, and does on request what a worker may do, or may not.

Everything is below its route: /NAME is the version, /NAME/VERB?ARGUMENT one of the functions below. It begins to listen at once; with a
file "behaviour" beside it, it is broken in a certain way.
"""

import os
import pathlib
import signal
import socket
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
NAME = os.environ.get("WORKER_NAME", "?")
ROUTE = os.environ.get("WORKER_ROUTE", "/")
active = threading.Semaphore(0)
leaving = threading.Event()


def version():
    return (HERE / "version").read_text().strip()


VERSION = version()


def tell_env(name):
    return os.environ.get(name, "(not set)")


def tell_pid(_):
    return str(os.getpid())


def tell_user(_):
    import pwd

    return f"{os.getuid()} {pwd.getpwuid(os.getuid()).pw_name}"


def tell_secret(name):
    return (pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"]) / name).read_text()


def tell_see(_):
    """All that it can reach, one attempt a line: see look.py."""
    sys.path.insert(0, str(HERE))
    import look

    return look.report()


def do_leave(key):
    """Leaves what other workers must not find: see look.py."""
    sys.path.insert(0, str(HERE))
    import look

    return look.leave(int(key))


def do_log(text):
    from urllib.parse import unquote

    print(unquote(text), flush=True)
    return "logged"


def do_write(text):
    """Counts in its state directory, which all generations share."""
    place = pathlib.Path(os.environ["STATE_DIRECTORY"]) / "kept"
    if text:
        place.write_text(text)
    return place.read_text() if place.exists() else "(nothing)"


def do_store(text):
    """Stores a file where the proxy serves it, and beside it a way to one that is its own."""
    state = pathlib.Path(os.environ["STATE_DIRECTORY"])
    (state / "media" / "sub").mkdir(exist_ok=True)
    (state / "media" / "sub" / "a.txt").write_text(text)
    own = state / "media" / "own"
    if not own.is_symlink():
        own.symlink_to("../kept")
    return "stored"


def do_update(text):
    """Changes one of its own files, as a program does that updates itself; says what it was."""
    place = HERE / "plugins" / "one"
    before = place.read_text()
    place.write_text(text or before)
    return before


def do_eat(mib):
    """Takes memory, and touches it."""
    taken = bytearray()
    for _ in range(int(mib)):
        taken += os.urandom(4096) * 256
    return f"took {len(taken) >> 20} MiB"


def do_burn(seconds):
    """Keeps two cores busy: processes, as threads of Python share one. Answers the processor time they got."""
    import time

    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            end = time.monotonic() + float(seconds)
            while time.monotonic() < end:
                pass
            os._exit(0)
        children.append(child)
    used = 0.0
    for child in children:
        _, _, usage = os.wait4(child, 0)
        used += usage.ru_utime + usage.ru_stime
    return f"{used:.2f}"


def do_sleep(seconds):
    import time

    time.sleep(float(seconds))
    return f"{VERSION} slept"


def do_exit(code):
    os._exit(int(code))


VERBS = {
    key.partition("_")[2]: function
    for key, function in list(globals().items())
    if key.startswith(("tell_", "do_")) and callable(function)
}


def answer(path):
    below = path[len(ROUTE) :] if ROUTE != "/" else path
    verb, _, argument = below.strip("/").partition("?")
    if not verb:
        return 200, VERSION
    if verb not in VERBS:
        return 404, f"no such verb: {verb}"
    try:
        return 200, VERBS[verb](argument)
    except Exception as error:  # told to who asked
        return 500, f"{type(error).__name__}: {error}"


def talk(connection):
    with connection, connection.makefile("rb") as reader:
        while first := reader.readline(65536):
            close = False
            while (line := reader.readline(65536)) not in (b"\r\n", b"\n", b""):
                close = close or line.lower().replace(b" ", b"").strip() == b"connection:close"
            status, text = answer(first.split(b" ")[1].decode())
            body = (str(text) + "\n").encode()
            word = {200: "OK", 404: "Not Found"}.get(status, "Internal Server Error")
            head = f"HTTP/1.1 {status} {word}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            if close:
                return


def serve(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=guarded, args=(connection,), daemon=True).start()


def guarded(connection):
    try:
        talk(connection)
    except (OSError, IndexError):
        pass


def main():
    behaviour = HERE / "behaviour"
    word = behaviour.read_text().strip() if behaviour.exists() else ""
    print(f"{NAME} {VERSION} starts", flush=True)
    if word == "crash":
        print("the acceptance suite broke this worker on purpose", flush=True)
        sys.exit(7)
    if word == "hang":
        signal.pause()
    if word == "sick":
        globals()["VERBS"].clear()
        globals()["answer"] = lambda _: (500, "sick on purpose")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listener = socket.socket(fileno=3)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    while True:
        signal.pause()


main()
