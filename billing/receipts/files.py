"""A file that is there whole or not at all: written beside its place, on disk, then renamed over an older one."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from billing.core.errors import InvalidValue


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """Within, text can be written that becomes the file at the end; an error leaves what was there before.

    Only its owner may read the file. Raises `InvalidValue` where no file can be: also for a directory or a device,
    which a rename would replace.
    """
    with whole_binary_file(path) as file:
        written = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        try:
            yield written
        finally:
            # Its text goes into the file, which is closed where it was opened; an error leaves it without.
            with contextlib.suppress(ValueError):
                written.detach()


@contextlib.contextmanager
def whole_binary_file(path: Path) -> Iterator[IO[bytes]]:
    """Within, bytes can be written that become the file at the end; else as `whole_file`."""
    if "\0" in str(path):
        raise InvalidValue("output", str(path), "must be the name of a file")
    target = Path(os.path.realpath(path))
    temporary = None
    try:
        _refuse_other_kinds(path, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:64]}.", dir=target.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        if isinstance(error, OSError):
            raise InvalidValue("output", str(path), f"cannot be written: {error.strerror or error}") from error
        raise


def _refuse_other_kinds(path: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(target.stat().st_mode):
            raise InvalidValue("output", str(path), "must be the name of a file, not of a directory or a device")
