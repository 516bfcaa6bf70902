"""A move of a month, in a process of its own that kills itself: `killed_mover.py URL detach|attach MONTH STEP WHEN`.

STEP counts the move's transactions from 1; it dies right before that one's commit, or after it, as WHEN says.
"""

from __future__ import annotations

import os
import signal
import sys

import sqlalchemy

from billing.connections import postgres
from billing.core.settings import Settings
from billing.schema import archiving
from billing.schema.months import PREFIX


def main() -> None:
    """Move, and die."""
    url, verb, month, step, when = sys.argv[1:]
    engine = postgres.engine(Settings(database_url=url, database_timeout_seconds=60.0))
    with engine.connect() as connection:
        found = {part.name: part for part in archiving.read_partitions(connection)}[PREFIX + month.replace("-", "_")]
    steps = 0

    def die(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == int(step):
            os.kill(os.getpid(), signal.SIGKILL)

    if when == "before":
        sqlalchemy.event.listen(engine, "commit", die)
    else:
        commit = engine.dialect.do_commit

        def do_commit(connection: object) -> None:
            commit(connection)  # type: ignore[arg-type]
            die()

        engine.dialect.do_commit = do_commit  # type: ignore[method-assign,assignment]
    getattr(archiving, verb)(engine, found)
    raise AssertionError


if __name__ == "__main__":
    main()
