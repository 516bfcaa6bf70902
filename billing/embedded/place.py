"""Where a stack keeps its files: a directory given by the user, kept, or a temporary one, removed.

Guarantee: one stack per directory at a time. The lock is held by the stack and by the guards of its servers, so it is
free only when nothing of the stack is left, even after SIGKILL. Temporary directories that a killed stack left behind
are removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from billing.core.errors import Fatal
from billing.core.processes import is_alive

PREFIX: Final = "celery-billing-stack-"
LOCK: Final = "lock"
ENDING_SECONDS: Final = 15.0  # how long the servers of a killed stack may take to end
SWEEP_AGE_SECONDS: Final = 60.0


class Place:
    """A locked directory. `descriptor` is the lock, for the guards to hold."""

    def __init__(self, directory: Path | None) -> None:
        self.temporary = directory is None
        if directory is None:
            _sweep()
            self.directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        else:
            self.directory = directory.absolute()
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self.directory.chmod(0o711)  # PostgreSQL's user passes through; every directory below has its own mode
        self.descriptor = _lock(self.directory)

    def close(self) -> None:
        """Release the directory; a temporary one is removed. Safe to repeat."""
        if self.descriptor < 0:
            return
        if self.temporary:
            shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self.descriptor)
        self.descriptor = -1


def _lock(directory: Path) -> int:
    """Take the lock, or say who has it. A dead stack's servers get the time to end that their guards give them."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + ENDING_SECONDS
    while not _try_lock(descriptor):
        owner = os.pread(descriptor, 32, 0).strip().decode() or "unknown"
        if (owner.isdigit() and is_alive(int(owner))) or time.monotonic() > deadline:
            os.close(descriptor)
            raise Fatal(f"{directory}: an embedded stack is already running there (process {owner})")
        time.sleep(0.1)
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep() -> None:
    """Remove our own temporary directories that no stack holds any more."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = directory / LOCK
            status = lock.lstat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < SWEEP_AGE_SECONDS:
                continue
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if _try_lock(descriptor):
                    shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)
