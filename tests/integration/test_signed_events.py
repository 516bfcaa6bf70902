"""With verifying keys a consumer takes what one of its senders has signed, and keeps all else as dead letters.

What comes here is what somebody who holds the broker could send: captured, altered, moved, forged, in a flood.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from billing import admin
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of
from billing.core.signing_keys import SigningKey
from billing.embedded.stack import Stack
from billing.events import topology
from billing.events.links import ENTRY_HEADER, SHARD_HEADER
from billing.events.marker import encode_marker
from billing.events.signing import REASON, SIGNATURE_HEADER
from billing.fulfillment.batch import Received
from billing.fulfillment.consumer import Consumer
from billing.observability.doctor.finding import Verdict
from billing.observability.doctor.signing import examine_signing
from billing.observability.liveness.noting import Presence
from billing.task.runtime import Runtime
from tests.amqp import channel_of, event_body, messages, settings_for
from tests.integration.consuming import (
    check_laws,
    events,
    letters,
    prepare,
    query,
    rows,
    running,
    send,
    until_rows,
    usage_log,
)
from tests.integration.lettering import outcomes, states
from tests.integration.recovering import Business
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

OWN = SigningKey(sender="workers", secret=b"w" * 32)
SHOP = SigningKey(sender="shop", secret=b"s" * 32)
MALLORY = SigningKey(sender="workers", secret=b"m" * 32)
ASKING: dict[str, Any] = {"signing_key": OWN, "verifying_keys": (OWN, SHOP)}

Headers = dict[str, Any]


def signing(settings: Settings, key: SigningKey | None) -> Settings:
    """Return the settings of a sender."""
    return dataclasses.replace(settings, signing_key=key, verifying_keys=())


def publish(settings: Settings, number: int, body: bytes, headers: Headers) -> None:
    """Put a message into a usage queue as whoever holds the broker can."""
    with channel_of(settings) as channel:
        message = channel.prepare_message(body, headers=headers)
        channel.basic_publish(message, settings.usage_exchange, topology.queue_name(settings, number))


def capture(settings: Settings, key: SigningKey, client_id: str, body: bytes) -> tuple[int, bytes, Headers]:
    """Have a sender publish an event, and take it from the queue before any consumer does."""
    send(signing(settings, key), [(client_id, body)])
    number = queue_of(shard_of(client_id, settings.shards), settings.usage_queues)
    (message,) = messages(settings, number)
    return number, bytes(message.body), dict(message.headers)


@contextmanager
def consuming(settings: Settings) -> Iterator[Consumer]:
    """Run a consumer."""
    consumer = Consumer(settings, usage_log(settings))
    with running(consumer):
        yield consumer


def until_seen(consumer: Consumer, count: int) -> None:
    """Wait until a consumer has written so many messages, whatever became of them."""
    wait_until(lambda: consumer.written.events >= count, f"{count} messages are written")


def reasons(settings: Settings) -> list[str]:
    """Return why each letter was refused."""
    return sorted(reason for _, reason in letters(settings))


def test_given_senders_with_their_own_keys_then_each_ones_events_are_written(
    broker_url: str, database_url: str
) -> None:
    settings = prepare(broker_url, database_url, **ASKING)
    good = events(20)
    send(signing(settings, OWN), good[:30])
    send(signing(settings, SHOP), good[30:])
    with consuming(settings):
        until_rows(settings, 60)
    check_laws(settings, good)
    assert letters(settings) == []


def test_given_a_captured_event_then_only_it_itself_is_charged_and_once(broker_url: str, database_url: str) -> None:
    """L3: resent it adds nothing; altered by a credit, for another client, in another queue, it is a dead letter."""
    settings = prepare(broker_url, database_url, **ASKING)
    number, body, headers = capture(settings, OWN, "ada", event_body("ada", "one", credits_=3))
    richer, other = event_body("ada", "one", credits_=4), event_body("bob", "one", credits_=3)
    unsigned = {name: value for name, value in headers.items() if name != SIGNATURE_HEADER}
    forged: list[tuple[int, bytes, Headers]] = [
        (number, richer, headers),
        (queue_of(shard_of("bob", settings.shards), settings.usage_queues), other, headers),
        (1 - number, body, headers),
        (number, event_body("ada", "two"), unsigned),
        (number, event_body("ada", "three"), headers | {SIGNATURE_HEADER: headers[SIGNATURE_HEADER].lower()}),
        (number, encode_marker(token=uuid.UUID(int=7), shard=0), unsigned),
    ]
    send(signing(settings, MALLORY), [("dan", event_body("dan", "with a stolen name"))])
    send(signing(settings, SigningKey(sender="mallory", secret=b"m" * 32)), [("dan", event_body("dan", "a stranger"))])
    for message in [*forged, *[(number, body, headers)] * 3]:
        publish(settings, *message)

    with consuming(settings) as consumer:
        until_seen(consumer, len(forged) + 2 + 3)
        pressure = consumer.pressure()

    check_laws(settings, [("ada", body)])
    assert (rows(settings), consumer.written.duplicates) == (1, 2)
    assert (pressure.forged, pressure.dead_letters, pressure.signed_unasked) == (8, 8, 0)
    found = reasons(settings)
    assert [reason for reason in found if not reason.startswith(REASON)] == []
    assert found.count(f"{REASON}of sender 'workers': is not that of this event") == 5
    assert found.count(f"{REASON}there is none") == 2
    assert f"{REASON}sender 'mallory': is none of billing_verifying_keys" in found
    assert query(settings, "SELECT count(*) FROM recovery_marker") == [(0,)]


def test_given_a_flood_of_forged_events_then_the_honest_ones_are_written_all_the_same(
    broker_url: str, database_url: str
) -> None:
    """L10: far beyond every cap on dead-lettering, the consumer goes on."""
    caps = {"dead_letter_run_max": 20, "dead_letter_window": 100, "dead_letter_percent_max": 10}
    settings = prepare(broker_url, database_url, **ASKING, **caps)
    good = events(5)
    send(settings, good[:3])
    with consuming(settings) as consumer:
        until_rows(settings, 3)
        send(signing(settings, None), [("ada", event_body("ada", f"flood {number}")) for number in range(200)])
        send(settings, good[3:])
        until_rows(settings, 15)
        until_seen(consumer, 215)
    check_laws(settings, good)
    assert consumer.error is None
    assert len(letters(settings)) == 200


def test_given_nothing_but_refused_signatures_from_the_start_then_the_consumer_stops(
    broker_url: str, database_url: str
) -> None:
    """A consumer with the wrong keys must not empty the queues into the dead letters."""
    settings = prepare(broker_url, database_url, **ASKING, dead_letter_run_max=40)
    send(signing(settings, MALLORY), events(40))
    consumer = Consumer(settings, usage_log(settings))
    thread = threading.Thread(target=consumer.run)
    thread.start()
    thread.join(120)
    assert "billing_dead_letter_run_max" in str(consumer.error)
    assert len(letters(settings)) < 120


def test_given_signatures_that_nobody_asks_for_then_all_is_as_without(broker_url: str, database_url: str) -> None:
    """A rolling upgrade: first senders sign, then consumers ask; what waits from before is what replay is for."""
    settings = prepare(broker_url, database_url)
    good = events(2)
    send(signing(settings, MALLORY), good[:3])
    send(settings, good[3:])
    with consuming(settings) as consumer:
        until_rows(settings, 6)
        assert consumer.pressure().signed_unasked == 3
    assert letters(settings) == []


def test_doctor_says_where_senders_sign_and_a_consumer_does_not_ask(broker_url: str, database_url: str) -> None:
    settings = prepare(broker_url, database_url)

    def found(own: Settings, verdict: Verdict) -> list[str]:
        runtime = Runtime(lambda: own)
        seen = [finding.seen for finding in examine_signing(runtime) if finding.verdict is verdict]
        runtime.close()
        return seen

    def note(own: Settings, signed: int) -> None:
        runtime = Runtime(lambda: own)
        pressure = dataclasses.replace(Consumer(own, usage_log(own)).pressure(), signed_unasked=signed)
        Presence(runtime, "fulfillment@test", [0, 1], lambda: pressure).step()
        runtime.close()

    note(settings, 0)
    assert found(settings, Verdict.WARN) == found(settings, Verdict.FAIL) == []
    note(settings, 3)
    assert found(settings, Verdict.WARN) == [
        "events come signed, and fulfillment@test asks for no signature: anybody's are charged"
    ]
    asking = dataclasses.replace(settings, **ASKING)
    note(asking, 0)
    assert found(asking, Verdict.WARN) == []
    assert found(asking, Verdict.OK) == [
        "this process signs as workers; its consumer asks for one of workers, shop",
        "1 consumers ask for a signature",
    ]
    send(signing(settings, None), events(1))
    with consuming(asking) as consumer:
        until_seen(consumer, 3)
    assert found(asking, Verdict.FAIL) == ["3 usage events were refused for their signature: they may be forged"]


def test_a_replay_is_no_way_around_the_signature(broker_url: str, database_url: str, redis_url: str) -> None:
    """A forged letter is written only where --unverified says so, also once it was refused for something else."""
    settings = prepare(broker_url, database_url, redis_url=redis_url, **ASKING)
    mine, strange = event_body("ada", "forged"), event_body("brook", "of nobody yet")
    send(signing(settings, None), [("ada", mine), ("brook", strange)])
    with consuming(settings) as consumer:
        until_seen(consumer, 2)
    ids = {bytes(body): letter_id for letter_id, body in query(settings, "SELECT letter_id, body FROM dead_letter")}

    done = admin.replay_dead_letters(settings)
    assert (done.letters, done.left) == ([], 2)
    with pytest.raises(
        InvalidValue, match=r"letter_id: \d+: was refused for its signature: it may be forged; give --unv"
    ):
        admin.replay_dead_letters(settings, list(ids.values()))
    assert outcomes(admin.replay_dead_letters(settings, [ids[strange]], unverified=True)) == [(ids[strange], "refused")]
    assert f"{REASON}not verified; client_id: 'brook': is not a known client" in reasons(settings)
    admin.add_client(settings, "brook")
    assert admin.replay_dead_letters(settings).left == 2
    assert rows(settings) == 0

    done = admin.replay_dead_letters(settings, unverified=True)
    assert sorted(outcomes(done)) == sorted((letter_id, "written") for letter_id in ids.values())
    assert query(settings, "SELECT DISTINCT remark FROM dead_letter") == [("written; its signature was not verified",)]
    assert rows(settings) == 2
    admin.close(settings)


def test_an_unsigned_copy_does_not_make_a_signed_letter_doubtful_and_a_signed_one_clears_it(
    broker_url: str, database_url: str, redis_url: str
) -> None:
    """Whoever holds the broker cannot have an honest letter left out; bytes that a sender signed are that sender's."""
    settings = prepare(broker_url, database_url, redis_url=redis_url, **ASKING)
    first, second = event_body("brook", "1"), event_body("brook", "2")
    with consuming(settings) as consumer:
        send(settings, [("brook", first)])
        until_seen(consumer, 1)
        send(signing(settings, None), [("brook", first), ("brook", second)])
        until_seen(consumer, 3)
        assert sorted(reason.startswith(REASON) for reason in reasons(settings)) == [False, True]
        send(settings, [("brook", second)])
        until_seen(consumer, 4)
    assert {refusals for _, refusals in states(settings).values()} == {2}
    admin.add_client(settings, "brook")
    done = admin.replay_dead_letters(settings)
    assert [outcome for _, outcome in outcomes(done)] == ["written", "written"]
    assert done.left == 0
    admin.close(settings)


