"""The stand-in without a socket: the same rules, on a clock of the caller's."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import stripe

from billing.core.clock import SystemClock
from billing.sinks.stripe.sandbox import webhooks
from billing.sinks.stripe.sandbox.api import Api
from billing.sinks.stripe.sandbox.in_process import AUTHORIZATION, InProcess
from billing.sinks.stripe.sandbox.invoicing import drafting
from billing.sinks.stripe.sandbox.requests import Request
from billing.sinks.stripe.sandbox.state import State

EVENTS = "/v1/billing/meter_events"
MAY = int(datetime(2026, 5, 1, tzinfo=UTC).timestamp())
HOUR, DAY = 3_600, 86_400


class Hands:
    """A clock that the test moves."""

    def __init__(self, second: int = MAY) -> None:
        self.second = second

    def now(self) -> datetime:
        """Return the instant that the test chose."""
        return datetime.fromtimestamp(self.second, UTC)

    def monotonic(self) -> float:
        """Return seconds that go with it."""
        return float(self.second)


class World:
    """A stand-in with a meter, and a customer with a subscription to it."""

    def __init__(self, sandbox: InProcess, clock: Hands) -> None:
        self.sandbox, self.clock = sandbox, clock
        meter = {"display_name": "C", "event_name": "credits", "default_aggregation": {"formula": "sum"}}
        self.meter = sandbox.ask("POST", "/v1/billing/meters", meter)["id"]
        self.customer = sandbox.ask("POST", "/v1/customers", {"name": "acme"})["id"]
        product = sandbox.ask("POST", "/v1/products", {"name": "credits"})["id"]
        price = {
            "product": product,
            "currency": "eur",
            "unit_amount": 1,
            "recurring": {"interval": "month", "usage_type": "metered", "meter": self.meter},
        }
        self.price = sandbox.ask("POST", "/v1/prices", price)["id"]
        items = {"customer": self.customer, "items": [{"price": self.price}]}
        self.subscription = sandbox.ask("POST", "/v1/subscriptions", items)["id"]

    def send(self, identifier: str, value: int, timestamp: int, *, key: str | None = None) -> int | None:
        """Send an event; return the status, None without an answer."""
        payload = {"value": value, "stripe_customer_id": self.customer}
        event = {"event_name": "credits", "identifier": identifier, "timestamp": timestamp, "payload": payload}
        reply = self.sandbox.call("POST", EVENTS, event, key=key)
        return None if reply is None else reply.status


@pytest.fixture
def world() -> Iterator[World]:
    """Make one."""
    clock = Hands()
    with InProcess(clock) as sandbox:
        yield World(sandbox, clock)


def test_what_is_billed_is_what_was_there_in_time(world: World) -> None:
    """Six months of random usage with lost answers and late events: each unit is billed once, or came too late."""
    rng, in_time, sent = random.Random(7), 0, 0
    grace = 72 * HOUR
    world.sandbox.state.turn({"invoice_grace_seconds": grace})
    for number in range(2_000):
        world.clock.second += rng.randrange(2 * HOUR)
        at = world.clock.second - rng.choice((0, 60, HOUR, 30 * HOUR, 4 * DAY))
        if at < MAY:
            continue
        if rng.random() < 0.2:
            world.sandbox.fault(rng.choice(["drop", "commit_then_close", "rate_limit", "commit_then_error"]))
        value = rng.randrange(1, 100)
        statuses = [world.send(f"i{number}", value, at, key=f"k{number}-{attempt}") for attempt in range(3)]
        assert {200, 400} & set(statuses)
        end = datetime.fromtimestamp(at, UTC)
        end = datetime(end.year + end.month // 12, end.month % 12 + 1, 1, tzinfo=UTC)
        sent += value
        in_time += value if world.clock.second < int(end.timestamp()) + grace else 0
    world.clock.second += 40 * DAY
    assert world.sandbox.billed(world.customer, "credits") == in_time
    assert 0 < in_time < sent


def test_the_result_does_not_depend_on_when_anybody_looked() -> None:
    """L: the clock's steps are taken in their order, each once, whether one call brings them or many."""

    def invoices(*, look: bool) -> list[Any]:
        clock = Hands()
        with InProcess(clock) as sandbox:
            world = World(sandbox, clock)
            for day in range(100):
                clock.second = MAY + day * DAY + 7
                if look:
                    sandbox.ask("GET", "/v1/invoices")
                if day % 30 == 3:
                    world.send(f"i{day}", day + 1, clock.second - 60)
            clock.second = MAY + 200 * DAY
            listed = sandbox.ask("GET", "/v1/invoices", {"customer": world.customer, "limit": 100})["data"]
            return [(one["period_start"], one["status_transitions"]["finalized_at"], one["total"]) for one in listed]

    assert invoices(look=True) == invoices(look=False)
    assert sum(total for *_, total in invoices(look=False)) == 4 + 34 + 64 + 94


