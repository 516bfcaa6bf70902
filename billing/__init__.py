"""Usage-based billing for Celery fleets.

Every task that succeeds is charged exactly once, no client starts work that it cannot pay for, and every credit can
be followed from the grant that paid for it, through the task that used it, to the usage history.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from billing import admin, alerts
    from billing.core.errors import (
        AlreadyCharged,
        BillingError,
        ClientInactive,
        InsufficientCredits,
        InvalidValue,
        UnknownClient,
        UnknownSku,
    )
    from billing.events.usage_event import UsageEvent
    from billing.integration.outside import quote, reserve
    from billing.integration.setup import setup
    from billing.task import usage
    from billing.task.billable import BillableTask

__all__ = [
    "AlreadyCharged",
    "BillableTask",
    "BillingError",
    "ClientInactive",
    "InsufficientCredits",
    "InvalidValue",
    "UnknownClient",
    "UnknownSku",
    "UsageEvent",
    "admin",
    "alerts",
    "quote",
    "reserve",
    "setup",
    "usage",
]

#: Public names that are rooms of ours.
_ROOMS: Final = ("admin", "alerts", "usage")
#: Public name → where it is. Imported when it is asked for, so that `import billing.core` brings no Celery along.
_PUBLIC: Final = {
    "AlreadyCharged": "billing.core.errors",
    "BillableTask": "billing.task.billable",
    "BillingError": "billing.core.errors",
    "ClientInactive": "billing.core.errors",
    "InsufficientCredits": "billing.core.errors",
    "InvalidValue": "billing.core.errors",
    "UnknownClient": "billing.core.errors",
    "UnknownSku": "billing.core.errors",
    "UsageEvent": "billing.events.usage_event",
    "admin": "billing.admin",
    "alerts": "billing.alerts",
    "quote": "billing.integration.outside",
    "reserve": "billing.integration.outside",
    "setup": "billing.integration.setup",
    "usage": "billing.task.usage",
}


def __getattr__(name: str) -> Any:
    where = _PUBLIC.get(name)
    if where is None:
        raise AttributeError(f"module 'billing' has no attribute {name!r}")
    module = importlib.import_module(where)
    # A public name that is a room of ours stands for the room itself.
    value = module if where.rpartition(".")[2] == name and name in _ROOMS else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
