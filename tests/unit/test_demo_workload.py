"""The demo's workload: the same for the same seed, and every client's part of the story is in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from billing.core.identifiers import check_client_id
from billing.embedded.demo.run import _environment, _variables
from billing.embedded.demo.workload import BURST, DEEP, SHORT, Expected, Site, plan
from billing.embedded.endpoints import Endpoints
from billing.integration.configuration import read
from billing.sinks.stripe.keys import KeyKind, key_kind

SITE = Site(small=["http://h/a.html", "http://h/b.html"], large=["http://h/large.html"], missing="http://h/gone.html")


def test_given_a_seed_when_planned_twice_then_the_orders_are_the_same() -> None:
    assert plan(SITE, seed=3) == plan(SITE, seed=3)
    assert plan(SITE, seed=3) != plan(SITE, seed=4)


def test_given_the_plan_when_counted_then_there_is_a_burst_and_one_deep_search() -> None:
    workload = plan(SITE)
    counts = Counter(order.client_id for order in workload.orders)
    assert counts[BURST.client_id] == 2_000
    assert counts[DEEP.client_id] == 1
    assert set(counts) == {check_client_id(client.client_id) for client in workload.clients}


def test_given_the_short_budget_when_compared_with_its_orders_then_it_ends_in_the_middle() -> None:
    """L1: a capture costs 3 credits or more, so the grant pays for some of them and not for all."""
    workload = plan(SITE)
    own = [order for order in workload.orders if order.client_id == SHORT.client_id]
    assert 0 < SHORT.credits < 3 * len(own)
    assert all(order.expected is Expected.SUCCESS_OR_REFUSAL for order in own)


def test_given_the_orders_when_looked_at_then_only_dead_links_are_expected_to_fail() -> None:
    for order in plan(SITE).orders:
        assert (order.expected is Expected.FAILURE) == (order.arguments.get("url") == SITE.missing)


def test_given_a_key_of_stripe_in_the_environment_when_the_demo_runs_then_it_goes_to_the_stand_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It makes meters and increments of its own, which are nothing for anybody's account."""
    monkeypatch.setenv("BILLING_STRIPE_API_KEY", "sk_live_" + "1" * 24)
    monkeypatch.setenv("BILLING_STRIPE_LIVE", "true")
    monkeypatch.setenv("BILLING_CONNECTION_FILE", str(tmp_path / "none.json"))
    endpoints = Endpoints(
        redis_url="redis://127.0.0.1:1/0",
        database_url="postgresql://127.0.0.1:1/billing",
        broker_url="amqp://127.0.0.1:1//",
        result_url="redis://127.0.0.1:1/1",
        stripe_sandbox_url="http://127.0.0.1:1",
    )
    servers = cast("Any", SimpleNamespace(endpoints=endpoints, directory=tmp_path))
    with _environment(_variables(servers)):
        assert key_kind(read({})) is KeyKind.STAND_IN
