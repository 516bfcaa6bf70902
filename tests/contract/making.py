"""Makes holds and settlements for the tests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

from billing.core.ids import new_settlement_id, run_id
from billing.credits.values import GrantOutcome, Hold, Settlement
from billing.credits.verbs import Verbs


def a_run(client_id: str = "acme", task_id: str = "task-1", *, at_milliseconds: int | None = 0) -> UUID:
    """Return a run id; its time is the present unless told."""
    at = int(time.time() * 1_000) if at_milliseconds == 0 else at_milliseconds
    return run_id(client_id, task_id, nesting=0, nonce="", at_milliseconds=at)


def a_hold(
    run: UUID,
    credits_: int,
    *,
    client_id: str = "acme",
    token: str = "first",
    sku: str = "page",
    price_version: int = 1,
) -> Hold:
    """Return what an attempt asks for."""
    return Hold(
        run_id=run,
        client_id=client_id,
        sku=sku,
        credits=credits_,
        token=token,
        price_version=price_version,
        attempt=1,
        head=b'{"run_id":"%s"' % str(run).encode(),
        lines=b'[{"sku":"page","quantity":1,"credits":%d}]' % credits_,
    )


def a_settlement(
    run: UUID, *amounts: int, client_id: str = "acme", settlement_id: str = "", skus: Sequence[str] = ()
) -> Settlement:
    """Return the settling of a run with one line per amount."""
    names = skus or [f"sku-{number}" for number in range(len(amounts))]
    return Settlement(
        run_id=run,
        client_id=client_id,
        sku="page",
        settlement_id=settlement_id or new_settlement_id(),
        head=b'{"run_id":"%s"' % str(run).encode(),
        fragments=tuple(
            b'{"sku":"%s","quantity":1,"credits":%d' % (name.encode(), amount)
            for name, amount in zip(names, amounts, strict=True)
        ),
        amounts=amounts,
    )


def a_client(buckets: Verbs, *grants: int, client_id: str = "acme") -> None:
    """Open a client's bucket with grants 1, 2, … of so many credits."""
    buckets.open_client(client_id)
    for number, credits_ in enumerate(grants, start=1):
        assert buckets.grant(client_id, number, credits_) is GrantOutcome.GRANTED
