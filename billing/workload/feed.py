"""Feeds the rows of a workload through a fleet: each is one billable task, a bounded number of them in flight.

Guarantee: however often it is interrupted and started again, no row is billed twice and none is left out. What a
stored result or the log knows already is taken from there, in bounded chunks; the rest, and what failed, is submitted,
with the same task ids and run ids as before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import celery
import kombu.exceptions
import redis

from billing.core.clock import Clock
from billing.core.errors import Fatal, Unreachable
from billing.workload.charges import Connection, logged
from billing.workload.identity import Identity, fingerprint
from billing.workload.results import Ending, Results
from billing.workload.row_task import ROW_TASK, arguments
from billing.workload.rows import Entry, Malformed, Row
from billing.workload.tally import Account

#: Rows in flight, and rows that are asked for or submitted at once (L9).
WINDOW: Final = 1_000
CHUNK: Final = 500
#: How long no row may end before the replay gives up and says so.
STALL_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.2

_CHARGED: Final = Ending(succeeded=True)


class Feed:
    """One start of one workload; `again` says that it was started before."""

    def __init__(
        self, app: celery.Celery, connection: Connection, identity: Identity, clock: Clock, *, again: bool
    ) -> None:
        self.account = Account()
        self._app, self._connection, self._identity = app, connection, identity
        self._clock, self._again = clock, again
        self._results: Results[Row] = Results(app)
        self._task: Any = app.tasks[ROW_TASK]
        # In this process alone: nobody needs to hear of each row on its way to the broker.
        app.conf.task_send_sent_event = False

    def run(
        self, entries: Iterator[Entry], look: Callable[[], None], wait: Callable[[float], object] = time.sleep
    ) -> Account:
        """Feed every entry and wait until each has ended. `look` is called in every round: it shows the progress.

        Raises `Unreachable` when broker or result backend are away, `Fatal` when no row ends any more.
        """
        last_end = self._clock.monotonic()
        with reaching("broker or result backend"), self._app.producer_or_acquire() as producer:
            more = True
            while more or self._results.pending:
                room = more and self._results.pending + CHUNK <= WINDOW
                if room:
                    more = self._take(list(islice(entries, CHUNK)), producer)
                ended = self._results.poll()
                for task_id, row, ending in ended:
                    self._end(row, task_id, ending)
                now = self._clock.monotonic()
                if ended or room:
                    last_end = now
                elif now - last_end > STALL_SECONDS:
                    waiting = f"{self._results.pending:,} rows wait and none has ended for {STALL_SECONDS:g} s"
                    raise Fatal(f"fleet: {waiting}: look at its workers; the same command goes on where this one ended")
                look()
                if not room:
                    wait(POLL_SECONDS)
        return self.account

    def _take(self, entries: list[Entry], producer: Any) -> bool:
        """Account for some entries, or submit them; return whether there may be more."""
        rows = {}
        for entry in entries:
            if isinstance(entry, Malformed):
                self.account.skip(entry)
            else:
                self.account.submit(entry.client_id)
                rows[self._identity.task_id(entry.line)] = entry
        for task_id, ending in (self._known(rows) if self._again else {}).items():
            self.account.known += 1
            self._end(rows.pop(task_id), task_id, ending)
        for task_id, row in rows.items():
            self._task.apply_async(arguments(row), task_id=task_id, headers=self._identity.headers, producer=producer)
            self._results.expect(task_id, row)
        return bool(entries)

    def _known(self, rows: Mapping[str, Row]) -> dict[str, Ending]:
        """Return how rows ended before: by their stored result, else by the log. Failures are forgotten."""
        stored = self._results.endings(list(rows))
        known = {name: ending for name, ending in stored.items() if ending.succeeded or ending.refused}
        run_ids = {self._identity.run_id(row, name): name for name, row in rows.items() if name not in known}
        known |= {run_ids[run_id]: _CHARGED for run_id in logged(self._connection, list(run_ids))}
        # They are tried again: the old result must not be taken for the new one.
        self._results.forget(stored.keys() - known.keys())
        return known

    def _end(self, row: Row, task_id: str, ending: Ending) -> None:
        self.account.end(
            row.client_id,
            ending,
            line=row.line,
            quantity=row.quantity,
            mark=fingerprint(self._identity.run_id(row, task_id)),
        )


@contextlib.contextmanager
def reaching(what: str) -> Iterator[None]:
    """Map a lost connection of Celery's own to one line."""
    try:
        yield
    except (kombu.exceptions.OperationalError, redis.RedisError, OSError) as error:
        raise Unreachable(f"{what}: does not answer ({type(error).__name__}: {error})") from error
