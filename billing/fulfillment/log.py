"""The usage log as its users see it: whoever writes batches of usage events for ever keeps to `UsageLog`.

`PostgresUsageLog` is the one that there is. A second one, such as for ClickHouse, passes the suite of
`tests/contract/log` and is handed to the `Consumer` in its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from billing.core.errors import Rejected, Retryable
from billing.fulfillment.delivery import Delivered


class Unwritable(Rejected):
    """The database refuses a value in the batch. A batch of one names the message; a larger one is to be bisected."""


class LogUnready(Retryable):
    """The database cannot take the batch as it is set up: no message is to blame, and none may be given up."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BatchReport:
    """What became of a batch. New `events`, `duplicates`, `dead_letters`, `markers`, `dropped`: all of its messages."""

    events: int = 0
    rows_inserted: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    markers: int = 0
    dropped: int = 0
    #: Of how many dead letters it is known whose they are, by client that there is not.
    refused_of: Mapping[str, int] = dataclasses.field(default_factory=dict)
    #: Shards whose buckets may differ from the log now; a rebuild of each was requested in the same transaction.
    rebuilds: tuple[int, ...] = ()
    #: Clients whose buckets are to be told something: their postings are of the same transaction.
    postings: tuple[str, ...] = ()


class UsageLog(Protocol):
    """Where usage events become rows that never change. For one thread; several logs may write to one store at once.

    What any implementation keeps, each with a test in the contract suite:

    * **Once for ever** (L3). A run, known by its `run_id`, is in the log once, all of its lines or none, whichever
      batches, writers and years its events come in. The first settlement of a run stands whole; another one adds
      nothing to it. No window, no lag: a duplicate in the same batch, and one of a writer beside, are found as well.
    * **All or nothing.** `write` returns after everything of the batch is durable: rows, sums, dead letters, markers.
      When it raises, nothing is. So a batch that is written again is harmless, and is how a lost answer is answered.
    * **Sums grow by exactly what was inserted**: per client, SKU and hour of `occurred_at`; per client and grant.
    * **Nothing is lost, nobody is delayed** (L10). Poison, unknown clients and run ids more than 31 days ahead are kept
      once, with bytes and reason, and the rest of the batch is written. Dry runs of unknown clients are dropped.
    * **A marker is there once** everything of its batch is: recovery waits for it (L6).
    * **Every message is counted once** in the report.

    What is PostgreSQL's, because the tables that it joins with live there: epochs, postings, allotting direct events to
    grants, requests for rebuilds (`rebuilds`, `postings` of the report), and the months that must have been made. A
    second log is written from the first, or beside it, for reading; it leaves `rebuilds` and `postings` empty, and as
    long as it does so it cannot be the log that buckets are rebuilt from.
    """

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Write a batch in one transaction, and return what became of it. An empty one asks nothing of the server.

        Raises `Unwritable` when a value in it is refused (bisect; alone, it is a dead letter), `LogUnready` when no
        message is to blame, as for a table that is not there, and `Unreachable` when the server is away (both: keep
        the batch, wait, write it again).
        """
        ...

    def close(self) -> None:
        """Close the connection, twice too; what was not committed is undone. The next write makes another."""
        ...