def test_a_rebuild_ends_where_signatures_are_asked_for(business: Business) -> None:
    """L6: markers, and what waits in an outbox, are signed by the process that publishes them."""
    settings = dataclasses.replace(business.settings, **ASKING)
    signed = Business(settings)
    try:
        client_id = signed.client("acme", 100)
        signed.settle(client_id, 30, "published")
        signed.settle(client_id, 20, "left to the rebuild", publish=False)
        signed.close_shard(client_id)
        with consuming(settings):
            assert signed.rebuilder.step() == 1
        assert (signed.balance(client_id).spent, rows(settings)) == (50, 2)
        assert letters(settings) == []
        assert query(settings, "SELECT count(*) > 0 FROM recovery_marker") == [(True,)]
    finally:
        signed.stop()


def test_on_a_transport_without_confirms_a_forged_header_has_no_outbox_entry_forgotten(
    stack: Stack, database_url: str
) -> None:
    """L3: there a header names the entry that goes once its row is committed; only a sender's is believed."""
    settings = prepare(stack.results.url_of(1), database_url, **ASKING)
    forgotten: list[tuple[int | None, str | None]] = []

    def note(batch: Sequence[Received]) -> None:
        forgotten.extend((each.shard, each.entry_id) for each in batch)

    shard = shard_of("ada", settings.shards)
    number = queue_of(shard, settings.usage_queues)
    consumer = Consumer(settings, usage_log(settings), after_commit=note)
    with running(consumer):
        send(settings, [("ada", event_body("ada", "signed"))])
        until_rows(settings, 1)
        with channel_of(settings) as channel:
            headers = {SHARD_HEADER: shard, ENTRY_HEADER: "1-1"}
            body = channel.prepare_message(event_body("ada", "forged").decode(), headers=headers)
            channel.basic_publish(body, "", topology.queue_name(settings, number))
        until_seen(consumer, 2)
    assert forgotten == [(shard, None), (None, None)]
    assert reasons(settings) == [f"{REASON}there is none"]


def test_a_signature_is_of_the_bytes_that_were_published(broker_url: str, database_url: str) -> None:
    """The message itself says the sender and nothing of the key."""
    settings = settings_for(broker_url, database_url=database_url)
    number, body, headers = capture(settings, OWN, "ada", event_body("ada", "one"))
    assert json.loads(body)["client_id"] == "ada"
    assert headers[SIGNATURE_HEADER].startswith("1:workers:")
    assert number in (0, 1)
