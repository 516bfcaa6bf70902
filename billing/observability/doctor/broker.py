"""The broker: which one it is, whether it takes what is published, and whether each usage queue is what billing needs.

Everything is asked over AMQP, as a worker does; the management plugin is not. So policies and bindings are not seen:
`rabbitmqctl list_policies` shows them. What is sent is one message to no queue, which the broker returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from amqp import exceptions as amqp_errors
from kombu import Connection, Message

from billing.connections import broker
from billing.core.settings import Settings, without_password
from billing.events import topology
from billing.events.confirms import Blocked, ConfirmingChannel, Unconfirmed, Unroutable
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.task.runtime import Runtime

_PART: Final = "broker"
#: The first whose quorum queues have a delivery limit that may be written out, and single active consumers that last.
_VERSION_MIN: Final = (3, 10)
_START: Final = "start a worker with --fulfillment"


def examine_broker(runtime: Runtime) -> Iterator[Finding]:
    """Look at the broker and at each usage queue."""
    settings, blocked = runtime.settings, list[str]()
    connection = broker.connection(settings, on_blocked=blocked.append)
    try:
        with broker.reaching(settings, connection):
            broker.open_once(settings, connection)
            if broker.confirms(settings):
                yield from _rabbitmq(settings, connection, blocked)
                return
            yield ok(_PART, f"answers at {without_password(settings.broker_url)}")
            yield warn(_PART, "has no confirms (Redis transport)", "use RabbitMQ where money is at stake")
    finally:
        # A broker that has blocked this connection would not hear its end.
        broker.throw_away(settings, connection)


def _rabbitmq(settings: Settings, connection: Connection, blocked: list[str]) -> Iterator[Finding]:
    yield _version(settings, connection.connection.server_properties)
    if (wrong := _exchange(settings, connection)) is not None:
        yield wrong
    else:
        yield _publishing(settings, connection, blocked)
    if blocked:
        return  # it reads nothing from this connection any more
    agree = 0
    for number in range(settings.usage_queues):
        name = topology.queue_name(settings, number)
        channel: Any = connection.channel()
        try:
            declared = channel.queue_declare(name, passive=True)
            # Only a declaration of what is there compares: it changes nothing.
            topology.queue(settings, number)(channel).queue_declare()
        except amqp_errors.NotFound:
            yield warn(_PART, f"queue {name} is not declared yet", _START)
            continue
        except amqp_errors.AccessRefused:
            yield warn(_PART, f"the user may not look at queue {name}", "give it configure, write and read on it")
            continue
        except amqp_errors.PreconditionFailed as error:
            advice = f"stop its consumers, empty it, delete it (rabbitmqctl delete_queue {name}), then {_START}"
            yield fail(_PART, f"queue {name} is not as billing declares it: {_difference(error)}", advice)
            continue
        finally:
            _close(channel)
        agree += 1
        verdict = ok if declared.consumer_count else warn
        seen = f"queue {name}: {declared.message_count} events, {declared.consumer_count} consumers"
        yield verdict(_PART, seen, _START)
    if agree:
        kept = f"quorum, single active consumer, delivery limit {topology.DELIVERY_LIMIT:,}, no dead-letter exchange"
        unseen = "policies and bindings are not seen over AMQP: rabbitmqctl list_policies"
        yield ok(_PART, f"{agree} usage queues are as declared: {kept}; {unseen}")


def _version(settings: Settings, properties: dict[str, Any]) -> Finding:
    product, version = str(properties.get("product", "broker")), str(properties.get("version", ""))
    seen = f"answers at {without_password(settings.broker_url)}: {product} {version}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if product != "RabbitMQ":
        return warn(_PART, seen, "billing is written for RabbitMQ: see that quorum queues do what it needs")
    if numbers < _VERSION_MIN:
        return fail(_PART, seen, "use RabbitMQ 3.10 or later: an older one drops events after some disconnects")
    return ok(_PART, seen)


def _exchange(settings: Settings, connection: Connection) -> Finding | None:
    """Return what keeps the usage exchange from being published to; None: nothing."""
    channel: Any = connection.channel()
    name = settings.usage_exchange
    try:
        channel.exchange_declare(name, "topic", passive=True)
        topology.exchange(settings)(channel).declare()
    except amqp_errors.NotFound:
        return warn(_PART, f"exchange {name} is not declared yet", _START)
    except amqp_errors.AccessRefused:
        return warn(_PART, f"the user may not look at exchange {name}", "give it configure and write on it")
    except amqp_errors.PreconditionFailed as error:
        seen = f"exchange {name} is not as billing declares it: {_difference(error)}"
        return fail(_PART, seen, f"delete it, then {_START}")
    finally:
        _close(channel)
    return None


def _publishing(settings: Settings, connection: Connection, blocked: list[str]) -> Finding:
    """Publish to no queue: a broker that reads returns it; one that is short of memory or disk says so, or nothing."""
    channel: Any = connection.channel()
    confirming = ConfirmingChannel(channel)

    def note(reason: str) -> None:
        blocked.append(reason)
        confirming.blocked(reason)

    connection.connection.on_blocked = note
    nowhere = f"{settings.usage_exchange}.doctor"
    try:
        message: Message = channel.prepare_message(b"")
        confirming.publish([message], settings.usage_exchange, nowhere, settings.publish_timeout_seconds)
    except Unroutable:
        pass
    except Blocked:
        advice = "free memory or disk on the broker's machine, or raise its limit: rabbitmqctl status has the alarms"
        return fail(_PART, f"takes no messages: it has blocked publishers ({blocked[0]})", advice)
    except Unconfirmed as error:
        blocked.append(str(error))
        return fail(_PART, f"takes no messages: {error}", "see the broker's log")
    return ok(_PART, "takes what is published, and answers for it")


def _close(channel: Any) -> None:
    """Close what an error has not closed already: each error of a channel ends it."""
    if channel.is_open:
        channel.close()


def _difference(error: Any) -> str:
    """Return which argument differs, in the broker's words."""
    return str(getattr(error, "reply_text", error)).removeprefix("PRECONDITION_FAILED - ")[:_SHOWN_MAX]


_SHOWN_MAX: Final = 200
