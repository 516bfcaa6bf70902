"""What the tests of reconciliation share: books on real servers, used as a fleet uses them, and the ways to spoil them.

There is no broker here: an event is written to the log as the consumer writes it, right after it was settled.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import psycopg
import redis

from billing import admin
from billing.connections import postgres
from billing.core.clock import SystemClock
from billing.core.ids import new_settlement_id, run_id
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.keys import shard_keys
from billing.credits.values import Hold, ReserveOutcome, Settlement
from billing.events.usage_event import EventHead, UsageEvent, UsageLine, encode_fragment, encode_head
from billing.fulfillment.decoder import decode
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.reconciliation.reconcile import reconcile
from billing.reconciliation.report import Report
from billing.task.runtime import Runtime

SHARDS = 64


class PausedClock(SystemClock):
    """A clock whose monotonic time goes on in its pauses alone: the rounds of a wait are the same on every machine."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def monotonic(self) -> float:
        """Return the seconds of all pauses."""
        return self._seconds

    def pause(self, seconds: float) -> None:
        """Let time pass, here and on the servers."""
        threading.Event().wait(seconds)
        self._seconds += seconds


@contextmanager
def books_on(database: Settings, redis_url: str, **changes: Any) -> Iterator[Books]:
    """Open books whose reconciliation waits a quarter of a second for events on their way."""
    settings = dataclasses.replace(
        database, redis_url=redis_url, shards=SHARDS, **{"reconcile_wait_seconds": 0.25, **changes}
    )
    books = Books(settings)
    try:
        yield books
    finally:
        books.close()


