"""How many bytes a usage event has, and what its publish says to RabbitMQ: alone, and in the relay's batches."""

from __future__ import annotations

import uuid
from typing import Final

from billing.core.shards import queue_of, shard_of
from billing.credits.values import Settlement
from billing.events.links import Outgoing
from billing.events.usage_event import EventHead, UsageLine, encode_fragment, encode_head
from billing.task.runtime import Runtime
from tests.contract.making import a_hold
from tests.cost.place import Place
from tests.cost.wires import Counts

RUN: Final = "0198f0a2-0000-7000-8000-00000000000{}"
BATCH: Final = 100


def settled(runtime: Runtime, number: int, *, lines: int, client_id: str, amount: int) -> bytes:
    """Settle a run of so many lines, of so many credits each; return its event."""
    run = uuid.UUID(RUN.format(number))
    head = EventHead(
        run_id=run,
        client_id=client_id,
        correlation_id=str(run),
        root_id=str(run),
        task="worker_tasks.capture.capture_page",
        attempt=1,
        submitted_at=1_790_000_000_000,
        price_version=1,
    )
    runtime.buckets.reserve(a_hold(run, lines * amount, client_id=client_id))
    made = [UsageLine(sku=f"sku-{place}", quantity=amount, credits=amount) for place in range(lines)]
    settlement = Settlement(
        run_id=run,
        client_id=client_id,
        sku="page",
        settlement_id="0" * 16,
        head=encode_head(head),
        fragments=tuple(encode_fragment(line) for line in made),
        amounts=(amount,) * lines,
    )
    event = runtime.buckets.settle(settlement).event
    assert event is not None
    return event


def measure(place: Place) -> dict[str, Counts]:
    """Settle runs of one line, of four, and of one that eight grants pay; publish events one by one and together."""
    with place.runtime() as runtime:
        buckets = runtime.buckets
        for shard in range(buckets.shards):
            buckets.verify(shard, expected=None)
        for client_id, grants, amount in (("whole", 1, 1_000), ("parts", 8, 5)):
            buckets.open_client(client_id)
            for number in range(1, grants + 1):
                buckets.grant(client_id, number, amount)
        events = {
            "event.1_line": settled(runtime, 1, lines=1, client_id="whole", amount=5),
            "event.4_lines": settled(runtime, 2, lines=4, client_id="whole", amount=5),
            "event.8_grants": settled(runtime, 3, lines=1, client_id="parts", amount=40),
        }
        found: dict[str, Counts] = {name: {"bytes": len(event)} for name, event in events.items()}
        settings, publisher = runtime.settings, runtime.publisher
        shard = shard_of("whole", settings.shards)
        queue = queue_of(shard, settings.usage_queues)
        message = Outgoing(body=events["event.1_line"], shard=shard, entry_id="1790000000000-0")
        publisher.publish_batch(queue, [message])
        for count in (1, BATCH):
            work = place.wires.counted(lambda count=count: publisher.publish_batch(queue, [message] * count), "amqp")  # type: ignore[misc]
            # How many confirms come in one frame, the server decides.
            own = {name: value for name, value in work.items() if "received" not in name or count == 1}
            found[f"publish.{count}"] = own
    return found
