"""The broker: whether it answers and confirms, and its usage queues."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from billing.connections import broker
from billing.core.settings import without_password
from billing.events import topology
from billing.observability.doctor.finding import Finding, ok, warn
from billing.task.runtime import Runtime


def examine_broker(runtime: Runtime) -> Iterator[Finding]:
    """Look at the broker and at each usage queue."""
    settings = runtime.settings
    connection = broker.connection(settings)
    with broker.reaching(settings, connection), connection:
        connection.ensure_connection(max_retries=1, timeout=max(1, round(settings.publish_timeout_seconds)))
        yield ok("broker", f"answers at {without_password(settings.broker_url)}")
        if not broker.confirms(settings):
            yield warn("broker", "has no confirms (Redis transport)", "use RabbitMQ where money is at stake")
            return
        for number in range(settings.usage_queues):
            queue = topology.queue_name(settings, number)
            channel: Any = connection.channel()
            try:
                declared = channel.queue_declare(queue, passive=True)
            except connection.channel_errors:
                yield warn("broker", f"queue {queue} is not declared yet", "start a worker with --fulfillment")
                continue
            finally:
                channel.close()
            verdict = ok if declared.consumer_count else warn
            seen = f"queue {queue}: {declared.message_count} events, {declared.consumer_count} consumers"
            yield verdict("broker", seen, "start a worker with --fulfillment")
