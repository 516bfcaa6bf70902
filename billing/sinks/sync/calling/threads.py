"""Runs the calls of a push in some threads, each with a sink of its own; an error in one of them ends them all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from billing.sinks.sink import MeterSink
from billing.sinks.sync.calling.course import Course

Group = TypeVar("Group")


def in_threads(
    groups: Sequence[Group],
    send: Callable[[MeterSink, Group], None],
    *,
    open_sink: Callable[[], MeterSink],
    course: Course,
    threads: int,
) -> None:
    """Send each group, until the course ends; with one thread, in this one and in order. Raises the first error."""
    queue = deque(groups)

    def work() -> None:
        sink = open_sink()
        try:
            while course.goes_on():
                try:
                    group = queue.popleft()
                except IndexError:
                    return
                send(sink, group)
        except BaseException:
            course.stop("an error ended this push")
            raise
        finally:
            sink.close()

    count = min(threads, len(groups))
    if count <= 1:
        work()
        return
    with ThreadPoolExecutor(count, thread_name_prefix="billing-push") as pool:
        try:
            for future in [pool.submit(work) for _ in range(count)]:
                future.result()
        except BaseException:
            # Leaving the pool waits for its threads: who is interrupted waits for their present calls only (L9).
            course.stop("an error ended this push")
            raise