class Books:
    """Redis and PostgreSQL of a small business."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = PausedClock()
        self.runtime = Runtime(lambda: settings, self.clock)
        self.redis = redis.Redis.from_url(settings.redis_url)
        self._log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
        self._numbers = itertools.count(1)
        self._on_their_way: list[UsageEvent] = []

    def close(self) -> None:
        """Close every connection."""
        self._log.close()
        self.redis.close()
        self.runtime.close()
        admin.close(self.settings)

    def client(self, client_id: str, *grants: int) -> str:
        """Make a client with grants."""
        admin.add_client(self.settings, client_id)
        for credits_ in grants:
            self.grant(client_id, credits_)
        return client_id

    def grant(self, client_id: str, credits_: int) -> None:
        """Grant credits."""
        _, applied = admin.grant(self.settings, client_id, credits_)
        assert applied

    def hold(self, client_id: str, credits_: int) -> Hold:
        """Reserve for a run."""
        number = next(self._numbers)
        hold = Hold(
            run_id=run_id(client_id, str(number), nesting=0, nonce="", at_milliseconds=int(time.time() * 1_000)),
            client_id=client_id,
            sku="page",
            credits=credits_,
            token="token",
            price_version=1,
            attempt=1,
            head=b"",
            lines=b"",
        )
        assert self.runtime.buckets.reserve(hold).outcome is ReserveOutcome.HELD
        return hold

    def use(self, client_id: str, *amounts: int, held: int | None = None, write: bool = True) -> None:
        """Run a task with a line for each amount; `held=0`: it comes late, nothing was held for it."""
        hold = None if held == 0 else self.hold(client_id, sum(amounts) if held is None else held)
        number = str(next(self._numbers))
        run = (
            run_id(client_id, number, nesting=0, nonce="", at_milliseconds=int(time.time() * 1_000))
            if hold is None
            else hold.run_id
        )
        head = EventHead(
            run_id=run,
            client_id=client_id,
            correlation_id=number,
            root_id=number,
            task="task",
            attempt=1,
            submitted_at=None,
            price_version=1,
        )
        lines = [
            UsageLine(sku="page" if place == 0 else f"extra-{place}", quantity=1, credits=amount)
            for place, amount in enumerate(amounts)
        ]
        reply = self.runtime.buckets.settle(
            Settlement(
                run_id=run,
                client_id=client_id,
                sku="page",
                settlement_id=new_settlement_id(),
                head=encode_head(head),
                fragments=tuple(encode_fragment(line) for line in lines),
                amounts=tuple(amounts),
            )
        )
        assert reply.event is not None
        assert reply.entry_id is not None
        event = decode(reply.event)
        assert isinstance(event, UsageEvent), event
        self._on_their_way.append(event)
        if write:
            self.deliver()
            self.runtime.buckets.forget([(shard_of(client_id, SHARDS), reply.entry_id)])

    def deliver(self) -> None:
        """Write the events that are on their way to the log."""
        batch = [Delivered(body=b"", queue="billing.usage.0", decoded=event) for event in self._on_their_way]
        assert self._log.write(batch).events == len(batch)
        self._on_their_way.clear()

    def reconcile(self, *client_ids: str, **options: Any) -> Report:
        """Reconcile without Stripe, unless told otherwise."""
        given = {"client_ids": client_ids or None, "stripe": False, "wait": self.clock.pause}
        return reconcile(self.runtime, **{**given, **options})

    def sql(self, statement: str, *values: object, owner: bool = False) -> list[tuple[Any, ...]]:
        """Run a statement; as the owner who switches the triggers off."""
        with psycopg.connect(self.settings.database_url, autocommit=True) as connection:
            if owner:
                connection.execute("SET session_replication_role = replica")
                tables = re.findall(r"(?:UPDATE|DELETE FROM|INSERT INTO) (\w+)", statement)
                for table in tables:
                    connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def bucket(self, client_id: str) -> str:
        """Return the bucket's string."""
        found = self.redis.get(self._keys(client_id).bucket + client_id)
        assert isinstance(found, bytes)
        return found.decode()

    def spoil_bucket(self, client_id: str, old: str, new: str) -> None:
        """Change a bucket's string by hand."""
        bucket = self.bucket(client_id)
        assert bucket.count(old) == 1, bucket
        self.redis.set(self._keys(client_id).bucket + client_id, bucket.replace(old, new))

    def spoil_grants(self, client_id: str, field: str, by: int) -> None:
        """Change a number of a bucket's hash by hand."""
        self.redis.hincrby(self._keys(client_id).grants + client_id, field, by)

    def forget_run(self, hold: Hold) -> None:
        """Delete a hold as if it had never been."""
        keys = self._keys(hold.client_id)
        self.redis.delete(keys.run + hold.run_id.hex)
        self.redis.zrem(keys.leases, hold.run_id.hex)

    def grant_ids(self, client_id: str) -> list[int]:
        """Return the ids of a client's grants."""
        rows = self.sql("SELECT grant_id FROM credit_grant WHERE client_id = %s ORDER BY 1", client_id)
        return [row[0] for row in rows]

    def plan(self, client_id: str, *, state: str = "sent", customer_id: str = "cus_1") -> int:
        """Plan all that is not planned of a client, as one increment; return its number."""
        rows = self.sql(
            "SELECT sku, hour, planned, credits FROM usage_rollup WHERE client_id = %s AND credits > planned", client_id
        )
        month = rows[0][1].astimezone(UTC).replace(day=1, hour=0)
        made = self.sql(
            "INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units,"
            " identifier, state, event_at, first_attempt_at, last_attempt_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s,"
            " now(), now() - interval '1 hour', now() - interval '1 hour') RETURNING increment_id",
            client_id,
            customer_id,
            self.settings.stripe_meter,
            month,
            month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1),
            sum(row[3] - row[2] for row in rows),
            f"u1:{client_id}:{next(self._numbers)}",
            state,
        )
        increment_id = int(made[0][0])
        for sku, hour, start, end in rows:
            self.sql(
                "INSERT INTO stripe_increment_part VALUES (%s, %s, %s, %s, %s)", increment_id, sku, hour, start, end
            )
        self.sql("UPDATE usage_rollup SET planned = credits WHERE client_id = %s", client_id)
        return increment_id

    def _keys(self, client_id: str) -> Any:
        return shard_keys(shard_of(client_id, SHARDS))


def broken(report: Report) -> list[tuple[str, str | None, int | None]]:
    """Return what was named: law, client and grant of each discrepancy."""
    named = [(found.law, found.client_id, found.grant_id) for found in report.discrepancies]
    return sorted(named, key=lambda name: (name[0], name[1] or "", name[2] or 0))


def texts(report: Report, law: str) -> str:
    """Return what was found against a law."""
    return "\n".join(found.found for found in report.discrepancies if found.law == law)


def compared(report: Report, law: str) -> dict[str, int]:
    """Return what a law has compared."""
    (found,) = [found for found in report.laws if found.law == law]
    return dict(found.compared)
