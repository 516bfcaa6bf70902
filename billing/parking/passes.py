"""One bounded pass over the parked tasks: what beat runs, in case no fulfillment worker's loops did."""

from __future__ import annotations

import celery

from billing.parking.services import Services
from billing.parking.starting import Starter
from billing.parking.telling import Teller


def make_pass(app: celery.Celery, services: Services) -> int:
    """Start what can be paid and end what is too old, tell the ends of others; return how many were started."""
    starter = Starter(app, services)
    try:
        return starter.step()
    finally:
        starter.close()
        Teller(app, services).step()
