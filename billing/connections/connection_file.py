"""The file in which a running embedded stack says where it is, so that commands in the same directory find it.

Guarantee: readable by its owner alone (it holds passwords), replaced atomically, and ignored when the process that
wrote it is gone. It is looked for in one place only, `$BILLING_CONNECTION_FILE` or `./.billing/connections.json`: a
command never bills by a file that it found somewhere above. The environment wins over the file; that is the reader's
business.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from billing.core.processes import is_alive

VARIABLE: Final = "BILLING_CONNECTION_FILE"
DEFAULT: Final = Path(".billing") / "connections.json"
PREFIX: Final = "BILLING_"
SIZE_LIMIT_BYTES: Final = 65_536
#: What a file raises that is none of ours: it is away, no JSON, or nested without end.
_UNREADABLE: Final = (OSError, ValueError, RecursionError)


def location() -> Path:
    """Where the file is expected."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def write(variables: Mapping[str, str], path: Path | None = None) -> Path:
    """Write the `BILLING_*` variables of a stack that this process keeps running; return the file's path."""
    path = path or location()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {"pid": os.getpid(), "started": _started(os.getpid()), "variables": dict(variables)}
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def read(path: Path | None = None) -> dict[str, str]:
    """Return the `BILLING_*` variables of a stack that runs now; {} when there is none."""
    try:
        content = _content(path or location())
    except _UNREADABLE:
        return {}
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("pid"), int)
        or not isinstance(content.get("variables"), dict)
    ):
        return {}
    if not _runs(content["pid"], str(content.get("started", ""))):
        return {}
    return {
        name: value
        for name, value in content["variables"].items()
        if isinstance(value, str) and name.startswith(PREFIX)
    }


def remove(path: Path | None = None) -> None:
    """Remove the file if this process wrote it; another stack's file stays."""
    path = path or location()
    with contextlib.suppress(*_UNREADABLE, AttributeError):
        if _content(path).get("pid") == os.getpid():
            path.unlink()


def _content(path: Path) -> Any:
    with path.open(encoding="utf-8") as file:
        return json.loads(file.read(SIZE_LIMIT_BYTES))


def _runs(pid: int, started: str) -> bool:
    """Whether this very process still lives: its id may belong to another one by now."""
    return pid > 0 and is_alive(pid) and _started(pid) == started


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks (Linux; "" elsewhere, where the id alone has to do)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
