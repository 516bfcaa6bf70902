"""Looks at balances: each that is short, and for which nothing is asked yet, becomes one request.

What an alert, a refused reserve or the clock says is only that somebody should look: the balance itself decides. So an
alert that is lost, doubled or late changes when it is looked at, and never how often is asked.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from billing.connections import postgres
from billing.core.errors import Recovering, Refusing, Unreachable
from billing.core.shards import shard_of
from billing.credits.values import Balance
from billing.ledger.locks import Locked, waiting_briefly
from billing.task.runtime import Runtime
from billing.top_ups.rule import Rule, Short, shortfall
from billing.top_ups.statements import FACTS, MAKE_DUE, TAKE_RULES, WANT

logger = logging.getLogger(__name__)

#: Rules that one look takes (L9).
LOOKS_MAX: Final = 200
#: A rule is looked at as often without any alert.
SWEEP: Final = timedelta(seconds=60)
#: Nodes that do not answer before a look ends: each costs its wait (L9).
_AWAY_MAX: Final = 4
#: The nodes that did not answer this process the last time: their clients are looked at after the others' (L10).
_SILENT: Final[set[str]] = set()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was seen of a client: the rule's version then, and what is short."""

    version: int
    short: Short | None


def make_due(runtime: Runtime, client_ids: Iterable[str]) -> None:
    """Have these clients looked at next. Who has no rule is left alone; a locked rule is left to the sweep."""
    given = {"clients": sorted(set(client_ids))}
    if not given["clients"]:
        return
    try:
        with postgres.reaching(runtime.settings), runtime.engine.begin() as connection, waiting_briefly(connection):
            connection.execute(MAKE_DUE, given)
    except Locked:
        logger.warning("billing: a top-up rule is locked; %d clients wait for the next sweep", len(given["clients"]))


def look(runtime: Runtime) -> int:
    """Look at the rules that are due; return how many requests that made."""
    now = runtime.clock.now()
    given = {"now": now, "next": now + SWEEP, "count": LOOKS_MAX}
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        due = list(connection.execute(TAKE_RULES, given).scalars())
    seen = {client_id: found for client_id, found in look_at(runtime, due, now, free=True).items() if found.short}
    if not seen:
        return 0
    shorts = [found.short for found in seen.values() if found.short]
    wants = {
        "now": now,
        "clients": list(seen),
        "versions": [found.version for found in seen.values()],
        "shortfalls": [short.why for short in shorts],
        "available": [short.available for short in shorts],
    }
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        return len(connection.execute(WANT, wants).all())


def look_at(runtime: Runtime, client_ids: Sequence[str], now: datetime, *, free: bool = False) -> Mapping[str, Look]:
    """Return what there is to see of these clients; those that have no rule, or cannot be read now, are left out.

    `free`: so are those whose rule rests, and those that something is asked for already.
    """
    if not client_ids:
        return {}
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        found = connection.execute(FACTS, {"clients": list(client_ids), "now": now}).mappings()
        facts: dict[str, Mapping[str, Any]] = {
            row["client_id"]: dict(row) for row in found if not (free and (row["quiet"] or row["asking"]))
        }
    balances = _balances(runtime, facts)
    told = runtime.buckets.ends_told([client_id for client_id in balances if facts[client_id]["refused"]])
    looks = {}
    for client_id, balance in balances.items():
        fact = facts[client_id]
        rule = Rule.of(fact)
        refused = fact["refused"] and client_id in told
        short = shortfall(rule, balance, coming=fact["coming"], refused=refused) if fact["active"] else None
        looks[client_id] = Look(version=fact["version"], short=short)
    return looks


def _balances(runtime: Runtime, client_ids: Iterable[str]) -> dict[str, Balance]:
    """Return the balances that can be read. A node that does not answer is asked once, and last the next time (L10)."""
    found: dict[str, Balance] = {}
    away: set[str] = set()
    nodes = {each: runtime.buckets.node_of(shard_of(each, runtime.settings.shards)) for each in client_ids}
    for client_id in sorted(nodes, key=lambda each: nodes[each] in _SILENT):
        node = nodes[client_id]
        if node in away:
            continue
        try:
            balance = runtime.buckets.balance(client_id)
        except (Recovering, Refusing):
            continue
        except Unreachable as error:
            away.add(node)
            _SILENT.add(node)
            logger.warning("billing: top-ups wait: %s", error)
            if len(away) >= _AWAY_MAX:
                break
            continue
        _SILENT.discard(node)
        if balance is not None:
            found[client_id] = balance
    return found
