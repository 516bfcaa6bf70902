"""What the stand-in's own request log says of a report: one call for each client, meter and period, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from billing.connections import postgres
from billing.core.settings import Settings
from billing.reconciliation.report import Finding
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.workload.findings import finding

EVENTS_PATH: Final = "/v1/billing/meter_events"
_OK: Final = 200

_PLACES: Final = """
    -- which client, meter and period each identifier is of
    SELECT generation.identifier, client_id, event_name,
           to_char(generation.period_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')
    FROM stripe_generation AS generation JOIN stripe_increment AS increment USING (increment_id)
    WHERE client_id = ANY(%s)
"""


def accepted(settings: Settings) -> list[str]:
    """Return the identifiers of the calls that the stand-in has accepted, as its request log has them."""
    with SandboxControl(settings.stripe_sandbox_url) as control:
        calls = [one for one in control.requests() if one["path"] == EVENTS_PATH and one["status"] == _OK]
    return [str(one["identifier"]) for one in calls]


def one_call_each(settings: Settings, client_ids: Sequence[str], before: Collection[str]) -> Finding:
    """L8: of what was accepted since, each client, meter and period took one call."""
    known = frozenset(before)
    calls = [identifier for identifier in accepted(settings) if identifier not in known]
    with postgres.reaching(settings), postgres.connect(settings) as connection:
        rows = connection.execute(_PLACES, [list(client_ids)]).fetchall()
    places = {identifier: (client, meter, period) for identifier, client, meter, period in rows}
    counted = Counter(places[identifier] for identifier in calls if identifier in places)
    wrong = [
        f"{client}: {count} calls to {meter} for the period from {period}"
        for (client, meter, period), count in counted.items()
        if count > 1
    ]
    text = f"its request log has {sum(counted.values()):,} calls: one for each client, meter and period"
    return finding("L8 one call", wrong, text)
