"""Adds a client's usage up per SKU, task, day or hour, straight from the log: bounded groups, and the sum of all."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from billing.admin.access import runtime_for
from billing.admin.spans import bounded, checked
from billing.catalog.clients import get_client
from billing.catalog.prices import load_price_book
from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.fulfillment.groups import KEYS, Group, GroupSum, usage_groups
from billing.fulfillment.selection import EVERYTHING, Selection

#: L9: groups that one answer holds at most. A year has 8,784 hours.
GROUPS_MAX: Final = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UsageSums:
    """The first groups of a selection in their order, how many there are, and what all of them add up to."""

    client_id: str
    by: str
    of: Selection
    groups: Sequence[Group]
    group_count: int
    total: GroupSum
    #: The unit of each SKU that has a price.
    units: Mapping[str, str]


def usage_by(
    settings: Settings, client_id: str, by: str, of: Selection = EVERYTHING, *, limit: int = GROUPS_MAX
) -> UsageSums:
    """Add up a client's usage per `sku`, `task`, `day` or `hour` (UTC), of at most `limit` groups; the total is of all.

    Without a span it is the current month, or, of one task or workflow, all time. Raises `UnknownClient`, and
    `InvalidValue` for another `by`, and for a span or a limit that is none.
    """
    if by not in KEYS:
        raise InvalidValue("by", by, f"must be one of {', '.join(KEYS)}")
    if not 1 <= limit <= GROUPS_MAX:
        raise InvalidValue("limit", limit, f"must be from 1 to {GROUPS_MAX}")
    runtime = runtime_for(settings)
    of = bounded(of, runtime.clock.now())
    groups: list[Group] = []
    total, count = GroupSum(), 0
    engine = runtime.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with postgres.reaching(settings), engine.connect() as connection:
        client_id = get_client(connection, client_id).client_id
        units = {price.sku: price.unit for price in load_price_book(connection).prices()}
        with contextlib.closing(usage_groups(connection, client_id, by, of)) as found:
            for group in found:
                count += 1
                total.add(group)
                if len(groups) < limit:
                    groups.append(group)
    return UsageSums(client_id=client_id, by=by, of=of, groups=groups, group_count=count, total=total, units=units)


def usage_total(settings: Settings, client_id: str, of: Selection = EVERYTHING) -> GroupSum:
    """Add up all of a client's usage that a selection has; without a span, of all time."""
    of, total = checked(of), GroupSum()
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        client_id = get_client(connection, client_id).client_id
        with contextlib.closing(usage_groups(connection, client_id, "sku", of)) as found:
            for group in found:
                total.add(group)
    return total
