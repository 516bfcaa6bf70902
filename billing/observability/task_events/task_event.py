"""The task event `task-billed`: what a delivery did to its client's credits, for Flower and other monitors.

Pure. One per delivery whose billing ended: charged, late, pending, released, refused, parked, or outside the ceiling.
One that goes on (a retry, a delivery that is put off) has none. It says nothing of the task's arguments but who pays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from celery.states import FAILURE

from billing.core.errors import BillingError, InsufficientCredits
from billing.task.billable import BillableTask
from billing.task.headers import CLIENT
from billing.task.outcome import Outcome
from billing.task.park import Parked
from billing.task.run import Run

TYPE: Final = "task-billed"

#: The fields of the event. `client` alone is taken: Celery keeps the publisher's host there.
CLIENT_FIELD: Final = "billing_client"
SKU_FIELD: Final = "billing_sku"
CHARGED_FIELD: Final = "billing_charged"
RESERVED_FIELD: Final = "billing_reserved"
OUTCOME_FIELD: Final = "billing_outcome"
FIELDS: Final = (CLIENT_FIELD, SKU_FIELD, CHARGED_FIELD, RESERVED_FIELD, OUTCOME_FIELD)


def of_run(run: Run) -> dict[str, Any] | None:
    """Return the fields of a delivery that reserved, or None while its billing goes on."""
    if run.outcome is Outcome.HELD:
        return None
    fields: dict[str, Any] = {
        CLIENT_FIELD: run.identity.client_id,
        SKU_FIELD: _named(list(run.quantities())),
        RESERVED_FIELD: run.hold.credits if run.mode is None else 0,
        OUTCOME_FIELD: run.outcome.value,
    }
    # Not there for a run that an earlier delivery has settled: what that one said stays.
    charged = 0 if run.outcome is Outcome.RELEASED else run.credits_charged
    return fields if charged is None else fields | {CHARGED_FIELD: charged}


def of_refusal(
    task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any], state: str | None, outcome: object
) -> dict[str, Any] | None:
    """Return the fields of a delivery that got no reservation, or None if it was put off."""
    if isinstance(outcome, Parked):
        return {
            CLIENT_FIELD: outcome.client_id,
            SKU_FIELD: outcome.sku,
            CHARGED_FIELD: 0,
            RESERVED_FIELD: 0,
            OUTCOME_FIELD: Outcome.PARKED.value,
        }
    if state != FAILURE:
        return None
    client_id, sku = None, None
    if isinstance(outcome, InsufficientCredits):
        client_id, sku = outcome.client_id, outcome.sku
    else:
        try:
            client_id = task.definition.client_of(args, kwargs, (task.request.headers or {}).get(CLIENT))
            sku = task.definition.sku_of(args, kwargs)
        except BillingError:
            # It was refused for this: what it has no word for stays empty.
            pass
    return {
        CLIENT_FIELD: client_id,
        SKU_FIELD: sku,
        CHARGED_FIELD: 0,
        RESERVED_FIELD: 0,
        OUTCOME_FIELD: Outcome.REFUSED.value,
    }


def _named(skus: Sequence[str]) -> str:
    """Return the first SKU, and how many more there are: `pages +2`."""
    first = skus[0]
    return first if len(skus) == 1 else f"{first} +{len(skus) - 1}"
