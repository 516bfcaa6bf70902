"""The exchange and the usage queues, declared by us, durable and the same in every process.

A client's shard decides its queue and each queue has a single active consumer, so that one client's events have one
order and one writer. It refuses to lose: the delivery limit is written out (a count rises with every disconnect, and
RabbitMQ 4's default of 20 would drop good events in a long outage; -1 loses messages on 3.10), a queue to which a
policy gives a length refuses events and keeps what it has, and there is no dead-letter exchange, since what cannot be
used goes to the table `dead_letter` with its reason.
"""

from __future__ import annotations

from typing import Final

import kombu
from kombu.transport.base import StdChannel

from billing.connections.broker import confirms
from billing.core.settings import Settings

#: As good as never, and a number that every RabbitMQ from 3.10 on takes (L9).
DELIVERY_LIMIT: Final = 1_000_000_000

_QUORUM: Final = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,
    "x-delivery-limit": DELIVERY_LIMIT,
    "x-overflow": "reject-publish",
}


def exchange(settings: Settings) -> kombu.Exchange:
    """Return the usage exchange, not bound to a channel."""
    return kombu.Exchange(settings.usage_exchange, type="topic", durable=True)


def queue_name(settings: Settings, number: int) -> str:
    """Return the name of usage queue `number`; it is its routing key too."""
    return f"{settings.usage_exchange}.{number}"


def queue(settings: Settings, number: int) -> kombu.Queue:
    """Return usage queue `number`: a quorum queue on RabbitMQ, a plain durable one on kombu's Redis transport."""
    name = queue_name(settings, number)
    return kombu.Queue(
        name,
        exchange(settings),
        routing_key=name,
        durable=True,
        queue_arguments=dict(_QUORUM) if confirms(settings) else None,
    )


def declare(settings: Settings, channel: StdChannel) -> None:
    """Declare exchange, queues and bindings; what is there already is left as it is.

    A queue that exists with other arguments is an error of the channel: RabbitMQ does not change a queue.
    """
    exchange(settings)(channel).declare()
    for number in range(settings.usage_queues):
        queue(settings, number)(channel).declare()
