"""Keeps captured pages as content-addressed files: the name is the SHA-256 of the bytes.

Guarantee: a file is there whole or not at all, and the same page again is the same file, so a task that runs twice
leaves one. The directory is `WORKER_TASKS_STORE`; without it a private one below the system's temporary directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

from worker_tasks.errors import StoreUnavailable

VARIABLE: Final = "WORKER_TASKS_STORE"


def keep(content: bytes) -> tuple[Path, str]:
    """Store `content` and return its path and SHA-256. Raises `StoreUnavailable`."""
    digest = hashlib.sha256(content).hexdigest()
    directory = _directory()
    path = directory / digest[:2] / digest
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (path.is_file() and path.stat().st_size == len(content)):
            _write(path, content)
    except OSError as error:
        raise StoreUnavailable(str(directory), error.strerror or type(error).__name__) from None
    return path, digest


def _write(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            # The client pays for a stored page: it must survive the machine's next second.
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _directory() -> Path:
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    default = Path(tempfile.gettempdir()) / f"worker-tasks-{os.getuid()}"
    try:
        default.mkdir(mode=0o700, exist_ok=True)
        if default.is_symlink() or default.stat().st_uid != os.getuid():
            # Anyone may make that name in a shared directory, and read what is put there.
            raise StoreUnavailable(str(default), "belongs to somebody else; name another directory")
    except OSError as error:
        raise StoreUnavailable(str(default), error.strerror or type(error).__name__) from None
    return default
