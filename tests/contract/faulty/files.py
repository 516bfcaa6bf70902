"""A server's append-only files, which lose their end: as after a power cut, or a crash of the whole machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_FOLDER = "appendonlydir"


def last_file(folder: str) -> Path:
    """Return the file that a server appends to: its manifest names it last."""
    manifest = Path(folder) / _FOLDER / "appendonly.aof.manifest"
    lines = manifest.read_text("utf-8").splitlines()
    name = [line.split()[1] for line in lines if " type i" in line][-1]
    return manifest.parent / name


def cut_to(path: Path, size: int) -> int:
    """Leave the first `size` bytes of a file; return how many it has lost."""
    lost = path.stat().st_size - size
    if lost > 0:
        os.truncate(path, size)
    return max(lost, 0)


def remove(folder: str) -> None:
    """Remove all that a server has written: it starts empty."""
    shutil.rmtree(Path(folder) / _FOLDER)