def test_a_form_and_parameters_are_the_same_call(world: World) -> None:
    """Under one key the second is a replay of the first."""
    api = Api(world.sandbox.state)
    common: dict[str, Any] = {"method": "POST", "path": "/v1/customers", "authorization": AUTHORIZATION, "key": "k"}
    first = api.answer(Request(form="name=acme&metadata[a]=1", **common))
    again = api.answer(Request(fields={"name": "acme", "metadata": {"a": "1"}}, **common))
    assert (again.status, again.body) == (200, first.body)
    assert again.headers == {"Idempotent-Replayed": "true"}


def test_calls_that_wait_for_nothing_do_not_overlap_and_those_of_a_socket_do(world: World) -> None:
    """`answer` ends before it returns; two that are answered in turn meet."""
    api = Api(world.sandbox.state)

    def event(identifier: str) -> Request:
        payload = {"value": "1", "stripe_customer_id": world.customer}
        fields = {"event_name": "credits", "identifier": identifier, "payload": payload}
        return Request(method="POST", path=EVENTS, authorization=AUTHORIZATION, fields=fields)

    assert [api.answer(event(f"a{number}")).status for number in range(3)] == [200, 200, 200]

    async def both() -> list[int]:
        replies = await asyncio.gather(*(api.answer_in_turn(event(f"b{number}"), None) for number in range(2)))
        return sorted(reply.status for reply in replies)

    assert asyncio.run(both()) == [200, 409]


def test_a_call_that_fails_leaves_nothing_of_it(world: World) -> None:
    """Neither in the store nor in what was read of it."""
    state = world.sandbox.state
    before = world.sandbox.ask("GET", f"/v1/subscriptions/{world.subscription}")
    change = {"items": [{"id": before["items"]["data"][0]["id"], "price": world.price}, {"price": "price_nobody"}]}
    reply = world.sandbox.call("POST", f"/v1/subscriptions/{world.subscription}", change)
    assert reply is not None
    assert reply.status == 400
    assert world.sandbox.ask("GET", f"/v1/subscriptions/{world.subscription}") == before

    price = {"product": "prod_x", "currency": "eur", "unit_amount": 1, "lookup_key": "x"}
    world.sandbox.ask("POST", "/v1/products", {"id": "prod_x", "name": "x"})
    keyed = world.sandbox.ask("POST", "/v1/prices", price)
    taken = {**price, "transfer_lookup_key": True, "recurring": {"interval": "month", "interval_count": 0}}
    reply = world.sandbox.call("POST", "/v1/prices", taken)
    assert reply is not None
    assert reply.status == 400
    assert world.sandbox.ask("GET", f"/v1/prices/{keyed['id']}") == keyed

    def undone() -> None:
        with state.store.transaction():
            state.store.set_meter_status(world.meter, "inactive", 0)
            assert state.store.active_meter("credits") is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        undone()
    assert state.store.active_meter("credits") is not None
    world.clock.second += 40 * DAY
    assert len(world.sandbox.ask("GET", "/v1/invoices")["data"]) == 2


