"""Shortfalls become requests: one per shortfall, whoever triggers it and how often."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from billing import admin
from billing.alerts.recording import record
from billing.core.errors import Unreachable
from billing.core.shards import shard_of
from billing.credits.values import Balance, ReleaseOutcome, ReserveOutcome
from billing.top_ups import looking
from billing.top_ups.asking import ATTEMPTS_MAX, run_top_ups
from billing.top_ups.looking import SWEEP, look, look_at, make_due
from billing.top_ups.statements import CLAIM
from tests.integration.market import HOUR, Market
from tests.integration.topping_up import CALLS_FILE
from tests.integration.triggering import trigger
from tests.sessions import is_any_waiting
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_a_balance_that_falls_short_is_topped_up_once(market: Market) -> None:
    """Given an alert that was recorded, when workers step, then the hook is called once and its credits are there."""
    market.topping_up("acme", left=100)
    market.work()
    assert market.shop.calls == []
    market.alerted("acme")
    market.work()

    (asked,) = market.shop.calls
    assert (asked.client_id, asked.credits, asked.shortfall, asked.available) == ("acme", 500, "low", 10)
    assert market.requests() == [("granted", "low")]
    assert market.available() == 510
    with market.runtime.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT key, kind FROM credit_grant ORDER BY grant_id DESC LIMIT 1").one()
    assert tuple(found) == (asked.key, "paid")


def test_a_thousand_triggers_at_once_are_one_request_and_one_call(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given one shortfall and 1,000 triggers from 20 threads of 2 processes, then one request, one call, one grant.

    After the cool-off, when it is still short, there is exactly one more.
    """
    calls = tmp_path / "calls"
    monkeypatch.setenv(CALLS_FILE, str(calls))
    market.topping_up("acme", credits_=1, below_credits=50, below_percent=None, cool_off_seconds=HOUR)
    _trigger_from_processes(market, processes=2, count=50, threads=10)

    assert market.requests() == [("granted", "low")]
    assert calls.read_text() == "1\n"
    assert market.available() == 11

    market.later(HOUR - 1)
    trigger(market.settings, market.clock.at, "acme", count=5, threads=5)
    assert market.requests() == [("granted", "low")]
    market.later(1)
    trigger(market.settings, market.clock.at, "acme", count=20, threads=5)
    assert market.requests() == [("granted", "low")] * 2
    assert calls.read_text() == "1\n2\n"
    assert market.available() == 12


def _trigger_from_processes(market: Market, *, processes: int, count: int, threads: int) -> None:
    """Trigger the client's top-up from processes that begin together."""
    names = ("database_url", "redis_url", "top_up_hook")
    settings = json.dumps({name: getattr(market.settings, name) for name in names})
    command = [sys.executable, "-m", "tests.integration.triggering", settings, market.clock.at.isoformat(), "acme"]
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(count), str(threads)],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(processes)
        ]
        for process in started:
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in started:
            process.communicate()
            assert process.returncode == 0


def test_a_lost_alert_is_made_up_by_the_sweep_and_a_doubled_one_changes_nothing(market: Market) -> None:
    market.topping_up("acme", left=100)
    market.work()
    assert market.take("acme", 90) is ReserveOutcome.HELD
    market.redis.delete(market.stream("acme"))
    assert record(market.runtime) == 0
    market.work()
    assert market.requests() == []
    market.later(SWEEP.total_seconds())
    market.work()
    assert market.requests() == [("granted", "low")]
    for _ in range(3):
        make_due(market.runtime, ["acme", "acme", "nobody"])
        market.work()
    assert len(market.shop.calls) == 1


def test_a_refused_reserve_is_a_shortfall_though_something_is_left(market: Market) -> None:
    """Given 100 credits and a reserve of 300 that is refused, then it is topped up once; after that it is not short."""
    market.topping_up("acme", left=100, cool_off_seconds=60)
    assert market.take("acme", 300) is ReserveOutcome.INSUFFICIENT
    assert record(market.runtime) == 1
    market.work()
    assert market.requests() == [("granted", "refused")]
    assert market.take("acme", 300) is ReserveOutcome.HELD
    for _ in range(3):
        market.later(HOUR)
        market.work()
    assert len(market.shop.calls) == 1


def test_a_balance_that_ran_out_and_came_back_is_not_short(market: Market) -> None:
    """Given a hold of everything that was released before anybody looked, then nothing is asked."""
    market.topping_up("acme", left=0)
    assert record(market.runtime) == 1
    (hold,) = market.runtime.buckets.held("acme")
    assert market.runtime.buckets.release("acme", hold.run_id, hold.token) is ReleaseOutcome.RELEASED
    market.work()
    assert market.available() == 100
    assert market.requests() == []


