"""How the report to Stripe stands: every credit of the log is planned, waits for a plan, or waits for a link (L8)."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from billing.schema.stripe import STATES

#: Names of clients without a link, and increments to look at, that are shown (L9).
NAMES: Final = 10
#: How long after its plan, or after it was sent, an increment may be without an answer or a proof.
_PATIENCE: Final = timedelta(days=1)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StateSum:
    """The increments of one state. `oldest` is when the first of them was planned."""

    state: str
    increments: int = 0
    units: int = 0
    clients: int = 0
    oldest: datetime | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Credits that no increment carries, with the first of the clients that used them, or had them returned."""

    credits: int
    clients: int
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Concern:
    """An increment that a person should look at, with why."""

    increment_id: int
    client_id: str
    units: int
    state: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SyncStatus:
    """The states in the order of their life, then what is not in any increment.

    `carried`: corrections returned more than was used since; what a client uses next is reported less by as much.
    `concerned` increments are for a person to look at; `concerns` are the first of them.
    """

    states: tuple[StateSum, ...]
    unplanned: Waiting
    unlinked: Waiting
    carried: Waiting
    concerned: int
    concerns: tuple[Concern, ...]

    def units(self, *states: str) -> int:
        """Return the units of increments in some states (none named: in all)."""
        return sum(found.units for found in self.states if not states or found.state in states)


_STATES: Final = text("""
SELECT state, count(*) AS increments, sum(units)::bigint AS units, count(DISTINCT client_id) AS clients,
       min(planned_at) AS oldest
FROM stripe_increment GROUP BY state
""")

#: What no increment carries, by whether its client is linked, and whether more of it was returned than used.
_WAITING: Final = text(f"""
WITH waiting AS (
    SELECT rollup.client_id, link.client_id IS NOT NULL AS linked,
           sum(rollup.credits - rollup.planned)::bigint AS credits
    FROM usage_rollup AS rollup LEFT JOIN stripe_customer AS link ON link.client_id = rollup.client_id
    WHERE rollup.unplanned
    GROUP BY rollup.client_id, link.client_id
)
SELECT linked, credits < 0 AS carried, abs(sum(credits))::bigint AS credits, count(*) AS clients,
       (array_agg(client_id ORDER BY client_id))[1:{NAMES}] AS names
FROM waiting WHERE credits <> 0 AND (linked OR credits > 0) GROUP BY 1, 2
""")  # noqa: S608 - a constant number

#: What a person should look at. What Stripe drops after it has answered 200 shows in no answer, only in no summary.
#: What nobody sends (another meter is configured, a link was taken away) shows in nothing else. The reason of what was
#: sent is what its summary said.
_CONCERNS: Final = text("""
SELECT increment_id, client_id, units, state, count(*) OVER () AS concerned,
       CASE WHEN state = 'pending'
            THEN 'planned more than a day ago for meter ' || event_name || ', and not sent' || coalesce(
                 '; ' || nullif(reason, ''), '')
            WHEN state <> 'sent' OR reason <> '' THEN reason
            WHEN checked_at > last_attempt_at + :patience
            THEN 'sent more than a day ago, and Stripe''s summaries do not show it'
            ELSE 'sent more than a day ago, and Stripe''s summaries were not asked since' END AS reason
FROM stripe_increment
WHERE state IN ('ambiguous', 'rejected', 'quarantined')
   OR state = 'sent' AND (reason <> '' OR last_attempt_at < :long_ago)
   OR state = 'pending' AND planned_at < :long_ago
ORDER BY increment_id LIMIT :names
""")


def read_status(connection: Connection, now: datetime) -> SyncStatus:
    """Read how the report stands."""
    found = {row["state"]: StateSum(**row) for row in connection.execute(_STATES).mappings()}
    waiting = {(row.linked, row.carried): row for row in connection.execute(_WAITING)}
    given = {"patience": _PATIENCE, "long_ago": now - _PATIENCE, "names": NAMES}
    concerns = [dict(row) for row in connection.execute(_CONCERNS, given).mappings()]
    # One number, in each of the rows.
    concerned = [row.pop("concerned") for row in concerns]
    return SyncStatus(
        states=tuple(found.get(state, StateSum(state=state)) for state in STATES),
        unplanned=_waiting(waiting.get((True, False))),
        unlinked=_waiting(waiting.get((False, False))),
        carried=_waiting(waiting.get((True, True))),
        concerned=max(concerned, default=0),
        concerns=tuple(Concern(**row) for row in concerns),
    )


def _waiting(row: object) -> Waiting:
    if row is None:
        return Waiting(credits=0, clients=0, names=())
    credits_, clients, names = row.credits, row.clients, row.names  # type: ignore[attr-defined]
    return Waiting(credits=credits_, clients=clients, names=tuple(names))