def test_a_step_of_the_clock_that_fails_is_taken_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is undone as a whole, and nothing that was due is forgotten."""
    world.clock.second += 70 * DAY
    with monkeypatch.context() as patched:
        patched.setattr(drafting, "finalized", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.sandbox.state.catch_up()
    listed = world.sandbox.ask("GET", "/v1/invoices")["data"]
    assert [one["period_start"] for one in listed] == [MAY + 31 * DAY, MAY, MAY]


def test_a_restarted_stand_in_makes_the_invoices_that_are_due(tmp_path: Path) -> None:
    """Subscriptions, drafts and what waits are in the file."""
    clock, file = Hands(), tmp_path / "sandbox.sqlite3"
    sandbox = InProcess(clock, file)
    world = World(sandbox, clock)
    clock.second += DAY
    world.send("i1", 5, clock.second - 60)
    clock.second = MAY + 31 * DAY
    assert [one["status"] for one in sandbox.ask("GET", "/v1/invoices")["data"]] == ["draft", "paid"]
    world.send("i2", 7, clock.second - 60)
    sandbox.close()

    clock.second += 31 * DAY
    with InProcess(clock, file) as again:
        assert again.billed(world.customer, "credits") == 12


def test_a_file_of_an_earlier_version_is_taken_with_what_is_in_it(tmp_path: Path) -> None:
    """It lacks tables and columns, which are added."""
    file = tmp_path / "sandbox.sqlite3"
    State(SystemClock(), file).store.close()
    with closing(sqlite3.connect(file)) as old, old:
        old.execute("DROP TABLE document")
        old.execute("DROP INDEX event_dropped")
        for column in ("key", "canceled_at", "api"):
            old.execute(f"ALTER TABLE event DROP COLUMN {column}")
        event = ("i1", "credits", "mtr_1", "cus_1", "5", MAY, MAY, None, json.dumps({"value": "5"}))
        columns = "identifier, event_name, meter, customer, value, timestamp, received_at, dropped, payload"
        old.execute(f"INSERT INTO event ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", event)
    state = State(SystemClock(), file)
    assert [one.identifier for one in state.store.events.all()] == ["i1"]
    assert state.describe()["totals"] == {"cus_1": {"credits": 5}}
    state.store.close()


def test_an_event_costs_as_much_whatever_there_is(world: World) -> None:
    """A million of them can be simulated: the number of statements is bounded, and none reads more than it needs."""

    def statements() -> list[str]:
        seen: list[str] = []
        world.sandbox.state.store._connection.set_trace_callback(seen.append)
        assert world.send(f"i{world.clock.second}", 5, world.clock.second, key=f"k{world.clock.second}") == 200
        world.sandbox.state.store._connection.set_trace_callback(None)
        return [text.split(None, 3)[0] for text in seen]

    first = statements()
    for number in range(50):
        meter = {"display_name": "C", "event_name": f"m{number}", "default_aggregation": {"formula": "sum"}}
        world.sandbox.ask("POST", "/v1/billing/meters", meter)
        world.clock.second += 1
        world.send(f"x{number}", 5, world.clock.second)
    world.clock.second += 1
    assert first == statements()
    assert sorted(first) == ["BEGIN", "COMMIT", "INSERT", "INSERT", "SELECT", "SELECT", "SELECT"]


def test_a_signed_webhook_is_verified_by_the_sdk() -> None:
    """And refused when a byte of it is another one, or it is too old."""
    payload, secret, now = json.dumps({"id": "evt_1", "object": "event", "type": "x"}), "whsec_test", 1_795_262_400
    header = webhooks.signature(payload, secret, now)
    verify = stripe.WebhookSignature.verify_header
    assert verify(payload, header, secret)
    assert header == stripe.WebhookSignature.generate_signature_header(payload, secret, now)
    for wrong in ((payload + " ", header, secret), (payload, header, "whsec_other")):
        with pytest.raises(stripe.SignatureVerificationError):
            verify(*wrong)
    with pytest.raises(stripe.SignatureVerificationError, match="Timestamp"):
        verify(payload, webhooks.signature(payload, secret, 0), secret, 300)