def test_what_is_no_longer_short_when_it_is_to_be_asked_lapses(market: Market) -> None:
    market.topping_up("acme")
    assert look(market.runtime) == 1
    assert market.requests() == [("wanted", "low")]
    admin.grant(market.settings, "acme", 1_000, key="by hand")
    market.work()
    assert market.requests() == [("lapsed", "low")]
    assert market.shop.calls == []
    assert admin.top_up(market.settings, "acme").declines == 0


def test_a_balance_that_was_read_before_a_grant_makes_no_request(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a look that stalls after it read a low balance, when a grant finishes meanwhile, then it asks nothing."""
    market.topping_up("acme", cool_off_seconds=60)

    def stalled(*given: Any, **named: Any) -> Any:
        seen = look_at(*given, **named)
        monkeypatch.undo()
        make_due(market.runtime, ["acme"])
        market.work()
        market.later(61)
        return seen

    monkeypatch.setattr(looking, "look_at", stalled)
    assert look(market.runtime) == 0
    assert market.requests() == [("granted", "low")]


def test_a_shortfall_that_was_seen_before_its_rule_moved_makes_no_request(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a look at 10 of 100 credits, when the rule is set to below 5 % before a request is made, then none is."""
    market.topping_up("acme")

    def stalled(*given: Any, **named: Any) -> Any:
        seen = look_at(*given, **named)
        assert [found.short is not None for found in seen.values()] == [True]
        admin.set_top_up(market.settings, "acme", 500, below_percent=5)
        return seen

    monkeypatch.setattr(looking, "look_at", stalled)
    assert look(market.runtime) == 0
    assert market.requests() == []


def test_l3_two_claims_at_once_are_one(market: Market, session: psycopg.Connection[Any]) -> None:
    """Given a claim that is not committed, when another one is made, then it has nothing, and need not wait for it."""
    market.topping_up("acme")
    assert look(market.runtime) == 1
    now = market.clock.now()
    request_id = session.execute("SELECT request_id FROM top_up_request").fetchall()[0][0]
    given = {
        "now": now,
        "claimed_until": now + SWEEP,
        "wanted": [request_id],
        "attempts_max": ATTEMPTS_MAX,
        "asked_before": now - SWEEP,
        "busy": [],
        "asking": True,
        "count": 10,
    }

    def claimed() -> int:
        with market.runtime.engine.begin() as connection:
            return len(connection.execute(CLAIM, given).all())

    with ThreadPoolExecutor(1) as pool:
        with market.runtime.engine.begin() as first:
            assert len(first.execute(CLAIM, given).all()) == 1
            second = pool.submit(claimed)
            wait_until(
                lambda: second.done() or is_any_waiting(market.settings.database_url), "the second claim ends, or waits"
            )
            has_waited = not second.done()
        assert (second.result(), has_waited, claimed()) == (0, False, 0)


def test_a_grant_that_its_bucket_has_not_yet_counts(market: Market) -> None:
    market.topping_up("acme")
    with market.runtime.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO credit_grant (client_id, credits) VALUES ('acme', 500)")
    market.work()
    assert market.requests() == []


def test_l10_what_somebody_has_locked_keeps_nobody_waiting(market: Market, session: psycopg.Connection[Any]) -> None:
    """Given a rule that is locked for long, then alerts are recorded, and others are topped up."""
    for client_id in ("acme", "globex"):
        market.topping_up(client_id)
    with session.transaction():
        session.execute("SELECT FROM top_up_rule WHERE client_id = 'acme' FOR UPDATE")
        assert record(market.runtime) == 2
        market.work()
        assert (market.requests("acme"), market.requests("globex")) == ([], [("granted", "low")])
    market.work()
    assert market.requests("acme") == [("granted", "low")]


def test_l10_a_node_that_is_silent_is_waited_for_once_and_keeps_nobody_else_short(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given more clients of a silent node than one look waits for, then who is short on another node is topped up."""
    buckets = market.runtime.buckets
    for client_id in (*(f"silent-{number}" for number in range(8)), "acme"):
        market.topping_up(client_id)
    shard, balance = shard_of("acme", market.settings.shards), buckets.balance
    asked = []

    def silenced(client_id: str) -> Balance | None:
        if client_id != "acme":
            asked.append(client_id)
            raise Unreachable("node 0 does not answer")
        return balance(client_id)

    monkeypatch.setattr(buckets, "node_of", lambda other: f"node {int(other == shard)}")
    monkeypatch.setattr(buckets, "balance", silenced)
    assert look(market.runtime) == 1
    assert len(asked) == 1


def test_beats_pass_does_all_of_it(market: Market) -> None:
    market.topping_up("acme")
    run_top_ups(market.runtime)
    assert market.requests() == [("granted", "low")]
