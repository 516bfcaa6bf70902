"""Random walks of the stand-in over its knobs: whatever is assumed of Stripe, its own books agree with each other."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from billing.sinks.stripe.sandbox.in_process import InProcess

HOUR, DAY, WEEK = 3_600, 86_400, 7 * 86_400
MONDAY: Final = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp())
KNOBS: Final[dict[str, tuple[object, ...]]] = {
    "identifier_window_seconds": (DAY, 36 * HOUR, 400 * DAY),
    "identifier_scope": ("account", "meter"),
    "duplicate_first": (False, True),
    "unknown_customer": ("drop", "refuse"),
    "no_meter": ("drop", "refuse"),
    "summary_lag_seconds": (0, 20 * HOUR),
    "summary_lag_spread_seconds": (0, HOUR),
    "invoice_lag_seconds": (0, HOUR),
    "invoice_grace_seconds": (0, HOUR, 72 * HOUR),
    "last_invoice": ("grace", "at_once"),
    "first_invoice": (False, True),
    "billing_mode": ("classic", "flexible"),
    "adjustment_seconds": (0, 60),
    "wrong_adjustment": ("refuse", "accept"),
    "canceled_identifier": ("used", "free"),
    "v2_identifiers": ("shared", "own"),
    "error_report_delay_seconds": (0, HOUR),
    "error_samples_max": (1, 5),
    "save_refusals": (False, True),
}


class Clock:
    """A clock that the walk moves."""

    second = MONDAY

    def now(self) -> datetime:
        """Return the walk's instant."""
        return datetime.fromtimestamp(self.second, UTC)

    def monotonic(self) -> float:
        """Return seconds that go with it."""
        return float(self.second)


