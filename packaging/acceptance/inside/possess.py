"""What a process could do if it were taken over: system calls made inside it, one attempt a line, "allowed ..." or "refused ...".

    possess.py PID < ATTEMPTS

The process is a running one with all that stands around it, filters of its own included; a debugger's means (ptrace(2)) make one of its
threads do a call, and put everything back. An attempt is a line NAME|CALL|ARGUMENT..., where an argument is a number, or text with a '/'
or an '@' in it; a text that begins with "unix:" is the address of a socket. What a call answers with a descriptor is closed again, and
what it made is left to the caller to find. A call that the process can make and that fails for what it was asked (ENOENT, EINVAL) is
told by its error, as "failed".
"""

import ctypes
import errno
import os
import platform
import signal
import struct
import sys

CALLS = {
    "openat": 257, "socket": 41, "connect": 42, "kill": 62, "ptrace": 101, "setuid": 105, "unlink": 87, "rename": 82, "mkdir": 83,
    "mount": 165, "unshare": 272, "bpf": 321, "io_uring_setup": 425, "add_key": 248, "request_key": 249, "keyctl": 250, "close": 3,
    "mmap": 9, "symlink": 88, "chmod": 90, "prlimit64": 302, "pidfd_open": 434, "init_module": 175, "sethostname": 170, "bind": 49,
    "settimeofday": 164, "sched_setaffinity": 203, "setpriority": 141,
}  # fmt: skip
DESCRIPTORS = {"openat", "socket", "pidfd_open", "io_uring_setup"}
FIELDS = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs".split()
PASSED = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
SINGLESTEP, GETREGS, SETREGS, DETACH, SEIZE, INTERRUPT = 9, 12, 13, 17, 0x4206, 0x4207
# Whatever of the kernel or of a filter says no.
NO = {errno.EPERM, errno.EACCES, errno.EROFS, errno.EAFNOSUPPORT, errno.ENOSYS, errno.EPROTONOSUPPORT}
# What is hidden is not there.
HIDDEN = {errno.ENOENT, errno.ESRCH, errno.ENOTDIR}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, pid, address=None, data=None):
    if libc.ptrace(request, pid, address, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace {request}: {os.strerror(error)}")


class Thread:
    """A thread that is stopped in a system call."""

    def __init__(self, pid):
        self.pid = pid
        self.memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        ptrace(SEIZE, pid)
        ptrace(INTERRUPT, pid)
        os.waitpid(pid, 0x40000000)  # __WALL
        self.before = self.registers()
        self.instruction = self.before["rip"] - 2
        if os.pread(self.memory, 2, self.instruction) != b"\x0f\x05":
            self.leave()
            raise LookupError("not in a system call")

    def registers(self):
        buffer = ctypes.create_string_buffer(len(FIELDS) * 8)
        ptrace(GETREGS, self.pid, None, ctypes.addressof(buffer))
        return dict(zip(FIELDS, struct.unpack(f"{len(FIELDS)}Q", buffer.raw), strict=True))

    def set_registers(self, registers):
        buffer = ctypes.create_string_buffer(struct.pack(f"{len(FIELDS)}Q", *(registers[field] for field in FIELDS)))
        ptrace(SETREGS, self.pid, None, ctypes.addressof(buffer))

    def call(self, number, arguments):
        # Below what the thread has on its stack, the red zone included.
        place = (self.before["rsp"] - 2048) & ~15
        registers = dict(self.before, rax=number, orig_rax=2**64 - 1, rip=self.instruction)
        for name, value in zip(PASSED, arguments, strict=False):
            if isinstance(value, bytes):
                os.pwrite(self.memory, value, place)
                value, place = place, (place + len(value) + 15) & ~15
            registers[name] = value % 2**64
        self.set_registers(registers)
        ptrace(SINGLESTEP, self.pid)
        os.waitpid(self.pid, 0x40000000)
        result = self.registers()["rax"]
        return result - 2**64 if result >= 2**63 else result

    def leave(self):
        self.set_registers(self.before)
        ptrace(DETACH, self.pid)
        os.close(self.memory)


def arguments(words):
    values = []
    for word in words:
        if word.startswith("unix:"):
            path = word[5:].encode()
            values += [struct.pack("H", 1) + path + b"\0", 2 + len(path) + 1]
        elif "/" in word or "@" in word:
            values.append(word.encode() + b"\0")
        else:
            values.append(int(word, 0))
    return values


def attempt(thread, name, call, *words):
    values = arguments(words)
    opened = -1
    if call == "connect":
        opened = thread.call(CALLS["socket"], [1, 1 | 0o4000, 0])
        if opened < 0:
            return f"refused {name} (socket: {os.strerror(-opened)})"
        values = [opened, *values]
    result = thread.call(CALLS[call], values)
    if opened >= 0:
        thread.call(CALLS["close"], [opened])
    if result >= 0 and call in DESCRIPTORS:
        thread.call(CALLS["close"], [result])
    if result >= 0:
        return f"allowed {name}"
    word = "refused" if -result in NO | HIDDEN else "failed"
    return f"{word} {name} ({os.strerror(-result)})"


def main():
    if platform.machine() != "x86_64":
        print("skipped: only for x86_64")
        return
    pid = int(sys.argv[1])
    lines = [line.strip().split("|") for line in sys.stdin if line.strip()]
    for _ in range(200):
        try:
            thread = Thread(pid)
            break
        except LookupError:
            continue
    else:
        sys.exit("the process is never in a system call")
    signal.alarm(20)
    try:
        for line in lines:
            print(attempt(thread, *line), flush=True)
    finally:
        thread.leave()


main()
