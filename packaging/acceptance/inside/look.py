"""What can be reached from here: one attempt a line, "allowed ..." or "refused ...". Runs in a worker and in the proxy's sandbox.

Attempts with "own" in their name are those that have to be allowed.
"""

import ctypes
import errno
import glob
import os
import pathlib
import platform
import socket


def attempt(name, deed):
    try:
        deed()
    except Exception as error:  # whatever stops it
        return f"refused {name} ({type(error).__name__}: {error})"
    return f"allowed {name}"


def connect(kind, path):
    def deed():
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.settimeout(5)
            probe.connect(path)

    return deed


def read_any(pattern):
    """Fails unless one file that matches can be read."""

    def deed():
        found = glob.glob(pattern, include_hidden=True)
        if not found:
            raise FileNotFoundError("nothing there")
        errors = []
        for path in found:
            try:
                if os.path.isdir(path):
                    if not os.listdir(path):
                        errors.append(f"{path} is empty")
                        continue
                else:
                    pathlib.Path(path).read_bytes()
                return
            except OSError as error:
                errors.append(str(error))
        raise PermissionError("; ".join(errors[:3]))

    return deed


def strange_processes():
    """Fails unless a process can be seen that is neither ours nor our child."""
    own = {os.getpid(), os.getppid()}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in own:
            status = pathlib.Path(f"/proc/{entry}/status").read_text()
            if f"Uid:\t{os.getuid()}\t" not in status:
                return
    raise LookupError("only processes of our own")


def signal_init():
    os.kill(1, 0)


def of_process(pid):
    """What can be done to a process whose number is known, as numbers can be guessed."""

    def environment():
        pathlib.Path(f"/proc/{pid}/environ").read_bytes()

    def memory():
        open(f"/proc/{pid}/mem", "rb").close()

    def trace():
        libc = ctypes.CDLL(None, use_errno=True)
        # PTRACE_SEIZE
        if libc.ptrace(ctypes.c_long(0x4206), ctypes.c_long(int(pid)), None, None) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def bound():
        import resource

        resource.prlimit(int(pid), resource.RLIMIT_NOFILE)

    return [
        attempt(f"signalling process {pid}", lambda: os.kill(int(pid), 0)),
        attempt(f"reading the environment of process {pid}", environment),
        attempt(f"reading the memory of process {pid}", memory),
        attempt(f"tracing process {pid}", trace),
        attempt(f"reading the limits of process {pid}", bound),
        attempt(f"slowing process {pid} down", lambda: os.setpriority(os.PRIO_PROCESS, int(pid), 19)),
        attempt(f"moving process {pid}", lambda: os.sched_setaffinity(int(pid), {0})),
    ]


def shared_memory(key):
    """System V's, which has no place in the file system."""

    def deed():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.shmget(key, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "shmget")

    return deed


def leave(key):
    """Leaves what others would find if they had this in common: in /tmp, in /dev/shm and in System V's memory, for everybody."""
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        path = pathlib.Path(place) / f"left-{key}"
        path.write_text("left")
        path.chmod(0o666)
    if ctypes.CDLL(None).shmget(key, 4096, 0o1666) < 0:
        raise OSError("shmget")
    return "left"


def secrets_of_others():
    """Fails unless there are credentials of a unit that is not this one."""
    own = os.environ.get("CREDENTIALS_DIRECTORY", "")
    for place in ("/run/credentials", "/run/credstore", "/etc/credstore"):
        for directory in glob.glob(f"{place}/*"):
            if directory != own and os.listdir(directory):
                return
    raise FileNotFoundError("none that is another's")


def write_control_group():
    """A control group of another is anything that is not below one's own."""
    errors = []
    for pattern in ("", "*/"):
        for path in glob.glob(f"/sys/fs/cgroup/{pattern}tqserver.slice/**/cgroup.procs", recursive=True):
            try:
                open(path, "w").close()
                return
            except OSError as error:
                errors.append(str(error))
    raise PermissionError("; ".join(errors[:2]) or "none to be seen")


def call(number, *arguments):
    """A system call for which Python has no name."""

    def deed():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(ctypes.c_long(number), *arguments) < 0:
            error = ctypes.get_errno()
            # With nonsense for arguments the kernel itself has another complaint than a filter's.
            if error in (errno.EPERM, errno.ENOSYS):
                raise OSError(error, os.strerror(error))

    return deed


def netlink(protocol):
    return lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()


# By the processor, for those that have different numbers (syscalls(2)).
KEYRINGS = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}
NETLINK = {"sock_diag": 4, "audit": 9, "netfilter": 12, "device events": 15, "generic": 16, "crypto": 21}


def policy(name, priority):
    return lambda: os.sched_setscheduler(0, getattr(os, name), os.sched_param(priority))