class Walk:
    """A customer with a weekly subscription, and what may happen to it."""

    def __init__(self, seed: int) -> None:
        self.rng, self.clock = random.Random(seed), Clock()
        self.sandbox = InProcess(self.clock)
        self.sandbox.state.turn({name: self.rng.choice(values) for name, values in KNOBS.items()})
        ask = self.sandbox.ask
        meter = {"display_name": "C", "event_name": "credits", "default_aggregation": {"formula": "sum"}}
        self.meter = ask("POST", "/v1/billing/meters", meter)["id"]
        self.customer = ask("POST", "/v1/customers")["id"]
        product = ask("POST", "/v1/products", {"name": "credits"})["id"]
        recurring = {"interval": "week", "usage_type": "metered", "meter": self.meter}
        price = {"product": product, "currency": "eur", "unit_amount": 1, "recurring": recurring}
        self.prices = [ask("POST", "/v1/prices", price)["id"] for _ in range(2)]
        made = ask("POST", "/v1/subscriptions", {"customer": self.customer, "items": [{"price": self.prices[0]}]})
        self.subscription, self.item = made["id"], made["items"]["data"][0]["id"]
        self.taken: list[str] = []
        self.units = self.dropped = 0

    def send(self) -> None:
        """Report usage, often late, sometimes twice, sometimes of nobody."""
        customer = self.rng.choice([self.customer] * 8 + ["cus_nobody"])
        again = self.taken and self.rng.random() < 0.1
        identifier = self.rng.choice(self.taken) if again else f"i{self.rng.randrange(10**12)}"
        value = self.rng.randrange(1, 100)
        event = {
            "event_name": self.rng.choice(["credits"] * 12 + ["nothing"]),
            "identifier": identifier,
            "timestamp": max(MONDAY, self.clock.second - self.rng.choice((0, 60, HOUR, 2 * DAY))),
            "payload": {"value": str(value), "stripe_customer_id": customer},
        }
        if self.rng.random() < 0.1:
            self.sandbox.fault(self.rng.choice(["drop_later", "drop", "commit_then_close", "error"]), path="/v?/*")
        before = self.sandbox.state.store.count()["events"]
        path = self.rng.choice(["/v1/billing/meter_events", "/v2/billing/meter_events"])
        if path.startswith("/v2"):
            event["timestamp"] = datetime.fromtimestamp(int(str(event["timestamp"])), UTC).isoformat()
        self.sandbox.call("POST", path, event, key=f"k{self.rng.randrange(10**12)}")
        if self.sandbox.state.store.count()["events"] > before:
            kept = self.sandbox.state.store.events.latest(identifier, str(event["event_name"]))
            assert kept is not None
            self.taken.append(identifier)
            self.units += value if kept[1].dropped is None else 0
            self.dropped += kept[1].dropped is not None

    def cancel_event(self) -> None:
        """Cancel an event, if it can be canceled."""
        if self.taken:
            params = {"type": "cancel", "event_name": "credits", "cancel": {"identifier": self.rng.choice(self.taken)}}
            self.sandbox.call("POST", "/v1/billing/meter_event_adjustments", params)

    def change_price(self) -> None:
        """Give the subscription's item one of the two prices."""
        change = {"items": [{"id": self.item, "price": self.rng.choice(self.prices)}]}
        self.sandbox.call("POST", f"/v1/subscriptions/{self.subscription}", change)

    def move(self) -> None:
        """Let time go on."""
        self.clock.second += self.rng.choice((1, 30, HOUR, 5 * HOUR))

    def listed(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """Return all objects of a list."""
        found = self.sandbox.ask("GET", path, {"limit": 100, **params})
        assert not found.get("has_more")
        objects: list[dict[str, Any]] = found["data"]
        return objects


@pytest.mark.parametrize("seed", range(25))
def test_the_books_agree_with_each_other(seed: int) -> None:
    """Summaries are the events that count, reports those that do not; a unit is billed at most once."""
    walk = Walk(seed)
    steps: list[Callable[[], None]] = [walk.send] * 6 + [walk.move] * 5 + [walk.cancel_event]
    steps += [walk.change_price] if seed % 2 else []
    for _ in range(400):
        walk.rng.choice(steps)()
    if seed % 3 == 0:
        walk.sandbox.call("DELETE", f"/v1/subscriptions/{walk.subscription}", {"invoice_now": True})
    walk.clock.second += 2 * DAY  # longer than each lag
    at = walk.clock.second // 60 * 60
    state = walk.sandbox.state.describe()

    path = f"/v1/billing/meters/{walk.meter}/event_summaries"
    params = {"customer": walk.customer, "start_time": MONDAY, "end_time": at}
    (summary,) = walk.listed(path, **params)
    counted = state["totals"].get(walk.customer, {}).get("credits", 0)
    assert summary["aggregated_value"] == counted <= walk.units

    reports = walk.sandbox.ask("GET", "/v2/core/events", {"limit": 100})["data"]
    data = [walk.sandbox.ask("GET", f"/v2/core/events/{one['id']}")["data"]["reason"] for one in reports]
    assert sum(one["error_count"] for one in data) == walk.dropped == sum(state["dropped"].values())
    kinds = [kind for one in data for kind in one["error_types"]]
    most = walk.sandbox.state.knobs.error_samples_max
    assert all(len(kind["sample_errors"]) == min(most, kind["error_count"]) for kind in kinds)

    walk.clock.second += 2 * WEEK
    invoices = walk.listed("/v1/invoices", customer=walk.customer)
    cycles = [one for one in reversed(invoices) if one["billing_reason"] == "subscription_cycle"]
    assert [one["period_start"] for one in cycles[1:]] == [one["period_end"] for one in cycles[:-1]]
    assert len({one["number"] for one in invoices if one["number"]}) == sum(bool(one["number"]) for one in invoices)
    assert 0 < walk.sandbox.billed(walk.customer, "credits") <= walk.units
    walk.clock.second += 2 * WEEK
    later = {one["id"]: one for one in walk.listed("/v1/invoices", customer=walk.customer)}
    final = [one for one in invoices if one["status"] != "draft"]
    assert [json.dumps(later[one["id"]]) for one in final] == [json.dumps(one) for one in final]
    walk.sandbox.close()
