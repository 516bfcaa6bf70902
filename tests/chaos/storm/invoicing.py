"""L8 after a storm: what Stripe's stand-in would bill, what waits, and what is in doubt, is what was logged.

An increment whose answer was lost is there or is not, and says so until Stripe's sums have proved it, which takes
longer than a storm. So the rest between two sums must be made of whole increments in doubt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import psycopg

from billing import admin
from billing.workload.stripe_report import report_usage
from tests.chaos.storm.book import Law
from tests.chaos.storm.site import Site

_WAITING: Final = """
    -- per client: the credits that no increment carries yet, or that an increment carries which nobody has sent
    SELECT client_id, sum(credits)::bigint FROM (
        SELECT client_id, credits - planned AS credits FROM usage_rollup
        UNION ALL SELECT client_id, units * credits_per_unit FROM stripe_increment WHERE state = 'pending'
    ) AS waiting GROUP BY client_id
"""
_DOUBTFUL: Final = """
    -- per client: the increments of which nobody knows whether Stripe has them
    SELECT client_id, array_agg(units * credits_per_unit) FROM stripe_increment
    WHERE state NOT IN ('pending', 'sent', 'confirmed') GROUP BY client_id
"""


def invoice(site: Site, charged: Counter[str]) -> Law:
    """Report the rest to the stand-in, and compare it with the log, client by client."""
    settings, names = site.fleet.settings, sorted(charged)
    report = report_usage(settings, names)
    with psycopg.connect(settings.database_url, connect_timeout=10) as connection:
        waiting: dict[str, int] = dict(connection.execute(_WAITING).fetchall())
        doubtful: dict[str, Sequence[int]] = dict(connection.execute(_DOUBTFUL).fetchall())
    totals: Mapping[str, Mapping[str, int]] = site.control.state()["totals"]
    customers = admin.customers(settings, names)
    broken = [] if report.reached else [report.text]
    units = 0
    for name in names:
        there = totals.get(customers.get(name, ""), {}).get(settings.stripe_meter, 0)
        waits, doubts = waiting.get(name, 0), doubtful.get(name, ())
        units += there
        if charged[name] - there - waits not in _sums(doubts):
            broken.append(f"{name}: Stripe {there}, waiting {waits}, in doubt {list(doubts)}, logged {charged[name]}")
    waits, logged = sum(waiting.values()), charged.total()
    says = f"Stripe's units ({units:,}) + waiting ({waits:,}) + in doubt ({logged - units - waits:,}) = logged"
    return Law(law="L8 invoice", says=says, examined=len(names), violations=broken)


def _sums(doubts: Sequence[int]) -> set[int]:
    """Return every sum that some of these make; increments of one client in doubt are few."""
    found = {0}
    for units in doubts:
        found |= {units + other for other in found}
    return found
