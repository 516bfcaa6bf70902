"""What the consumer says to PostgreSQL for one batch, of whatever size, and however long the history has become."""

from __future__ import annotations

from typing import Final

from billing import admin
from billing.connections import postgres
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.postgres_log import PostgresUsageLog
from tests.cost.place import Place
from tests.cost.wires import Counts
from tests.usage_events import delivered, usage_event

SIZES: Final = (1, 100, 1_000)
HISTORY: Final = 5_000
CLIENTS: Final = 20


def measure(place: Place) -> dict[str, Counts]:
    """Write batches of several sizes before and after a history; and one batch a second time, which is all twins."""
    settings = place.settings()
    clients = [f"client-{number}" for number in range(CLIENTS)]
    for client_id in clients:
        admin.add_client(settings, client_id)
    admin.close(settings)
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    found: dict[str, Counts] = {}
    try:
        log.write([delivered(usage_event(client_id)) for client_id in clients])
        for when in ("", ".after_5000"):
            for size in SIZES:
                batch = [delivered(usage_event(clients[number % CLIENTS])) for number in range(size)]
                found[f"batch.{size}{when}"] = _written(place, log, batch)
                if size == SIZES[1] and not when:
                    found["batch.100_twins"] = _written(place, log, batch)
            for _ in range(0, HISTORY if not when else 0, SIZES[-1]):
                log.write([delivered(usage_event(clients[number % CLIENTS])) for number in range(SIZES[-1])])
    finally:
        log.close()
    return found


def _written(place: Place, log: PostgresUsageLog, batch: list[Delivered]) -> Counts:
    counts = place.wires.counted(lambda: log.write(batch), "sql")
    return {name: count for name, count in counts.items() if "bytes" not in name}
