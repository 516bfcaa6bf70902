"""The decoder takes any bytes and never raises; what it passes is what the schema describes."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import billing.events
from billing.core.credits import CREDITS_MAX
from billing.core.ids import run_id
from billing.core.limits import TIME_MIN
from billing.events.marker import encode_marker
from billing.events.usage_event import UsageEvent
from billing.fulfillment import decoder
from billing.fulfillment.decoder import decode
from billing.fulfillment.delivery import Marker, Poison

SCHEMA = json.loads((Path(billing.events.__file__).parent / "usage_event.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
NOW = 1_790_000_000_000


def an_event(**changes: Any) -> dict[str, Any]:
    """Return a valid event as plain data."""
    event: dict[str, Any] = {
        "version": 1,
        "run_id": str(run_id("acme", "task-1", nesting=0, nonce="", at_milliseconds=NOW)),
        "client_id": "acme",
        "correlation_id": "task-1",
        "root_id": "task-1",
        "task": "worker_tasks.capture",
        "attempt": 1,
        "submitted_at": NOW,
        "price_version": 3,
        "settlement_id": "5e77",
        "occurred_at": NOW + 5,
        "epoch": 1,
        "late": False,
        "lines": [{"sku": "page", "quantity": 2, "credits": 30, "grants": [{"grant": 12, "credits": 30}]}],
    }
    return event | changes


def encoded(event: dict[str, Any]) -> bytes:
    """Return an event as bytes."""
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")


def text(most: int, least: int = 0) -> st.SearchStrategy[str]:
    """Return text without NUL and lone surrogates."""
    return st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=least, max_size=most)


clients = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=128).filter(
    str.isprintable
)
small = st.integers(1, 2**31 - 1)
times = st.integers(TIME_MIN, decoder.TIME_MAX)


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    """Return a line whose shares add up."""
    shares = draw(st.lists(st.tuples(st.integers(0, 2**53 - 1), st.integers(1, 10**9)), max_size=4))
    return {
        "sku": draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)),
        "quantity": draw(st.integers(0, CREDITS_MAX)),
        "credits": sum(credits for _, credits in shares),
        "grants": [{"grant": grant, "credits": credits} for grant, credits in shares],
    }


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """Return a valid event."""
    occurred_at = draw(times)
    at = draw(st.one_of(st.none(), st.integers(0, occurred_at)))
    client_id = draw(clients)
    task_id = draw(text(50))
    mode = draw(st.sampled_from([{}, {"mode": "meter_only", "epoch": 0}]))
    return an_event(
        run_id=str(run_id(client_id, task_id, nesting=0, nonce="", at_milliseconds=at)),
        client_id=client_id,
        correlation_id=task_id,
        root_id=draw(text(50)),
        task=draw(text(50)),
        attempt=draw(small),
        submitted_at=draw(st.one_of(st.none(), times)),
        price_version=draw(st.integers(0, 2**31 - 1)),
        settlement_id=draw(text(40, 1)),
        occurred_at=occurred_at,
        late=draw(st.booleans()),
        lines=draw(st.lists(lines(), min_size=1, max_size=4)),
        **({"epoch": draw(small)} | mode),
    )


@given(st.binary(max_size=300))
def test_given_any_bytes_then_nothing_is_raised_and_the_reason_can_be_stored(body: bytes) -> None:
    """L10: a message that nobody can read delays nobody."""
    found = decode(body)
    assert isinstance(found, Poison)
    assert 0 < len(found.reason) <= decoder.REASON_LENGTH_MAX
    assert found.reason.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(events(), st.data())
def test_given_one_field_of_any_content_then_it_is_an_event_that_the_schema_takes_or_poison(
    event: dict[str, Any], data: st.DataObject
) -> None:
    """L10: no value of any field raises, and nothing passes that the schema refuses."""
    field = data.draw(st.sampled_from(sorted(event)))
    changed = event | {field: data.draw(json_values)}
    found = decode(encoded(changed))
    if isinstance(found, UsageEvent):
        VALIDATOR.validate(changed)
    else:
        assert isinstance(found, Poison)
        assert found.reason.isprintable()


@given(events())
def test_given_a_valid_event_then_struct_and_schema_agree(event: dict[str, Any]) -> None:
    """What the schema describes decodes, and what is decoded encodes to what the schema describes."""
    VALIDATOR.validate(event)
    found = decode(encoded(event))
    assert isinstance(found, UsageEvent)
    again = json.loads(msgspec.json.encode(found))
    assert again == event
    VALIDATOR.validate(again)


@given(events(), st.data())
def test_given_a_required_field_is_missing_then_both_refuse(event: dict[str, Any], data: st.DataObject) -> None:
    """The schema and the struct require the same fields."""
    required = sorted(SCHEMA["required"])
    assert required == sorted({*event} - {"mode"})
    assert sorted(SCHEMA["properties"]) == sorted({*required, "mode"}) == sorted(UsageEvent.__struct_fields__)
    missing = data.draw(st.sampled_from(required))
    less = {name: value for name, value in event.items() if name != missing}
    assert not VALIDATOR.is_valid(less)
    assert isinstance(decode(encoded(less)), Poison)


def test_given_a_newer_senders_fields_then_they_are_ignored() -> None:
    """Old and new workers live side by side: unknown fields, on the event and on its lines, change nothing."""
    event = an_event(colour="blue")
    event["lines"][0] |= {"region": "eu", "grants": [{"grant": 12, "credits": 30, "kind": "paid"}]}
    VALIDATOR.validate(event)
    assert decode(encoded(event)) == decode(encoded(an_event()))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "version: 2: must be 1"),
        ({"mode": "free"}, "body: Invalid enum value 'free'"),
        ({"mode": "meter_only"}, "epoch: 1: must be 0 with mode meter_only"),
        ({"mode": "dry_run", "epoch": 0}, "credits: 30: must be 0 in a dry run"),
        ({"client_id": "a b"}, "client_id: 'a b'"),
        ({"run_id": str(uuid.uuid4())}, "must be a UUID of version 7"),
        (
            {"run_id": str(run_id("a", "b", nesting=0, nonce="", at_milliseconds=NOW + 90_000_000))},
            "must not be more than a day ahead of occurred_at",
        ),
        ({"occurred_at": 0}, "occurred_at: 0: must be from"),
        ({"occurred_at": 2**60}, "occurred_at: 1152921504606846976: must be from"),
        ({"attempt": 0}, "attempt: 0"),
        ({"epoch": -1}, "epoch: -1"),
        ({"settlement_id": ""}, "settlement_id: ''"),
        ({"task": "a\0b"}, "task: 'a\\x00b'"),
        ({"lines": []}, "lines: 0: must be 1 to 256 lines"),
        ({"lines": [{"sku": "P", "quantity": 1, "credits": 0, "grants": []}]}, "lines[0].sku: 'P'"),
        ({"lines": [{"sku": "p", "quantity": -1, "credits": 0, "grants": []}]}, "lines[0].quantity: -1"),
        ({"lines": [{"sku": "p", "quantity": 1, "credits": 2**53, "grants": []}]}, "lines[0].credits"),
        ({"lines": [{"sku": "p", "quantity": 1, "credits": -1, "grants": []}]}, "lines[0].credits: -1: must be from 0"),
        ({"lines": [{"sku": "p", "quantity": 1, "credits": 2, "grants": []}]}, "must add up to the line's 2 credits"),
        (
            {"lines": [{"sku": "p", "quantity": 1, "credits": 0, "grants": [{"grant": 1, "credits": 0}]}]},
            "a share names a grant",
        ),
        (
            {"lines": [{"sku": "p", "quantity": 1, "credits": 1, "grants": [{"grant": -1, "credits": 1}]}]},
            "a share names a grant",
        ),
        (
            {
                "lines": 2
                * [
                    {
                        "sku": "p",
                        "quantity": 1,
                        "credits": CREDITS_MAX,
                        "grants": [{"grant": 1, "credits": CREDITS_MAX}],
                    }
                ]
            },
            "of all lines together",
        ),
    ],
)
def test_given_a_broken_rule_then_the_reason_names_field_value_and_rule(changes: dict[str, Any], reason: str) -> None:
    """A dead letter says what is wrong with it."""
    found = decode(encoded(an_event(**changes)))
    assert isinstance(found, Poison)
    assert reason in found.reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        encoded(an_event(attempt=1)).replace(b'"attempt": 1', b'"attempt": ' + b"9" * 6_000),
        encoded(an_event(attempt=1)).replace(b'"attempt": 1', b'"attempt": 1e999'),
        encoded(an_event(client_id="\ud800")),
        b" " * (decoder.BYTES_MAX + 1),
        b'{"version":2,"marker":"0192f0c1-2d4e-7000-8000-000000000000","shard":3}',
        b'{"version":1,"marker":"0192f0c1-2d4e-7000-8000-000000000000","shard":-3}',
        b'{"version":1,"marker":"0192f0c1-2d4e-7000-8000-000000000000","shard":' + b"9" * 6_000 + b"}",
    ],
    ids=["empty", "deep", "deeper", "digits", "infinite", "surrogate", "long", "version", "shard", "shard digits"],
)
def test_given_what_breaks_parsers_then_it_is_poison(body: bytes) -> None:
    """L9: nesting, digits and length are bounded."""
    assert isinstance(decode(body), Poison)


def test_given_an_event_at_the_bounds_then_it_passes_and_one_more_line_or_byte_does_not() -> None:
    """L9: a message of any length, or of any number of lines, would hold up a batch."""
    line = {"sku": "page", "quantity": 1, "credits": 1, "grants": [{"grant": 12, "credits": 1}]}
    most = encoded(an_event(lines=[line] * decoder.LINES_MAX))
    longest = most + b" " * (decoder.BYTES_MAX - len(most))
    assert isinstance(decode(longest), UsageEvent)
    for body, reason in (
        (longest + b" ", f"body: {decoder.BYTES_MAX + 1} bytes: must be at most {decoder.BYTES_MAX}"),
        (encoded(an_event(lines=[line] * (decoder.LINES_MAX + 1))), "lines: 257: must be 1 to 256 lines"),
    ):
        assert decode(body) == Poison(reason=reason)


def test_given_a_marker_then_it_is_told_from_an_event() -> None:
    """L6: recovery's marker travels the way of an event."""
    token = uuid.uuid4()
    assert decode(encode_marker(token, 3)) == Marker(token=token, shard=3)


def test_given_a_sender_without_the_library_then_its_event_passes() -> None:
    """A run without a publish time has an id whose time bits are all ones, and no `submitted_at`."""
    legacy = str(run_id("acme", "t", nesting=0, nonce="", at_milliseconds=None))
    assert isinstance(decode(encoded(an_event(run_id=legacy, submitted_at=None))), UsageEvent)
