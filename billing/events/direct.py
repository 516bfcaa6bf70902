"""The direct event: a charge that Redis could not take, written by the worker alone.

It has epoch 0: no bucket has paid it, and grant 0, which is debt, stands for whoever will. The log's consumer allots it
to the client's grants and posts that to the bucket. The same settlement may have reached Redis after all (its answer
was lost): then the two events are one run, and what the bucket took is given back. A run outside the ceiling has such
an event from the start: it says its mode, and costs nothing in a dry run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from billing.core.credits import NO_GRANT
from billing.events.usage_event import EventHead, GrantShare, Mode, PaidLine, UsageEvent, UsageLine

#: The epoch of an event that no bucket has paid.
DIRECT_EPOCH: Final = 0


def encode_direct(
    head: EventHead, lines: Sequence[UsageLine], *, settlement_id: str, occurred_at: int, mode: Mode | None = None
) -> bytes:
    """Return the whole event; `occurred_at` is the worker's clock, in milliseconds since the Unix epoch."""
    event = UsageEvent(
        **msgspec.structs.asdict(head),
        settlement_id=settlement_id,
        occurred_at=occurred_at,
        epoch=DIRECT_EPOCH,
        # Without a hold from the start nothing is late.
        late=mode is None,
        mode=mode,
        lines=tuple(
            PaidLine(
                sku=line.sku,
                quantity=line.quantity,
                credits=line.credits,
                grants=(GrantShare(grant=NO_GRANT, credits=line.credits),) if line.credits else (),
            )
            for line in lines
        ),
    )
    return msgspec.json.encode(event)
