"""A starter on real servers, without workers: what it hands over, how often, and when (L1, L9, L10)."""

from __future__ import annotations

import dataclasses
import threading
from datetime import timedelta

import pytest

from billing import admin
from billing.parking import starting
from billing.parking.message import PARKED
from billing.parking.parked import ParkOutcome
from billing.parking.storing import note_begun, park
from billing.task.runtime import Runtime
from tests.amqp import MovedClock
from tests.integration.recovering import Business, the_run
from tests.integration.starting import MESSAGE, delivery, parked, queue, starter, states

pytestmark = pytest.mark.integration


def test_a_message_is_published_again_as_it_was(business: Business, broker_url: str) -> None:
    """Given a parked task, when it is handed over, then body, headers and properties are those that it came with."""
    client = business.client("brook", 10)
    assert parked(business, delivery(client, "one")) is ParkOutcome.PARKED

    with queue(broker_url) as found, starter(business) as made:
        assert made.step() == 1
        assert made.step() == 0

    (message,) = found
    assert message.body.encode() == MESSAGE.body
    assert message.headers == {**MESSAGE.headers, PARKED: 1}
    assert {name: message.properties[name] for name in MESSAGE.properties} == MESSAGE.properties
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert message.properties["delivery_mode"] == 2
    assert states(business) == {"one": "started"}


