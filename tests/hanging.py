"""A server that stands still: it holds its connections, and answers nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def hanging(pid: int) -> Iterator[None]:
    """Stop a server and everything below it, for as long as the block lasts."""
    server = psutil.Process(pid)
    server.suspend()
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()
