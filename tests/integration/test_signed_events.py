"""With verifying keys a consumer takes what one of its senders has signed, and keeps all else as dead letters.

What comes here is what somebody who holds the broker could send: captured, altered, moved, forged, in a flood.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import uuid
from collections.abc import Sequence

import pytest

from billing.core.shards import queue_of, shard_of
from billing.core.signing_keys import SigningKey
from billing.embedded.stack import Stack
from billing.events import topology
from billing.events.links import ENTRY_HEADER, SHARD_HEADER
from billing.events.marker import encode_marker
from billing.events.signing import REASON, SIGNATURE_HEADER
from billing.fulfillment.batch import Received
from billing.fulfillment.consumer import Consumer
from tests.amqp import channel_of, event_body, settings_for
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
from tests.integration.recovering import Business
from tests.integration.signing import (
    ASKING,
    MALLORY,
    OWN,
    SHOP,
    Headers,
    capture,
    consuming,
    publish,
    reasons,
    signing,
    until_seen,
)

pytestmark = pytest.mark.integration


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
