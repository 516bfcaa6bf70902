"""What the tests of corrections share: charges that are in the log, corrections of them, and what the log then says."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from billing import admin
from billing.fulfillment import decoder
from billing.fulfillment.adjustments import Adjustment
from tests.integration.consuming import query, usage_log
from tests.integration.posting import direct, settled
from tests.integration.recovering import Business, the_run
from tests.usage_events import delivered


def charge(business: Business, credits_: int, task_id: str) -> uuid.UUID:
    """Settle a run of acme and write it to the log; return its id."""
    log_event(business, settled(business, credits_, task_id))
    return the_run("acme", task_id)


def charge_direct(business: Business, credits_: int, task_id: str) -> uuid.UUID:
    """Write a run of acme that no bucket has paid to the log; its posting waits. Return its id."""
    log_event(business, direct(credits_, task_id))
    return the_run("acme", task_id)


def log_event(business: Business, body: bytes) -> None:
    """Write an event to the log, as a consumer does."""
    log = usage_log(business.settings)
    try:
        report = log.write([delivered(decoder.decode(body), body)])
    finally:
        log.close()
    assert (report.events, report.dead_letters) == (1, 0)


def correct(business: Business, run: uuid.UUID | str, credits_: int, **options: Any) -> Adjustment:
    """Correct a line; its bucket has it at once."""
    found, applied = admin.adjust_usage(business.settings, run, credits_, **{"reason": "a test", **options})
    assert applied
    return found


def logged(business: Business) -> dict[int, int]:
    """Return what the log's rows say that each grant of acme has paid, without those that it says nothing of."""
    rows = query(
        business.settings,
        """SELECT share."grant", sum(share.credits)::bigint FROM usage_history
           CROSS JOIN LATERAL jsonb_to_recordset(grants) AS share ("grant" bigint, credits bigint)
           WHERE client_id = 'acme' GROUP BY 1""",
    )
    return {grant: credits_ for grant, credits_ in rows if credits_}


def spent(business: Business) -> Mapping[int, int]:
    """Return what the bucket of acme says that each grant has paid, debt beyond a grant as that grant's."""
    balance = business.runtime.buckets.balance("acme")
    assert balance is not None
    found = {grant.grant_id: grant.spent + balance.beyond.get(grant.grant_id, 0) for grant in balance.grants}
    found[0] = balance.debt - sum(balance.beyond.values())
    return {grant: credits_ for grant, credits_ in found.items() if credits_}
