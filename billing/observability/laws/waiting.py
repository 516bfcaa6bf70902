"""L9, what waits: usage events in the outbox, parked tasks past their end, increments for Stripe, months to be made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import text

from billing.connections import postgres
from billing.observability.liveness.judging import told
from billing.recovery.facts import shards_with_clients
from billing.schema.months import Partition, missing_months
from billing.task.runtime import Runtime

#: The relay publishes after `billing_relay_after_seconds`, each second; a broker that restarts takes a few minutes.
OUTBOX_MAX: Final = timedelta(minutes=10)
#: A loop ends what waited too long each second, and beat's `billing.parked.start` every five minutes.
PARKED_OVERDUE_MAX: Final = timedelta(minutes=10)
#: A push goes out every quarter of an hour: a day is 96 of them, and as long as an identifier is known at Stripe.
PENDING_MAX: Final = timedelta(days=1)
#: A call takes seconds, and the next push takes up what one that died had sent: four of them have gone by.
SENDING_MAX: Final = timedelta(hours=1)

_PARKED: Final = text("SELECT count(*) FROM parked_task WHERE state = 'waiting' AND expires_at < :before")
_INCREMENTS: Final = text("""
SELECT count(*) FILTER (WHERE state = 'pending' AND planned_at < :planned_before) AS pending,
       count(*) FILTER (WHERE state = 'sending' AND coalesce(last_attempt_at, planned_at) < :sent_before) AS sending
FROM stripe_increment WHERE state NOT IN ('sent', 'confirmed', 'written_off') AND state IN ('pending', 'sending')
""")
_PARTS: Final = text("SELECT name, schema, place, first_id, end_id FROM usage_partition")


def outbox_waiting(runtime: Runtime, _: dict[str, Any]) -> Iterator[str]:
    """Yield that the oldest usage event waits for the broker for too long."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        shards = sorted(shards_with_clients(connection))
    waiting = runtime.buckets.oldest_outbox_ms(shards)
    oldest = max((age_ms for _, age_ms in waiting.values()), default=0) / 1_000
    if oldest > OUTBOX_MAX.total_seconds():
        events = sum(depth for depth, _ in waiting.values())
        yield f"{events:,} usage events wait in outboxes, the oldest for {told(oldest)}"


def parked_overdue(runtime: Runtime, _: dict[str, Any]) -> Iterator[str]:
    """Yield that parked tasks wait past their end."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        overdue = connection.execute(_PARKED, {"before": runtime.clock.now() - PARKED_OVERDUE_MAX}).scalar_one()
    if overdue:
        yield f"{overdue:,} parked tasks wait past their end"


def increments_waiting(runtime: Runtime, _: dict[str, Any]) -> Iterator[str]:
    """Yield that increments are not sent, or that what became of a call is not noted."""
    now = runtime.clock.now()
    given = {"planned_before": now - PENDING_MAX, "sent_before": now - SENDING_MAX}
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        found = connection.execute(_INCREMENTS, given).one()
    if found.pending:
        yield f"{found.pending:,} increments are planned for more than a day, and not sent"
    if found.sending:
        yield f"{found.sending:,} increments are being sent for more than an hour"


def months_missing(runtime: Runtime, _: dict[str, Any]) -> Iterator[str]:
    """Yield the months that runs may have ids of, up to five weeks from now, and that have no partition."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        parts = [Partition(**row) for row in connection.execute(_PARTS).mappings()]
    missing = missing_months(parts, runtime.clock.now())
    if missing:
        yield f"the usage history has no partition for {', '.join(missing[:5])}"