def test_two_starters_at_once_start_no_more_than_is_paid_for(business: Business, broker_url: str) -> None:
    """Given 30 tasks and credits for 12, when two starters are at it, then the first 12 start, once each (L1)."""
    client = business.client("brook", 120)
    for number in range(30):
        parked(business, delivery(client, str(number)))
    other = Runtime(lambda: business.settings)

    def often(runtime: Runtime) -> None:
        with starter(business, runtime) as made:
            for _ in range(5):
                made.step()

    with queue(broker_url) as found:
        threads = [threading.Thread(target=often, args=(runtime,)) for runtime in (business.runtime, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    other.close()

    assert [message.headers["id"] for message in found] == [str(number) for number in range(12)]
    assert list(states(business).values()) == ["started"] * 12 + ["waiting"] * 18


def test_what_is_under_way_keeps_its_credits_until_it_has_begun(business: Business, broker_url: str) -> None:
    """Given a task that was handed over, then its credits start no other until it has reserved, or is long overdue."""
    client = business.client("brook", 10)
    for number in range(3):
        parked(business, delivery(client, str(number)))
    clock = MovedClock()
    runtime = Runtime(lambda: business.settings, clock)

    def begun(task_id: str, times: int) -> None:
        with business.runtime.engine.begin() as connection:
            note_begun(connection, the_run(client, task_id), times, clock.now())

    with queue(broker_url), starter(business, runtime) as made:
        assert [made.step(), made.step()] == [1, 0]
        begun("0", 2)  # of a copy that there never was
        assert made.step() == 0
        begun("0", 1)
        # Had it reserved in the bucket, nothing were left; here its credits are there again, as when it has failed.
        assert [made.step(), made.step()] == [1, 0]
        clock.at += starting.UNDER_WAY_MAX + timedelta(seconds=1)
        assert [made.step(), made.step()] == [1, 0]
    runtime.close()


def test_the_same_run_keeps_its_row_and_its_place(business: Business, broker_url: str) -> None:
    """Given deliveries of one run, then there is one row: an old copy changes nothing, a new one waits again."""
    client = business.client("brook")
    first, behind = delivery(client, "one"), delivery(client, "behind")
    assert [parked(business, first), parked(business, behind), parked(business, first)] == [ParkOutcome.PARKED] * 3
    admin.grant(business.settings, client, 10, key="more")
    with queue(broker_url), starter(business) as made:
        assert made.step() == 1
        assert parked(business, first) is ParkOutcome.PARKED
        assert states(business) == {"one": "started", "behind": "waiting"}

        assert parked(business, delivery(client, "one", 7, times=1)) is ParkOutcome.PARKED
        (row, _) = admin.parked(business.settings)
        assert (row.task_id, row.times, row.credits) == ("one", 2, 7)
        assert made.step() == 1
    assert states(business) == {"one": "started", "behind": "waiting"}
    admin.cancel_parked(business.settings, client_id=client)
    assert parked(business, behind) is ParkOutcome.ENDED


def test_a_starter_that_died_before_its_mark_is_believed_by_the_task_that_begins(business: Business) -> None:
    """Given a task that waits and whose message has begun all the same, then it is started, and published no more."""
    client = business.client("brook", 10)
    parked(business, delivery(client, "one"))
    with business.runtime.engine.begin() as connection:
        note_begun(connection, the_run(client, "one"), 1, business.runtime.clock.now())

    with starter(business) as made:
        assert made.step() == 0
    assert states(business) == {"one": "started"}


def test_clients_have_their_turn(business: Business, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given rounds that are full with two clients' tasks, then each client has its turn within four (L10)."""
    monkeypatch.setattr(starting, "TASKS_OF_ONE_CLIENT_MAX", 2)
    monkeypatch.setattr(starting, "TASKS_MAX", 4)
    monkeypatch.setattr(starting, "CLIENTS_MAX", 4)
    clients = [business.client(f"client-{number}", 1_000) for number in range(5)]
    for number in range(6):
        for client in clients:
            parked(business, delivery(client, f"{client}/{number}"))

    with queue(broker_url) as found, starter(business) as made:
        assert [made.step() for _ in range(4)] == [4, 4, 2, 4]
    assert {message.headers["id"].split("/")[0] for message in found[:10]} == set(clients)


def test_what_waited_too_long_or_ended_long_ago_goes(business: Business) -> None:
    """Given a task that may wait a day, one whose sender wants it within an hour, then each ends in time (L9)."""
    client, clock = business.client("brook"), MovedClock()
    settings = dataclasses.replace(business.settings, parked_age_max_seconds=86_400.0)
    runtime = Runtime(lambda: settings, clock)
    soon = delivery(client, "soon")
    until = (clock.at + timedelta(hours=1)).isoformat()
    soon = dataclasses.replace(
        soon, message=dataclasses.replace(soon.message, headers={"id": "soon", "expires": until})
    )
    with runtime.engine.begin() as connection:
        for one in (soon, delivery(client, "later")):
            park(connection, settings, one, clock.now())
    with starter(business, runtime) as made:
        clock.at += timedelta(hours=1)
        made.step()
        assert states(business) == {"soon": "expired", "later": "waiting"}
        clock.at += timedelta(hours=23)
        made.step()
        assert states(business) == {"soon": "expired", "later": "expired"}
        clock.at += starting.KEPT - timedelta(hours=23)
        made.step()
        assert states(business) == {"later": "expired"}
    runtime.close()


def test_more_that_waited_too_long_than_one_round_ends_do_not_start(
    business: Business, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9: Given credits for all, when a round ends only the first of three that are too old, then none starts."""
    monkeypatch.setattr(starting, "EXPIRED_MAX", 1)
    client, clock = business.client("brook", 100), MovedClock()
    runtime = Runtime(lambda: business.settings, clock)
    with runtime.engine.begin() as connection:
        for number in range(3):
            park(connection, business.settings, delivery(client, str(number)), clock.now())
    clock.move(business.settings.parked_age_max_seconds + 1)
    with queue(broker_url) as found, starter(business, runtime) as made:
        assert made.step() == 0
        assert states(business) == {"0": "expired", "1": "waiting", "2": "waiting"}
        assert [made.step(), made.step()] == [0, 0]
    runtime.close()
    assert (found, set(states(business).values())) == ([], {"expired"})


def test_a_client_parks_no_more_than_it_may(business: Business) -> None:
    """L9: Given a client with as many as it may have, then the next is refused; L10: another client's is not."""
    settings = dataclasses.replace(business.settings, parked_per_client_max=2)
    clients = [business.client(name) for name in ("brook", "acme")]
    with business.runtime.engine.begin() as connection:
        found = [
            park(connection, settings, delivery(client, f"{client} {number}"), business.runtime.clock.now())
            for number, client in enumerate([clients[0]] * 3 + [clients[1]])
        ]
    assert found == [ParkOutcome.PARKED, ParkOutcome.PARKED, ParkOutcome.FULL, ParkOutcome.PARKED]


def test_a_suspended_clients_tasks_stay(business: Business, broker_url: str) -> None:
    client = business.client("brook", 10)
    parked(business, delivery(client, "one"))
    admin.set_client_state(business.settings, client, "suspended")
    with queue(broker_url), starter(business) as made:
        assert made.step() == 0
        admin.set_client_state(business.settings, client, "active")
        assert made.step() == 1
