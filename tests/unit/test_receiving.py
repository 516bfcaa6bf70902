"""What a message of a usage queue is: whatever its transport says, nothing is raised, and no entry is made up (L10)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from billing.core.settings import Settings
from billing.events.usage_event import UsageEvent
from billing.fulfillment.batch import Received
from billing.fulfillment.delivery import Poison
from billing.fulfillment.receiving import received
from billing.integration.services import outbox_cleaner
from tests.amqp import event_body

BODY = event_body("acme", "one", credits_=3)


def read(body: object = BODY, headers: object = None) -> Received:
    return received("billing.usage.0", SimpleNamespace(body=body, headers=headers, delivery_tag=7), None)


def test_an_event_names_its_outbox_entry() -> None:
    found = read(headers={"billing_shard": 3, "billing_entry": "17-0"})
    assert isinstance(found.decoded, UsageEvent)
    assert (found.body, found.tag, found.shard, found.entry_id) == (BODY, 7, 3, "17-0")


@pytest.mark.parametrize("headers", [None, [], "no table", {"billing_shard": -1, "billing_entry": "x"}, {1: 2}])
def test_headers_that_none_of_ours_wrote_name_no_entry(headers: object) -> None:
    """Redis refuses an id that is none, with all that are removed beside it."""
    found = read(headers=headers)
    assert isinstance(found.decoded, UsageEvent)
    assert (found.shard, found.entry_id) == (None, None)


@pytest.mark.parametrize("body", [5, {"version": 1}, ["x"], None, ""])
def test_a_body_that_is_no_bytes_is_poison(body: object) -> None:
    """A Redis transport hands over what its sender wrote: one message would end every consumer, again and again."""
    found = read(body)
    assert isinstance(found.decoded, Poison)
    assert isinstance(found.body, bytes)


def test_an_entry_of_a_shard_that_is_none_keeps_no_other_from_its_removal() -> None:
    """Its number would be no place in the list of keys, and all that were committed beside it be published again."""
    forgotten: list[object] = []
    runtime: Any = SimpleNamespace(
        settings=Settings(shards=4, broker_url="redis://h:1/0"), buckets=SimpleNamespace(forget=forgotten.extend)
    )
    clean = outbox_cleaner(runtime)
    assert clean is not None
    clean([read(headers={"billing_shard": shard, "billing_entry": "17-0"}) for shard in (3, 4, 2**31 - 1)])
    assert forgotten == [(3, "17-0")]