def kernel():
    lines = [attempt("setting up io_uring", call(425, 1, None))]
    for name, number in zip(("add_key", "request_key", "keyctl"), KEYRINGS[platform.machine()], strict=True):
        lines.append(attempt(f"calling {name}", call(number, 0, 0, 0, 0, 0)))
    for name, number in NETLINK.items():
        lines.append(attempt(f"opening netlink for {name}", netlink(number)))
    return lines


def report(other="beta"):
    here = pathlib.Path(__file__).resolve().parent
    me = os.environ.get("WORKER_NAME", "")
    lines = [
        attempt("reading a secret of the server", read_any("/etc/tqserver/*")),
        attempt("listing the secrets", lambda: os.listdir("/etc/tqserver")),
        attempt(f"reading the snapshot of {other}", read_any(f"/var/lib/tqserver/.snapshots/{other}/*")),
        attempt("reading the public files of snapshots", read_any(f"/var/lib/tqserver/.public/{other}/*")),
        attempt(f"reading the state of {other}", read_any(f"/var/lib/tqserver/{other}/*")),
        attempt(f"reading the private state of {other}", read_any(f"/var/lib/private/tqserver/{other}/*")),
        attempt(f"reading the deployed files of {other}", read_any(f"/srv/tqserver/workers/{other}/*")),
        attempt("listing the sockets of workers", read_any("/run/tqserver")),
        attempt("listing the unix sockets of the proxy", read_any("/run/tqserver-proxy")),
        attempt("connecting to the manager's link", connect(socket.SOCK_STREAM, "/run/tqserver/link.sock")),
        attempt("connecting to the system bus", connect(socket.SOCK_STREAM, "/run/dbus/system_bus_socket")),
        attempt("connecting to systemd", connect(socket.SOCK_STREAM, "/run/systemd/private")),
        attempt("connecting to the journal's native socket", connect(socket.SOCK_DGRAM, "/run/systemd/journal/socket")),
        attempt("connecting to systemd's notifications", connect(socket.SOCK_DGRAM, "/run/systemd/notify")),
        attempt("reading what units are made of", lambda: os.listdir("/run/systemd/transient")),
        attempt("reading the journal", read_any("/var/log/journal/*/*")),
        attempt("reading the journal of this boot", read_any("/run/log/journal/*/*")),
        attempt("reading secrets of other units", secrets_of_others),
        attempt("writing to control groups", write_control_group),
        attempt(f"writing to the deployed files of {other}", lambda: pathlib.Path(f"/srv/tqserver/workers/{other}/intruder").write_text("x")),
        attempt(f"writing to the state of {other}", lambda: pathlib.Path(f"/var/lib/private/tqserver/{other}/intruder").write_text("x")),
        attempt("making a socket where those of workers are", lambda: pathlib.Path("/run/tqserver/intruder").write_text("x")),
        attempt("seeing processes of others", strange_processes),
        attempt("signalling PID 1", signal_init),
        attempt("writing to its snapshot", lambda: (here / "intruder").write_text("x")),
        attempt("changing its program", lambda: (here / "main.py").open("a").close()),
        attempt("writing to /etc", lambda: pathlib.Path("/etc/intruder").write_text("x")),
        attempt("writing to /usr", lambda: pathlib.Path("/usr/intruder").write_text("x")),
        attempt("becoming root", lambda: os.setuid(0)),
        attempt("making a name space", lambda: os.unshare(os.CLONE_NEWUSER) if hasattr(os, "unshare") else 1 / 0),
    ]
    # The names of sockets come from outside, as they can not be listed from here.
    for path in os.environ.get("LOOK_SOCKETS", "").split():
        lines.append(attempt(f"connecting to {path}", connect(socket.SOCK_STREAM, path)))
    for pid in os.environ.get("LOOK_PIDS", "").split():
        lines += of_process(pid)
    # What another has left, see leave().
    if key := os.environ.get("LOOK_KEY"):
        for place in ("/tmp", "/var/tmp", "/dev/shm"):
            lines.append(attempt(f"reading what {other} left in {place}", read_any(f"{place}/left-{key}")))
        lines.append(attempt(f"sharing memory with {other}", shared_memory(int(key))))
    lines += kernel()
    if me:
        state = pathlib.Path(os.environ.get("STATE_DIRECTORY", "/nonexistent"))
        lines.append(attempt("asking netlink for its own machine's addresses", netlink(0)))
        lines.append(attempt("reading its own program", lambda: (here / "main.py").read_bytes()))
        lines.append(attempt("writing its own state", lambda: (state / "kept").write_text("kept")))
        lines.append(attempt("writing at its own home", lambda: pathlib.Path("~/kept").expanduser().write_text("kept")))
        lines.append(attempt("setting the policy of its own threads", policy("SCHED_OTHER", 0)))
        lines.append(attempt("becoming realtime", policy("SCHED_FIFO", 1)))
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
