"""The usage log in PostgreSQL: one batch, one transaction, every run once for ever (L3).

Guarantee: when `write` returns, each message of the batch is in the history, was there before, is a dead letter, or
is a committed marker; rollups and grant sums grew by exactly the rows that were inserted. When it raises, nothing is
done. A run belongs to whoever inserts its line 0; its other lines follow only then, so that two settlements of one
run never mix. Every lock is taken in the order of sorted keys, so two consumers never deadlock. A batch that names a
month which is not in the history is written anew with a look into the archive: no other batch pays for that.

It raises `Unwritable` (a value in the batch is refused: bisect), `Unreachable` or `LogUnready` (keep the batch, wait).
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import IsolationLevel

from billing.core.change_log import DEAD_LETTERS, log_change
from billing.core.errors import Unreachable
from billing.core.shards import shard_of
from billing.events.usage_event import UsageEvent
from billing.fulfillment import archived, dead_letters, doubts, log_statements, usage_rows, verdicts
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.log import BatchReport, LogUnready, Unwritable
from billing.fulfillment.verdicts import KnownClient, Settled, Sorting

Cursor = psycopg.Cursor[tuple[Any, ...]]
Connect = Callable[[], psycopg.Connection[tuple[Any, ...]]]


class PostgresUsageLog:
    """Writes batches over one connection, made at the first batch and again after it was lost. For one thread."""

    def __init__(self, connect: Connect, *, shards: int) -> None:
        self._connect, self._shards = connect, shards
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._place = ""
        #: What the batch that is being written adds to the dead letters.
        self._letters: Sequence[tuple[Delivered, str]] = ()

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Write a batch, and return what became of it. Writing it again is harmless."""
        if not batch:
            return BatchReport()
        connection = self._open()
        try:
            report = self._transact(connection, batch)
        except (psycopg.DataError, psycopg.IntegrityError, UnicodeEncodeError) as error:
            self._roll_back(connection)
            if has_no_month(error):
                message = f"usage_history: {_line(error)} (see: billing partitions)"
                raise LogUnready(message) from error
            message = f"usage_history: {_line(error)}"
            raise Unwritable(message) from error
        except psycopg.OperationalError as error:
            self.close()
            message = f"billing_database_url: {self._place}: the batch was not written ({_line(error)})"
            raise Unreachable(message) from error
        except psycopg.Error as error:
            self.close()
            message = f"billing_database_url: {self._place}: {_line(error)} (see: billing migrate)"
            raise LogUnready(message) from error
        except BaseException:
            self.close()
            raise
        return report

    def _transact(self, connection: psycopg.Connection[tuple[Any, ...]], batch: Sequence[Delivered]) -> BatchReport:
        """Write a batch in one transaction; in a second one if the first named a month that the history has not."""
        try:
            with connection.cursor() as cursor:
                report = self._write(cursor, batch, look=False)
        except psycopg.errors.CheckViolation as error:
            if not has_no_month(error):
                raise
            connection.rollback()
            with connection.cursor() as cursor:
                report = self._write(cursor, batch, look=True)
        connection.commit()
        for message, _ in self._letters:
            # Not its reason, which may name what is in it: `billing dead-letters show` has it.
            digest = hashlib.sha256(message.body).hexdigest()
            log_change(DEAD_LETTERS, "kept", logging.WARNING, queue=message.queue, digest=digest)
        return report

    def close(self) -> None:
        """Close the connection; what was not committed is undone by the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None:
            connection = self._connect()
            info = connection.info
            self._place = f"'{info.host}:{info.port}/{info.dbname}'"  # a closed connection does not say
            try:
                connection.isolation_level = IsolationLevel.READ_COMMITTED
                connection.execute(log_statements.PREPARE_CONNECTION)
                connection.execute(log_statements.MAKE_INCOMING)
                connection.commit()
            except psycopg.Error as error:
                connection.close()
                message = f"billing_database_url: {self._place}: the server does not answer ({_line(error)})"
                raise Unreachable(message) from error
            self._connection = connection
        return self._connection

    def _roll_back(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        try:
            connection.rollback()
        except psycopg.Error:
            self.close()

    def _write(self, cursor: Cursor, batch: Sequence[Delivered], *, look: bool) -> BatchReport:
        """Run every statement of the batch's transaction but its commit; `look`: into the archive first."""
        sorting = verdicts.sort(batch)
        self._letters = sorting.letters
        inserted, rebuilds, postings = (
            self._write_events(cursor, sorting, look=look) if sorting.events else ([], (), ())
        )
        if sorting.letters:
            self._keep(cursor, sorting.letters)
        if sorting.markers:
            tokens = sorted({(marker.token, marker.shard) for marker in sorting.markers})
            cursor.execute(log_statements.ADD_MARKERS, [list(column) for column in zip(*tokens, strict=True)])
        return BatchReport(
            events=len(inserted),
            rows_inserted=sum(len(event.lines) for event in inserted),
            duplicates=len(sorting.events) - len(inserted),
            dead_letters=len(sorting.letters),
            markers=len(sorting.markers),
            dropped=sorting.dropped,
            refused_of=dict(sorting.refused_of),
            rebuilds=rebuilds,
            postings=postings,
        )

    def _write_events(
        self, cursor: Cursor, sorting: Sorting, *, look: bool
    ) -> tuple[list[UsageEvent], tuple[int, ...], tuple[str, ...]]:
        """Insert what is new; return it, the shards for which a rebuild was requested, and the clients posted to."""
        clients = self._read_clients(cursor, sorting)
        stored = archived.look_up(cursor, sorting) if look else {}
        doubts.allot_direct(cursor, sorting, stored)
        if not sorting.events:
            return [], (), ()
        first = verdicts.first_of_each_run(sorting)
        unknown = {run_id: event for run_id, event in first.items() if run_id not in stored} if stored else first
        inserted = _insert(cursor, unknown) if unknown else []
        if inserted:
            cursor.execute(log_statements.ADD_ROLLUPS, usage_rows.rollups(inserted), prepare=True)
            cursor.execute(log_statements.ADD_SPENT, usage_rows.spent(inserted), prepare=True)
        if len(inserted) < len(sorting.events):
            cursor.execute(log_statements.READ_SETTLEMENTS, [list(first)], prepare=True)
            stored.update((run_id, Settled(settlement_id, epoch)) for run_id, settlement_id, epoch in cursor.fetchall())
        found = verdicts.consequences(sorting, clients, inserted, stored)
        postings = doubts.post(cursor, found, {client_id: known.epoch for client_id, known in clients.items()})
        if found.epochs:
            cursor.execute(log_statements.RAISE_EPOCHS, [list(found.epochs), list(found.epochs.values())])
        rebuilds = tuple(sorted(found.rebuilds))
        if rebuilds:
            cursor.execute(
                log_statements.REQUEST_REBUILDS, [list(rebuilds), [found.rebuilds[shard] for shard in rebuilds]]
            )
        return inserted, rebuilds, postings

    def _keep(self, cursor: Cursor, letters: Sequence[tuple[Delivered, str]]) -> None:
        dead_letters.keep(cursor, letters)

    def _read_clients(self, cursor: Cursor, sorting: Sorting) -> dict[str, KnownClient]:
        """Lock the shards of the batch's clients, read the clients, and refuse what cannot be written."""
        client_ids = {event.client_id for _, event in sorting.events}
        shards = sorted({shard_of(client_id, self._shards) for client_id in client_ids})
        cursor.execute(log_statements.LOCK_SHARDS, [shards], prepare=True)
        now_milliseconds = cursor.fetchall()[0][0]
        cursor.execute(log_statements.READ_CLIENTS, [list(client_ids)], prepare=True)
        clients = {client_id: KnownClient(shard=shard, epoch=epoch) for client_id, shard, epoch in cursor.fetchall()}
        for client_id, known in clients.items():
            if known.shard != shard_of(client_id, self._shards):
                message = f"billing_shards: {self._shards}: is not what client {client_id!r} was added with"
                raise LogUnready(message)
        verdicts.refuse(sorting, clients, now_milliseconds)
        return clients


def _insert(cursor: Cursor, first: dict[uuid.UUID, UsageEvent]) -> list[UsageEvent]:
    """Insert the runs that the history does not have; return their events."""
    events = list(first.values())
    with cursor.copy(log_statements.COPY_INCOMING) as copy:
        copy.write(usage_rows.copy_text(events))
    several = any(len(event.lines) > 1 for event in events)
    statement = log_statements.INSERT_RUNS_WITH_LINES if several else log_statements.INSERT_RUNS
    cursor.execute(statement, prepare=True)
    if cursor.rowcount == len(events):
        return events
    return [first[row[0]] for row in cursor.fetchall()]


def has_no_month(error: BaseException | None) -> bool:
    """Whether a row found no partition: of PostgreSQL's violations it is the one that names no constraint."""
    return isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name is None


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
