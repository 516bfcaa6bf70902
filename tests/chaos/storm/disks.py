"""Small disks for the data of Valkey and PostgreSQL, which a storm fills up and frees again.

As root each is a tmpfs of its own; who is not root, or may not mount, has none, and those faults are left out.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

#: The sizes, by the name of the server's directory: PostgreSQL begins with 40 MB, and keeps up to 1 GB of its log.
SIZES: Final = {"valkey": "128m", "postgres": "1200m"}
_BALLAST: Final = "ballast"
_CHUNK: Final = 1_048_576


class Disks:
    """The disks below the servers' directory. Use it in a `with` block that ends after the servers."""

    def __init__(self, servers: Path) -> None:
        self._servers = servers
        self.mounted: list[str] = []

    def __enter__(self) -> Self:
        """Mount what may be mounted."""
        for name, size in SIZES.items():
            place = self._servers / name
            place.mkdir(mode=0o700)
            command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", place]
            if os.geteuid() == 0 and not subprocess.run(command, capture_output=True, check=False).returncode:
                self.mounted.append(name)
        return self

    def __exit__(self, *_: object) -> None:
        """Unmount them, what lies there is gone."""
        for name in self.mounted:
            subprocess.run(["umount", "-l", self._servers / name], capture_output=True, check=False)

    def has(self, name: str, data: Path) -> bool:
        """Whether a server's data lie on a small disk."""
        return name in self.mounted and data.resolve().is_relative_to((self._servers / name).resolve())

    @contextmanager
    def full(self, name: str) -> Iterator[None]:
        """Fill a disk to its last byte, for as long as the block lasts."""
        ballast = self._servers / name / _BALLAST
        try:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                for size in (_CHUNK, 4_096):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(bytes(size))
            yield
        finally:
            ballast.unlink(missing_ok=True)
