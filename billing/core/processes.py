"""Whether a process lives, by its id."""

from __future__ import annotations

import os


def is_alive(pid: int) -> bool:
    """Return whether a process of this id lives, of whichever user. An id may have gone to another process since."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
