"""Usage events for tests: plausible, small, and each its own run unless told otherwise."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

import msgspec

from billing.core import ids
from billing.events.usage_event import GrantShare, PaidLine, UsageEvent
from billing.fulfillment.delivery import Delivered, Marker, Poison

QUEUE = "billing.usage.0"


def paid_line(sku: str = "page", quantity: int = 1, shares: Sequence[tuple[int, int]] = ((1, 10),)) -> PaidLine:
    """Make a line that the given (grant, credits) paid."""
    grants = tuple(GrantShare(grant=grant, credits=credits) for grant, credits in shares)
    return PaidLine(sku=sku, quantity=quantity, credits=sum(share.credits for share in grants), grants=grants)


def usage_event(
    client_id: str = "acme",
    task_id: str | None = None,
    lines: Sequence[PaidLine] = (),
    *,
    settlement_id: str | None = None,
    epoch: int = 1,
    at_milliseconds: int | None = None,
    occurred_at: int | None = None,
    run_id: uuid.UUID | None = None,
) -> UsageEvent:
    """Make an event: the same client, task id and time are the same run, each call is another settlement."""
    now = int(time.time() * 1000) if at_milliseconds is None else at_milliseconds
    task_id = task_id or str(uuid.uuid4())
    return UsageEvent(
        version=1,
        run_id=run_id or ids.run_id(client_id, task_id, nesting=0, nonce="", at_milliseconds=now),
        client_id=client_id,
        correlation_id=task_id,
        root_id=task_id,
        task="worker_tasks.capture.capture_page",
        attempt=1,
        submitted_at=now,
        price_version=1,
        settlement_id=settlement_id or ids.new_settlement_id(),
        occurred_at=now + 5 if occurred_at is None else occurred_at,
        epoch=epoch,
        late=False,
        lines=tuple(lines) or (paid_line(),),
    )


def delivered(decoded: UsageEvent | Marker | Poison, body: bytes | None = None) -> Delivered:
    """Return the message that carries it."""
    return Delivered(body=msgspec.json.encode(decoded) if body is None else body, queue=QUEUE, decoded=decoded)
