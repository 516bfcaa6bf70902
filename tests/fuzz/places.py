"""Where a target writes what it reads as a file: in memory where the system has such a place, gone at the end."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path


def fresh_place() -> Path:
    """Return a new directory of this process."""
    memory = Path("/dev/shm")  # noqa: S108 - the name within is a fresh one
    made = tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(functools.partial(shutil.rmtree, made, ignore_errors=True))
    return Path(made)
