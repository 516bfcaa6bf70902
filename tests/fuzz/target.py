"""One way in: the law that any bytes must keep there, and what good input looks like. Nothing is read at import."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from typing import Final

#: Name → what comes in there. The module of that name in `targets/` has the law.
TARGETS: Final = {
    "usage_events": "bodies of RabbitMQ's usage queues: events, markers, dead letters",
    "usage_messages": "headers and bodies of the usage queues' messages: signatures, outbox entries",
    "task_headers": "headers of task messages: billing_*, ids, retries, expires",
    "wait_headers": "what a delivery that waited has in its headers: counts, x-death",
    "redis_records": "what is read back from Redis: holds, buckets, alerts, drafts",
    "trail_notes": "notes of the trail, as billing explain reads them",
    "stored_results": "records of a result backend, as the reaper and billing explain read them",
    "told_calls": "the latest calls to Stripe, as Redis has them",
    "log_lines": "lines of a web server's log in the combined format",
    "csv_rows": "a CSV file of recorded work: header, columns, rows",
    "recordings": "a file of recorded work on disk, plain or gzipped",
    "settings": "settings and their environment variables, BILLING_*",
    "files": "a setting's file (BILLING_*_FILE) and the connection file",
    "addresses": "URLs of Redis, its Sentinels and clusters, and of webhooks",
    "amounts_and_times": "what a person types: amounts, times, months, ids, clients, SKUs",
    "command_line": "arguments of the command line, where no server answers",
    "webhooks": "signed messages at examples/webhook_receiver",
    "stripe_calls": "calls of Stripe's stand-in: paths, forms, JSON, keys",
    "stripe_control": "control requests of the stand-in: knobs, faults, clock",
    "stripe_answers": "answers of Stripe: errors, meters, subscriptions, events, error reports",
    "task_events": "worker events as Flower keeps them",
    "receipts": "receipts with hostile names, as HTML, CSV and JSON",
    "logs": "lines of the log about what came from outside, as text and as JSON",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """`check` raises where a law is broken; `words` are pieces that a good input is made of."""

    check: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    #: L9: bytes of an input.
    length_max: int = 4_096


def load(name: str) -> Target:
    """Return a target by its name; its module, and what it tests, are imported now."""
    target: Target = importlib.import_module(f"tests.fuzz.targets.{name}").TARGET
    return target
