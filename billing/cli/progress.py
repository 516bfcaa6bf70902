"""How far a long reading is: one line on standard error that moves, on a terminal alone, gone when it is done.

Nothing is shown with `--json`, into a pipe, or where what is printed goes to the same terminal while it moves.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator

Tell = Callable[[str], None]


@contextlib.contextmanager
def progress(*, wanted: bool) -> Iterator[Tell | None]:
    """Within, what is told is shown, if standard error is a terminal and it is wanted; None: nobody looks."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - slow, and only for a terminal
    from rich.text import Text  # noqa: PLC0415

    with Console(stderr=True).status(Text("reading")) as status:
        yield lambda text: status.update(Text(text))


def into_a_file() -> bool:
    """Whether standard output was sent into a file: then a line on standard error disturbs nobody."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False
