"""Looks through a whole recording before anything is submitted: whose it is, what it sells, how long it is. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue
from billing.workload.rows import Entry, Malformed, malformed

#: Clients and SKUs of one recording (L9): what is kept in memory.
CLIENTS_MAX: Final = 100_000
SKUS_MAX: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a recording holds. `lines` = rows + `malformed`; clients and SKUs are in the order of their names."""

    lines: int
    malformed: int
    clients: tuple[str, ...]
    skus: tuple[str, ...]

    @property
    def text(self) -> str:
        """The survey as one line."""
        rows = f"{self.lines - self.malformed:,} rows of {len(self.clients):,} clients"
        return f"{self.lines:,} lines: {rows}, {self.malformed:,} malformed"


def survey(entries: Iterable[Entry]) -> Survey:
    """Count and collect. Raises `InvalidValue` for a recording without rows, or with more clients than are kept."""
    clients: set[str] = set()
    skus: set[str] = set()
    lines = bad = 0
    first: Malformed | None = None
    for entry in entries:
        lines += 1
        if isinstance(entry, Malformed):
            bad += 1
            first = first or entry
            continue
        clients.add(entry.client_id)
        skus.add(entry.sku)
        if len(clients) > CLIENTS_MAX:
            raise InvalidValue("FILE", f"line {entry.line}", f"must name at most {CLIENTS_MAX:,} clients")
        if len(skus) > SKUS_MAX:
            raise InvalidValue("FILE", f"line {entry.line}", f"must name at most {SKUS_MAX:,} SKUs")
    if not lines:
        raise InvalidValue("FILE", "0 lines", "has no lines besides its header")
    if first is not None and bad == lines:
        raise InvalidValue("FILE", f"{lines:,} lines", f"has no row: line {first.line}: {first.reason}")
    return Survey(lines=lines, malformed=bad, clients=tuple(sorted(clients)), skus=tuple(sorted(skus)))


def priceable(entries: Iterable[Entry], prices: Mapping[str, int]) -> Iterator[Entry]:
    """Pass entries on; a row that costs more credits than can be counted is malformed."""
    for entry in entries:
        if isinstance(entry, Malformed) or entry.quantity * prices[entry.sku] <= CREDITS_MAX:
            yield entry
        else:
            rule = f"costs more than {CREDITS_MAX} credits at {prices[entry.sku]:,} each"
            yield malformed(entry.line, InvalidValue("quantity", entry.quantity, rule))
