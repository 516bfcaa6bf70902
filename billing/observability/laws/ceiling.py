"""L1 ceiling: no bucket holds, has spent or can still lend more than was granted, nor overdraft that nobody allowed.

A bucket is read first and PostgreSQL after it: a grant or a limit is there before it is in Redis. Debt is no breach: it
is work that was done and cost more than it held, and admits nothing.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from billing.connections import postgres
from billing.core.errors import Recovering
from billing.credits.values import Balance
from billing.observability.laws.law import Place, Slice
from billing.observability.laws.pages import next_page
from billing.reconciliation.continuous.audit import audit
from billing.task.runtime import Runtime

_GRANTED: Final = text("SELECT client_id, grant_id, credits FROM credit_grant WHERE client_id = ANY(:ids)").bindparams(
    bindparam("ids", type_=ARRAY(Text))
)
#: The highest that each ever had: a hold keeps the room that it was lent, however long its run takes.
_LIMITS: Final = text("""
SELECT client_id, greatest(overdraft_limit, (
    SELECT max(credits) FROM client_change WHERE client_change.client_id = client.client_id AND kind = 'overdraft'
)) AS most
FROM client WHERE client_id = ANY(:ids)
""").bindparams(bindparam("ids", type_=ARRAY(Text)))


class Ceiling:
    """Client by client, shard by shard."""

    name: Final = "L1 ceiling"

    def check(self, runtime: Runtime, place: Place) -> Slice:
        """Look at the buckets of the next clients. Raises `Unreachable`, and `Recovering` where none can be read."""
        reached, examined, asked, breached = place.resume_after, 0, 0, list[str]()
        while True:
            page = next_page(runtime, reached)
            if page is None:
                reached = ""
                break
            readings = audit(runtime.buckets, page.shards).items()
            balances = {client_id: found.balance for client_id, found in readings if found.balance is not None}
            with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
                granted, limits = _allowed(connection, list(balances))
            for client_id, balance in balances.items():
                breached += breaches(balance, granted.get(client_id, {}), limits.get(client_id, 0))
            examined, asked, reached = examined + len(balances), asked + len(page.shards), page.reached
            if runtime.clock.monotonic() >= place.until:
                break
        if asked and not examined:
            message = f"none of {asked:,} buckets can be read: their shards are recovering, or Redis does not answer"
            raise Recovering(message)
        return Slice(
            examined=examined, violations=len(breached), found=breached[0] if breached else "", resume_after=reached
        )


def breaches(balance: Balance, granted: Mapping[int, int], limit_most: int) -> Iterator[str]:
    """Yield what a bucket has beyond what PostgreSQL says that it may have. Pure."""
    who = f"client {balance.client_id}"
    for grant in balance.grants:
        has, may = grant.available + grant.held + grant.spent + grant.repaid, granted.get(grant.grant_id)
        if may is None:
            yield f"{who}: grant {grant.grant_id} of {has:,} credits is in the bucket, and nobody granted it"
        elif has > may:
            yield f"{who}: grant {grant.grant_id} of {may:,} has {has:,} available, held and spent"
    if balance.room > limit_most:
        yield f"{who}: holds were lent {balance.room:,} of an overdraft that was never above {limit_most:,}"
    if balance.terms.overdraft_limit > limit_most:
        admits = balance.terms.overdraft_limit
        yield f"{who}: the bucket lends an overdraft of {admits:,}, and nobody allowed more than {limit_most:,}"


def _allowed(connection: Connection, ids: list[str]) -> tuple[Mapping[str, Mapping[int, int]], Mapping[str, int]]:
    granted: dict[str, dict[int, int]] = collections.defaultdict(dict)
    for row in connection.execute(_GRANTED, {"ids": ids}):
        granted[row.client_id][row.grant_id] = row.credits
    return granted, {row.client_id: row.most for row in connection.execute(_LIMITS, {"ids": ids})}
