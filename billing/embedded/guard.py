"""Own one child process and end it, with all that it started, when the owner is gone.

Guarantee: when the owner ends in any way (SIGKILL included), when the child ends, or when one half of the guard is
killed, no descendant of the child is left. Run as a script, on the standard library alone, in a session of its own, so
that a terminal's Ctrl-C does not reach the child before its owner has decided on an order. It refuses nothing: what the
child does while its owner lives is the child's business.

The guard is two processes. The *outer* half watches the owner; the *inner* half starts the child, passes signals on,
reaps strays. Each watches the other, so that either of them may be killed. On Linux both are subreapers: what a child
detaches (a daemon, an orphaned pool process) becomes their child instead of init's, and is found. Elsewhere the child's
process group is what is ended.

    owner ──socket──► outer ──pipe──► inner ──► child ──► …
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import NoReturn

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
KILL = b"K"  # the owner's order to end the child's whole tree at once
NOTHING = b"-"
GONE = b""  # end of file: whoever held the other end has died
OWNER_POLL_SECONDS = 1.0  # backstop: a fork of the owner that runs no other program keeps the socket open
REAP_LIMIT_SECONDS = 10.0  # a killed process can hang in the kernel (a dead disk): then the guard gives up
CANNOT_START = 127
CANNOT_FIND_OWNER = 125

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> int:
    """Run `SOCKET OWNER GRACE STOP_SIGNAL UID GID -- COMMAND…`; the exit code is the child's, or 128 + its signal."""
    socket, owner, grace, stop_signal, uid, gid = arguments[:6]
    command = arguments[7:]
    if os.getppid() != int(owner):
        return CANNOT_FIND_OWNER
    wakeup = _listen()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    pipe_read, pipe_write = os.pipe()
    inner = os.fork()
    if inner == 0:
        os.close(pipe_write)
        wakeup = _listen()  # an own wake-up pipe: a shared one would hand one half's signals to the other
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        child = _start(command, int(uid), int(gid))
        with contextlib.suppress(OSError):
            os.write(int(socket), b"%d\n" % child)
        os.close(int(socket))
        os._exit(_inner(child, pipe_read, wakeup, float(grace), int(stop_signal)))
    os.close(pipe_read)
    return _outer(inner, int(socket), pipe_write, wakeup, int(owner))


def _outer(inner: int, socket: int, pipe: int, wakeup: int, owner: int) -> int:
    """Tell the inner half when the owner is gone; when the inner half is gone, end what it left."""
    watched = {socket, wakeup}
    while True:
        ready = select.select(list(watched), [], [], OWNER_POLL_SECONDS)[0]
        for number in _signals(wakeup) if wakeup in ready else b"":
            if number in FORWARDED:
                _kill(inner, number)
        orders = _orders(socket) if socket in ready else NOTHING
        if KILL in orders:
            with contextlib.suppress(OSError):
                os.write(pipe, KILL)
        if socket in watched and (orders == GONE or os.getppid() != owner):
            watched.discard(socket)
            os.close(pipe)
        code = _reap(inner)
        if code is not None:
            _end_descendants()
            return code


def _inner(child: int, pipe: int, wakeup: int, grace: float, stop_signal: int) -> int:
    """Pass signals on until the child ends; end it when the outer half is gone or says so; leave nothing behind."""
    watched = {pipe, wakeup}
    deadline: float | None = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = select.select(list(watched), [], [], left)[0]
        code = _reap(child)
        if code is not None:
            break
        for number in _signals(wakeup) if wakeup in ready else b"":
            if number in FORWARDED:
                _kill(child, number)
        orders = _orders(pipe) if pipe in ready else NOTHING
        if orders == GONE:
            watched.discard(pipe)
            _kill(child, stop_signal)
            deadline = time.monotonic() + grace
        if KILL in orders or (deadline is not None and time.monotonic() >= deadline):
            code = 128 + signal.SIGKILL
            break
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)  # the child leads its group; the group outlives it where there is no subreaper
    _end_descendants()
    return code


def _start(command: list[str], uid: int, gid: int) -> int:
    """Start the child in its own session, as `uid` unless that is -1; Linux kills it if the inner half dies."""
    guard = os.getpid()
    signal.pthread_sigmask(
        signal.SIG_BLOCK, FORWARDED
    )  # a signal that comes between fork and exec waits, and is not lost
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        return child
    try:
        os.setsid()
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after setuid, which clears it
        if os.getppid() != guard:
            os._exit(CANNOT_FIND_OWNER)
        signal.set_wakeup_fd(-1)
        for number in (*FORWARDED, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.closerange(3, 1024)
        os.execvpe(command[0], command, os.environ)  # noqa: S606 - a fixed argument list, no shell
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    os._exit(CANNOT_START)


def _listen() -> int:
    """Turn signals into bytes on a descriptor, which `select` can wait for."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (*FORWARDED, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return read


def _orders(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 16)
    except ConnectionResetError:
        return GONE


def _signals(wakeup: int) -> bytes:
    try:
        return os.read(wakeup, 512)
    except BlockingIOError:
        return b""


def _reap(pid: int) -> int | None:
    """Collect every ended child; return the exit code of `pid` if it was among them."""
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if ended == 0:
            return code
        if ended == pid:
            result = os.waitstatus_to_exitcode(status)
            code = result if result >= 0 else 128 - result


def _end_descendants() -> None:
    """Kill until this process has no child left: a subreaper's orphans come back to it, so none can hide. Bounded."""
    deadline = time.monotonic() + REAP_LIMIT_SECONDS
    while time.monotonic() < deadline:
        _reap(-1)
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        for pid in _descendants():
            _kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _descendants() -> list[int]:
    """Every process below this one (Linux; elsewhere none is listed and the group's end has to do)."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if sys.platform == "linux" else []:  # noqa: PTH208 - pathlib is slow to import
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123 - as above
                parent = int(stat.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found, pending = [], [os.getpid()]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    """Ask Linux for a process option; elsewhere there is none, and the pipes alone carry the guarantee."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - not needed, and slower to load, elsewhere

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _run() -> NoReturn:
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    _run()
