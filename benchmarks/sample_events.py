"""Usage events as workers publish them, from one seeded source of chance: what both consumer benchmarks are fed."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable

from billing.core import ids
from billing.events.usage_event import GrantShare, PaidLine, UsageEvent


def sample_events(seeded: random.Random, client_ids: Iterable[str]) -> list[UsageEvent]:
    """Return one event of one line for each client id, all of this moment."""
    now = int(time.time() * 1000)
    return [_event(seeded, client_id, now) for client_id in client_ids]


def _event(seeded: random.Random, client_id: str, now: int) -> UsageEvent:
    task_id = str(uuid.UUID(int=seeded.getrandbits(128)))
    share = GrantShare(grant=seeded.randint(1, 100), credits=10)
    return UsageEvent(
        version=1,
        run_id=ids.run_id(client_id, task_id, nesting=0, nonce="", at_milliseconds=now),
        client_id=client_id,
        correlation_id=task_id,
        root_id=task_id,
        task="worker_tasks.capture.capture_page",
        attempt=1,
        submitted_at=now,
        price_version=1,
        settlement_id=f"{seeded.getrandbits(128):032x}",
        occurred_at=now,
        epoch=1,
        late=False,
        lines=(PaidLine(sku=seeded.choice(("page", "search", "kib")), quantity=1, credits=10, grants=(share,)),),
    )
