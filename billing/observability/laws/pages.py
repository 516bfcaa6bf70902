"""The next clients to look at, shard by shard: what a reading costs grows with the holds of the shards it is of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from sqlalchemy import text

from billing.connections import postgres
from billing.reconciliation.continuous.statements import PAGE
from billing.task.runtime import Runtime

_PAGE: Final = text(PAGE)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Some clients with their shards, and where the next ones begin."""

    shards: Mapping[str, int]
    reached: str


def next_page(runtime: Runtime, reached: str) -> Page | None:
    """Return the clients after a place (empty: the first ones); None: there is none. Raises `Unreachable`."""
    shard, _, after = reached.partition(" ") if reached else ("-1", "", "")
    given = {"shard": int(shard), "after": after, "limit": runtime.settings.reconcile_slice}
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        rows = connection.execute(_PAGE, given).all()
    if not rows:
        return None
    return Page(shards={row.client_id: row.shard for row in rows}, reached=f"{rows[-1].shard} {rows[-1].client_id}")
