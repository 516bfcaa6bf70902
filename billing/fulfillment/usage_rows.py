"""A batch of usage events as PostgreSQL takes it: one `COPY` text, and sums in key order. Pure.

Runs are sorted by id, clients, SKUs and grants by code point, so that two consumers take the same rows in the same
order and never wait for each other in a circle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from billing.events.usage_event import GrantShare, UsageEvent

#: The columns of `copy_text`, in its order. Times are milliseconds since the Unix epoch.
COLUMNS: Final = (
    "run_id", "line", "settlement_id", "client_id", "correlation_id", "root_id", "task", "attempt", "sku", "quantity",
    "credits", "grants", "epoch", "price_version", "late", "mode", "submitted_at", "occurred_at",
)  # fmt: skip

_HOUR: Final = 3_600_000
#: What `COPY` reads as something else than itself.
_SPECIAL: Final = re.compile(r"[\\\t\n\r]")
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

#: client, SKU, hour (ms), credits, quantity: one list per column.
Rollups = tuple[list[str], list[str], list[int], list[int], list[int]]
#: client, grant, credits: one list per column.
Spent = tuple[list[str], list[int], list[int]]


def copy_text(events: Iterable[UsageEvent]) -> bytes:
    """Return the rows of `events` in PostgreSQL's COPY text format, in the order of their keys.

    Raises `UnicodeEncodeError` for text that is not Unicode (a lone surrogate).
    """
    rows: list[str] = []
    for event in sorted(events, key=_run_id):
        if _SPECIAL.search(f"{event.settlement_id}{event.client_id}{event.correlation_id}{event.root_id}{event.task}"):
            texts = (event.settlement_id, event.client_id, event.correlation_id, event.root_id, event.task)
            who = "\t".join(text.translate(_ESCAPES) for text in texts)
        else:
            who = f"{event.settlement_id}\t{event.client_id}\t{event.correlation_id}\t{event.root_id}\t{event.task}"
        run_id = event.run_id.hex
        submitted_at = "\\N" if event.submitted_at is None else event.submitted_at
        late = "t" if event.late else "f"
        mode = event.mode or "\\N"
        tail = f"{event.epoch}\t{event.price_version}\t{late}\t{mode}\t{submitted_at}\t{event.occurred_at}\n"
        for number, line in enumerate(event.lines):
            sku = line.sku.translate(_ESCAPES) if _SPECIAL.search(line.sku) else line.sku
            rows.append(
                f"{run_id}\t{number}\t{who}\t{event.attempt}\t{sku}\t{line.quantity}\t{line.credits}\t"
                f"{_grants(line.grants)}\t{tail}"
            )
    return "".join(rows).encode()


def rollups(events: Iterable[UsageEvent]) -> Rollups:
    """Return what the events add to `usage_rollup`, by client, SKU and hour of `occurred_at`."""
    sums: dict[tuple[str, str, int], tuple[int, int]] = {}
    for event in events:
        hour = event.occurred_at - event.occurred_at % _HOUR
        for line in event.lines:
            key = (event.client_id, line.sku, hour)
            credits, quantity = sums.get(key, (0, 0))
            sums[key] = (credits + line.credits, quantity + line.quantity)
    keys = sorted(sums)
    return (
        [client_id for client_id, _, _ in keys],
        [sku for _, sku, _ in keys],
        [hour for _, _, hour in keys],
        [sums[key][0] for key in keys],
        [sums[key][1] for key in keys],
    )


def spent(events: Iterable[UsageEvent]) -> Spent:
    """Return what the events add to `grant_spent`, by client and grant; grant 0 is debt."""
    sums: dict[tuple[str, int], int] = {}
    for event in events:
        for line in event.lines:
            for share in line.grants:
                key = (event.client_id, share.grant)
                sums[key] = sums.get(key, 0) + share.credits
    keys = sorted(sums)
    return [client_id for client_id, _ in keys], [grant for _, grant in keys], [sums[key] for key in keys]


def _grants(shares: Sequence[GrantShare]) -> str:
    return "[" + ",".join([f'{{"grant":{share.grant},"credits":{share.credits}}}' for share in shares]) + "]"


def _run_id(event: UsageEvent) -> int:
    return event.run_id.int
