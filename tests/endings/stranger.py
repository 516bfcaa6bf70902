"""A sender without the library: plain Celery, which knows a task's name, and mints no headers. Run as `-m`."""

from __future__ import annotations

import sys

import celery


def main(broker_url: str, task: str, task_id: str, queue: str, *args: str) -> None:
    """Send one task."""
    app = celery.Celery("stranger", broker=broker_url)
    app.send_task(task, args, task_id=task_id, queue=queue)
    app.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
