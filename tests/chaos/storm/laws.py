"""The laws that need more than the book and the rows: clocks, balances, and what was seen while faults were injected.

Pure. All times are milliseconds of the one clock of the machine, rounded down wherever they are noted: what came first
is never noted as later, so there is nothing to tolerate.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from tests.chaos.storm.book import Book, Law, Row

#: A call to Redis that a fault has caught may end so much later: its bound of a second, and one retry.
AFTER_MS: Final = 2_000


def ceiling(book: Book, rows: Iterable[Row], owed: Mapping[str, int]) -> Law:
    """L1: at no time was more charged under holds than grants were begun, and who owes, owes for late work alone.

    A hold is older than its charge, and no bucket has a grant before it was begun.
    """
    charged: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    late: collections.Counter[str] = collections.Counter()
    for row in rows:
        if row.late:
            late[row.charge.client_id] += row.charge.credits
        else:
            charged[row.charge.client_id].append((row.occurred_ms, row.charge.credits))
    grants: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    for at_ms, client_id, credits_ in book.granting_since.values():
        grants[client_id].append((at_ms, credits_))
    broken = []
    for client_id in book.clients:
        first = _first_above(grants[client_id], charged[client_id])
        if first is not None:
            at_ms, admitted, granted = first
            broken.append(f"{client_id}: admitted {admitted}, granted {granted} until then ({at_ms})")
        if owed.get(client_id, 0) > late[client_id]:
            broken.append(f"{client_id}: owes {owed[client_id]}, and {late[client_id]} came late")
    examined = len(book.clients)
    return Law(law="L1 ceiling", says="admitted ≤ granted, at any time", examined=examined, violations=broken)


def late(book: Book, rows: Iterable[Row], lease_ms: int) -> Law:
    """L4: a late run had lost its hold: to a fault of Redis, to its lease, or to another delivery, which released it.

    The book knows when a run's deliveries began. Each began before its hold was made: none of the three is possible for
    a run of one delivery, younger than a lease, in whose life Redis was there and trusted.
    """
    runs = {row.run_id: row for row in rows if row.late}
    broken = [
        f"{row.charge.correlation_id}: charged late at {row.occurred_ms}, and nothing took its hold"
        for row in runs.values()
        if not _may_be_late(row, book.begun.get(row.charge.correlation_id, ()), book.losses, lease_ms)
    ]
    return Law(law="L4 late", says="who is late had lost its hold", examined=len(runs), violations=broken)


def orphans(holds: Sequence[str], seconds: float | None, bound_seconds: float, examined: int) -> Law:
    """L5: no hold at rest, nor longer after the last task's end than a lease, a sweep and the allowance."""
    broken = list(holds)
    if seconds is None:
        broken.append("nobody saw all tasks ended and no hold left")
    elif seconds > bound_seconds:
        broken.append(f"holds for {seconds:.1f} s after the last task had ended; {bound_seconds:g} s are allowed")
    says = "no hold" if seconds is None else f"no hold {seconds:.1f} s after the last end, of {bound_seconds:g} s"
    return Law(law="L5 no orphan", says=says, examined=examined, violations=broken)


def append_only(seen: Collection[str], now: Collection[str], looks: int) -> Law:
    """L7: every row that was ever seen is there, as it was."""
    broken = sorted(set(seen) - set(now))
    says = f"what was there at {looks} looks is there"
    return Law(law="L7 append only", says=says, examined=len(seen), violations=broken)


def _first_above(grants: Sequence[tuple[int, int]], charged: Sequence[tuple[int, int]]) -> tuple[int, int, int] | None:
    """Return when, and how much, was charged above what was granted by then; None if it never was."""
    waiting, admitted, granted = collections.deque(sorted(grants)), 0, 0
    for at_ms, credits_ in sorted(charged):
        while waiting and waiting[0][0] <= at_ms:
            granted += waiting.popleft()[1]
        admitted += credits_
        if admitted > granted:
            return at_ms, admitted, granted
    return None


def _may_be_late(row: Row, begun: Sequence[int], losses: Iterable[tuple[int, int]], lease_ms: int) -> bool:
    if not begun:
        return False
    first = min(begun)
    if len(begun) > 1 or row.occurred_ms - first >= lease_ms:
        return True
    return any(first <= end + AFTER_MS and row.occurred_ms >= start for start, end in losses)
