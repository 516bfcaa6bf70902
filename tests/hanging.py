"""A server that stands still: it holds its connections, and answers nothing. A RabbitMQ node that is killed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil

from billing.embedded.rabbitmq import RabbitMQ


@contextlib.contextmanager
def hanging(pid: int) -> Iterator[None]:
    """Stop a server and everything below it, for as long as the block lasts."""
    server = psutil.Process(pid)
    server.suspend()
    processes = [server, *server.children(recursive=True)]
    # A process may have ended already, and be gone as soon as the server, which goes on first, has heard of it: the
    # others go on all the same.
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def kill_node(rabbitmq: RabbitMQ) -> None:
    """SIGKILL the node, whose queues were not declared in this very instant.

    RabbitMQ writes the name of a new quorum queue to its disk up to half a second after it has confirmed messages of
    it. A node that is killed before that comes back with a queue without a leader, for good (seen on 3.10.8).
    """
    rabbitmq._call("ok = lists:foreach(fun dets:sync/1, dets:all())")
    rabbitmq.kill()
