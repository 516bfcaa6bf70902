"""What a client's bucket can take, asked before the ledger has it: what is refused here waits for no bucket for ever.

At most 64 usable grants, which name at most 256 SKUs together, and no sum above 2^53 - 1. The ledger counts a grant as
usable until it is provably not: what repaid debt is known by the bucket alone, which is asked where the count matters.
The caller has locked the clients' rows, so that two grants of one client see each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from sqlalchemy import Connection, text

from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue
from billing.core.limits import USABLE_GRANTS_MAX
from billing.ledger.grant_terms import SKUS_OF_CLIENT_MAX, Terms

#: Names those grants of a client of which its bucket says that they have nothing, and that nothing comes back to them.
#: Raises `Retryable` where it cannot be asked now.
UsedUp = Callable[[str], Collection[int]]

#: What the log has not seen as spent may be usable; the bucket knows better.
_USABLE: Final = """
FROM credit_grant JOIN unnest(CAST(:clients AS text[])) AS asked (client_id) USING (client_id)
     LEFT JOIN grant_spent AS spent USING (client_id, grant_id)
WHERE credit_grant.credits > coalesce(spent.credits, 0) AND voided_at IS NULL
  AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""

_COUNTS = text(f"SELECT client_id, count(*) AS grants, sum(cardinality(skus)) AS skus {_USABLE} GROUP BY client_id")
_EACH = text(f"SELECT grant_id, cardinality(skus) AS skus {_USABLE}")

#: All that a client was granted, and all debt there ever was or may be once its waiting adjustments are applied. What
#: the log has beyond what a grant had is debt too, and so may be what is posted to a grant: it may have no more then.
_SUMS = text("""
SELECT client_id,
       (SELECT coalesce(sum(credits), 0) FROM credit_grant AS own WHERE own.client_id = asked.client_id)
       + (SELECT coalesce(sum(credits), 0) FROM grant_spent AS own
          WHERE own.client_id = asked.client_id AND grant_id = 0)
       + (SELECT coalesce(-sum(credits), 0) FROM ledger_entry AS own
          WHERE own.client_id = asked.client_id AND kind = 'adjust' AND grant_id IS NULL)
       + (SELECT coalesce(sum(credits), 0) FROM client_change AS own
          WHERE own.client_id = asked.client_id AND kind = 'adjust' AND applied_at IS NULL)
       + (SELECT coalesce(sum(greatest(0, spent.credits - coalesce(own.credits, 0) + coalesce(entered.credits, 0))
                              + greatest(0, coalesce(posted.credits, 0))), 0)
          FROM grant_spent AS spent LEFT JOIN credit_grant AS own USING (client_id, grant_id)
               LEFT JOIN (posting AS posted JOIN client USING (client_id, epoch)) USING (client_id, grant_id)
               LEFT JOIN (
                   SELECT grant_id, coalesce(max(entry.repaid), 0) - sum(entry.credits) AS credits
                   FROM ledger_entry AS entry
                   WHERE entry.client_id = asked.client_id AND kind <> 'grant'
                   GROUP BY grant_id
               ) AS entered USING (grant_id)
          WHERE spent.client_id = asked.client_id AND spent.grant_id <> 0) AS total
FROM unnest(CAST(:clients AS text[])) AS asked (client_id)
""")


def nobody_asked(client_id: str) -> Collection[int]:  # noqa: ARG001 - the signature is that of who knows
    """Know of no grant that is used up: the count is then the ledger's own, which may be too high."""
    return ()


def check_grant(
    connection: Connection, client_ids: Sequence[str], amount: int, terms: Terms, used_up: UsedUp = nobody_asked
) -> None:
    """Refuse a further grant for one of these clients if its bucket could not take it."""
    for row in connection.execute(_COUNTS, {"clients": list(client_ids)}).all():
        if _refusal(row.grants, int(row.skus), row.client_id, terms):
            known = used_up(row.client_id)
            each = connection.execute(_EACH, {"clients": [row.client_id]})
            left = [grant.skus for grant in each if grant.grant_id not in known]
            if refusal := _refusal(len(left), sum(left), row.client_id, terms):
                raise refusal
    check_sum(connection, client_ids, amount)


def check_sum(connection: Connection, client_ids: Sequence[str], amount: int) -> None:
    """Refuse what one of these clients can never be granted: no voiding and no spending makes room for it."""
    for client_id, total in _totals(connection, client_ids):
        if total + amount > CREDITS_MAX:
            whose = "" if len(client_ids) == 1 else f" for client {client_id!r}"
            rule = f"what a client was granted and ever owed stays within {CREDITS_MAX}"
            raise InvalidValue("credits", amount, f"must be at most {max(0, CREDITS_MAX - total)}{whose}: {rule}")


def check_adjustment(connection: Connection, client_id: str, amount: int) -> None:
    """Refuse to take credits away if the bucket could not count them as debt, whatever the client has by then."""
    ((_, total),) = _totals(connection, [client_id])
    if total + amount > CREDITS_MAX:
        rule = (
            f"must be at most {max(0, CREDITS_MAX - total)} below 0: what a client was granted and ever owed, were all "
            f"of it debt, stays within {CREDITS_MAX} (a grant is taken back whole by: billing void)"
        )
        raise InvalidValue("credits", -amount, rule)


def check_charge(connection: Connection, client_id: str, amount: int) -> None:
    """Refuse to charge a client more if its bucket could not count it as debt, whatever the client has by then."""
    ((_, total),) = _totals(connection, [client_id])
    if total + amount > CREDITS_MAX:
        rule = f"what a client was granted and ever owed, were all of it debt, stays within {CREDITS_MAX}"
        raise InvalidValue("credits", amount, f"must be at most {max(0, CREDITS_MAX - total)}: {rule}")


def _refusal(grants: int, skus: int, client_id: str, terms: Terms) -> InvalidValue | None:
    if grants >= USABLE_GRANTS_MAX:
        rule = f"has {grants} grants with credits left; a client holds at most {USABLE_GRANTS_MAX} at a time"
        return InvalidValue("client_id", client_id, rule)
    if terms.skus and skus + len(terms.skus) > SKUS_OF_CLIENT_MAX:
        rule = (
            f"must be at most {max(0, SKUS_OF_CLIENT_MAX - skus)}: the grants of a client that have credits left name "
            f"at most {SKUS_OF_CLIENT_MAX} SKUs together"
        )
        return InvalidValue("skus", len(terms.skus), rule)
    return None


def _totals(connection: Connection, client_ids: Sequence[str]) -> list[tuple[str, int]]:
    rows = connection.execute(_SUMS, {"clients": list(client_ids)})
    return [(row.client_id, int(row.total)) for row in rows]
