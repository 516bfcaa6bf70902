"""What the storm's beat is started with: everything that beat does in production, as often as minutes allow it to be.

An increment to Stripe each quarter of a minute instead of every four hours, so that the storm has some to hit.
"""

from __future__ import annotations

import os
from typing import Final

from billing.integration.schedule import build_schedule
from tests.fleet.tasks import make_app

#: Seconds between two runs of what is scheduled otherwise for each so many minutes.
_SECONDS: Final = {
    "billing.beat.seen": 2.0,
    "billing.fulfillment.drain": 20.0,
    "billing.stripe.plan": 6.0,
    "billing.stripe.push": 7.0,
    "billing.stripe.confirm": 9.0,
    "billing.stripe.errors": 17.0,
    "billing.laws.check": 30.0,
}

app = make_app(os.environ)
app.conf.beat_schedule = {
    name: {**entry, "schedule": _SECONDS.get(name, 25.0)} for name, entry in build_schedule().items()
}
