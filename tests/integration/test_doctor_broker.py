"""Doctor's look at a real RabbitMQ: what each usage queue is, and whether it takes what is published."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import kombu
import pytest

from billing.core.settings import Settings
from billing.embedded.rabbitmq import RabbitMQ
from billing.events import topology
from billing.observability.doctor.broker import examine_broker
from billing.observability.doctor.finding import Finding, Verdict
from billing.task.runtime import Runtime
from tests.amqp import channel_of, settings_for, waiting
from tests.integration.test_publishing_faults import disk_alarm, memory_alarm

pytestmark = pytest.mark.integration

_CLASSIC = {name: topology._QUORUM[name] for name in ("x-single-active-consumer", "x-overflow")}


def examined(settings: Settings) -> list[Finding]:
    """Return what doctor finds; whatever is not ok says what to do."""
    found = list(examine_broker(Runtime(lambda: settings)))
    assert all(finding.advice for finding in found if finding.verdict is not Verdict.OK)
    return found


def seen(settings: Settings, verdict: Verdict) -> list[str]:
    return [finding.seen for finding in examined(settings) if finding.verdict is verdict]


def test_a_broker_in_order_says_which_it_is_and_what_its_queues_are(broker_url: str) -> None:
    """Given the declared topology without consumers, then doctor fails nothing, and names what it cannot see."""
    settings = settings_for(broker_url)
    with channel_of(settings):
        found = examined(settings)
    assert [finding.verdict for finding in found if finding.verdict is not Verdict.OK] == [Verdict.WARN] * 2
    texts = [finding.seen for finding in found]
    assert "RabbitMQ 3." in texts[0]
    assert texts[1] == "takes what is published, and answers for it"
    assert texts[2] == f"queue {settings.usage_exchange}.0: 0 events, 0 consumers"
    assert "2 usage queues are as declared: quorum, single active consumer" in texts[-1]
    assert "rabbitmqctl list_policies" in texts[-1]
    assert (waiting(settings, 0), waiting(settings, 1)) == (0, 0)


def test_a_new_broker_is_left_as_it_is(broker_url: str) -> None:
    """Given nothing declared, then doctor says so and declares nothing."""
    settings = settings_for(broker_url)
    for _ in range(2):
        assert seen(settings, Verdict.WARN) == [
            f"exchange {settings.usage_exchange} is not declared yet",
            *(f"queue {settings.usage_exchange}.{number} is not declared yet" for number in (0, 1)),
        ]


@pytest.mark.parametrize(
    ("arguments", "differs"),
    [
        ({**_CLASSIC}, "x-queue-type"),
        ({**topology._QUORUM, "x-delivery-limit": 20}, "x-delivery-limit"),
        ({**topology._QUORUM, "x-dead-letter-exchange": "letters"}, "x-dead-letter-exchange"),
        ({**topology._QUORUM, "x-max-length": 5}, "x-max-length"),
        ({**topology._QUORUM, "x-single-active-consumer": False}, "x-single-active-consumer"),
    ],
)
def test_a_queue_of_another_kind_fails_and_names_what_differs(
    broker_url: str, arguments: dict[str, object], differs: str
) -> None:
    """Given a queue that would lose or double events, then it is named with what differs, and the others are seen."""
    settings = settings_for(broker_url)
    name = topology.queue_name(settings, 0)
    with kombu.Connection(broker_url) as connection:
        channel = connection.channel()
        kombu.Queue(name, durable=True, queue_arguments=arguments)(channel).declare()
        topology.queue(settings, 1)(connection.channel()).declare()
    (failed,) = seen(settings, Verdict.FAIL)
    assert failed.startswith(f"queue {name} is not as billing declares it: ")
    assert differs in failed
    assert any(text.startswith("1 usage queues are as declared") for text in seen(settings, Verdict.OK))


def test_an_exchange_of_another_kind_fails(broker_url: str) -> None:
    settings = settings_for(broker_url)
    with kombu.Connection(broker_url) as connection:
        kombu.Exchange(settings.usage_exchange, type="fanout", durable=True)(connection.channel()).declare()
    (failed,) = seen(settings, Verdict.FAIL)
    said = f"exchange {settings.usage_exchange} is not as billing declares it: inequivalent arg 'type'"
    assert failed.startswith(said)


@pytest.mark.parametrize("alarm", [memory_alarm, disk_alarm])
def test_a_broker_that_blocks_publishers_fails_and_clears_again(
    broker_url: str, rabbitmq: RabbitMQ, alarm: Callable[[RabbitMQ], AbstractContextManager[None]]
) -> None:
    """Given a broker short of memory or disk, then doctor says in words that it takes nothing, and what to do."""
    settings = settings_for(broker_url)
    with channel_of(settings):
        pass
    with alarm(rabbitmq):
        (failed,) = seen(settings, Verdict.FAIL)
        assert failed.startswith("takes no messages: it has blocked publishers (")
    assert seen(settings, Verdict.FAIL) == []
