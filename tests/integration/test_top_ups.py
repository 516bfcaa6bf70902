"""Top-ups: one request per shortfall, whoever triggers it and how often; what the application says is done once."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest

from billing import admin
from billing.alerts.recording import record
from billing.core.errors import InvalidValue, UnknownClient, Unreachable
from billing.core.limits import USABLE_GRANTS_MAX
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.values import Balance, ReleaseOutcome, ReserveOutcome
from billing.top_ups import looking
from billing.top_ups.asking import ATTEMPTS_MAX, TopUps, run_top_ups
from billing.top_ups.looking import SWEEP, look, look_at, make_due
from billing.top_ups.request import Request
from tests.integration.alerting import Scene
from tests.integration.topping_up import CALLS_FILE, DEADLY, HOOK, Shop, opened
from tests.integration.triggering import trigger
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
HOUR = 3_600


class Market(Scene):
    """A scene whose clients top up, and the worker that asks for it."""

    def __init__(self, settings: Settings, shop: Shop) -> None:
        super().__init__(settings)
        self.shop = shop
        self.top_ups = TopUps(self.runtime)

    def topping_up(self, client_id: str, credits_: int = 500, *, left: int = 10, **rule: Any) -> None:
        """Make a client with a rule that has 100 credits, and spend them but for some."""
        self.client(client_id)
        rule.setdefault("below_percent", 20)
        admin.set_top_up(self.settings, client_id, credits_, **rule)
        if left < 100:
            assert self.take(client_id, 100 - left) is ReserveOutcome.HELD

    def work(self, steps: int = 3) -> None:
        """Step as a worker does, and wait for the answers."""
        for _ in range(steps):
            self.top_ups.step()
            self.top_ups.finish()

    def requests(self, client_id: str = "acme") -> list[tuple[str, str]]:
        """Return state and shortfall of each request of a client, the oldest first."""
        rows = admin.top_up(self.settings, client_id).requests
        return [(row.state, row.shortfall) for row in reversed(rows)]

    def available(self, client_id: str = "acme") -> int:
        """Return what a client has."""
        return admin.balance(self.settings, client_id).available

    def step_until_granted(self, client_id: str) -> None:
        """Step as the loop does, which never waits for the hook, until a client's request is granted."""

        def granted() -> bool:
            self.top_ups.step()
            return self.requests(client_id)[-1:] == [("granted", "low")]

        wait_until(granted, f"{client_id} is topped up", timeout_seconds=120)

    def later(self, seconds: float) -> None:
        """Let time go by."""
        self.clock.move(seconds)


@pytest.fixture
def market(database: Settings, redis_url: str) -> Iterator[Market]:
    settings = dataclasses.replace(database, redis_url=redis_url, top_up_hook=HOOK)
    with opened() as shop:
        made = Market(settings, shop)
        yield made
        made.close()


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


def test_after_declines_the_rest_grows_to_its_bound_and_success_resets_it(market: Market) -> None:
    """Given a card that is declined, then it rests 1, 2, 4, 4, … hours; after a grant, a decline rests 1 hour again."""
    market.topping_up("acme", credits_=1, back_off_seconds=HOUR, back_off_max_seconds=4 * HOUR, cool_off_seconds=HOUR)
    market.shop.answer = lambda _: "declined"
    market.work()
    asked = 1
    for hours in (1, 2, 4, 4, 4):
        market.later(hours * HOUR - 1)
        market.work()
        assert len(market.shop.calls) == asked
        market.later(1)
        market.work()
        asked += 1
        assert len(market.shop.calls) == asked
    assert admin.top_up(market.settings, "acme").declines == 6

    market.shop.answer = lambda _: "granted"
    market.later(4 * HOUR)
    market.work()
    assert admin.top_up(market.settings, "acme").declines == 0
    market.shop.answer = lambda _: "declined"
    market.later(HOUR)
    market.work()
    market.later(HOUR)
    market.work()
    assert [state for state, _ in market.requests()] == ["declined"] * 6 + ["granted"] + ["declined"] * 2
    assert len({call.request_id for call in market.shop.calls}) == len(market.shop.calls) == 9


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


def test_a_grant_that_its_bucket_has_not_yet_counts(market: Market) -> None:
    market.topping_up("acme")
    with market.runtime.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO credit_grant (client_id, credits) VALUES ('acme', 500)")
    market.work()
    assert market.requests() == []


def test_l10_a_hook_that_hangs_delays_nobody_and_its_late_answer_counts(market: Market) -> None:
    """Given a hook that hangs for one client, then others are topped up; once it answers, so is that one."""
    released = threading.Event()
    market.shop.answers["acme"] = lambda _: "granted" if released.wait(600) else "declined"
    try:
        for client_id in ("acme", "globex", "initech"):
            market.topping_up(client_id)
        for client_id in ("globex", "initech"):
            market.step_until_granted(client_id)
        market.later(2 * HOUR)
        market.top_ups.step()
        assert market.requests("acme") == [("asked", "low")]
        assert [call.client_id for call in market.shop.calls].count("acme") == 1
    finally:
        released.set()
    market.step_until_granted("acme")
    assert market.available("acme") == 510


def test_a_hook_that_raises_is_asked_again_for_the_same_request_and_lapses_in_the_end(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given doubt, then the same request is tried after growing pauses, a few times, and then the rule backs off."""

    def broken(_: Request) -> NoReturn:
        raise ConnectionError("the provider's, with a secret")

    market.shop.answer = broken
    market.topping_up("acme", back_off_seconds=48 * HOUR)
    for _ in range(ATTEMPTS_MAX + 3):
        market.work()
        market.later(HOUR)
    assert [call.request_id for call in market.shop.calls] == [1] * ATTEMPTS_MAX
    assert len({call.key for call in market.shop.calls}) == 1
    assert [call.attempts for call in market.shop.calls] == list(range(1, ATTEMPTS_MAX + 1))
    (row,) = admin.top_up(market.settings, "acme").requests
    assert (row.state, row.reason) == ("lapsed", "was asked too often, or for too long")
    assert admin.top_up(market.settings, "acme").declines == 1


def test_an_answer_that_is_none_is_doubt(market: Market) -> None:
    market.shop.answer = lambda _: True
    market.topping_up("acme")
    market.work()
    (row,) = admin.top_up(market.settings, "acme").requests
    assert (row.state, row.reason) == ("asked", "answered neither granted, declined nor pending")


def test_l10_an_answer_that_raises_when_it_is_looked_at_is_doubt_and_keeps_nobody_waiting(market: Market) -> None:
    """Given a hook that returns, say, a lazy query of a database that is away, then others are topped up."""

    class Lazy:
        def __repr__(self) -> str:
            raise ConnectionError("the database is away")

    market.shop.answers["acme"] = lambda _: Lazy()
    for client_id in ("acme", "globex"):
        market.topping_up(client_id)
    market.work()
    assert (market.requests("acme"), market.requests("globex")) == ([("asked", "low")], [("granted", "low")])


def test_a_pending_request_is_answered_later_and_once(market: Market) -> None:
    market.shop.answer = lambda _: "pending"
    market.topping_up("acme")
    market.work()
    market.later(HOUR)
    market.work()
    assert (market.requests(), len(market.shop.calls)) == ([("asked", "low")], 1)
    for _ in range(2):
        row = admin.answer_top_up(market.settings, 1, "granted")
        assert (row.state, row.answer) == ("granted", "")
    assert market.available() == 510
    with pytest.raises(InvalidValue, match=r"^request_id: 1: is granted already, so it cannot be declined$"):
        admin.answer_top_up(market.settings, 1, "declined")
    with pytest.raises(InvalidValue, match="9: is not a known request"):
        admin.answer_top_up(market.settings, 9, "granted")


def test_a_pending_request_without_an_answer_lapses_and_may_be_paid_for_yet(market: Market) -> None:
    market.shop.answer = lambda _: "pending"
    market.topping_up("acme")
    market.work()
    market.later(86_400)
    market.work()
    assert market.requests() == [("lapsed", "low")]
    assert admin.top_up(market.settings, "acme").declines == 1
    admin.answer_top_up(market.settings, 1, "granted")
    assert market.requests() == [("granted", "low")]
    assert market.available() == 510
    assert admin.top_up(market.settings, "acme").declines == 0


@pytest.mark.parametrize("answer", ["pending", "doubtful"])
def test_l9_a_request_that_is_to_lapse_is_not_asked_again_while_it_cannot(
    market: Market, session: psycopg.Connection[Any], answer: str
) -> None:
    """Given a locked request whose time is over, or in doubt after its attempts, then it lapses without a call."""
    market.shop.answer = lambda _: answer
    market.topping_up("acme")
    for _ in range(1 if answer == "pending" else ATTEMPTS_MAX):
        market.work(steps=1)
        market.later(86_399 if answer == "pending" else HOUR)
    asked = len(market.shop.calls)
    assert asked == (1 if answer == "pending" else ATTEMPTS_MAX)
    market.later(1)
    with session.transaction():
        session.execute("SELECT FROM top_up_rule WHERE client_id = 'acme' FOR UPDATE")
        market.work(steps=1)
    market.work(steps=1)
    assert (market.requests(), len(market.shop.calls)) == ([("lapsed", "low")], asked)


def test_a_grant_under_the_requests_key_is_its_answer(market: Market) -> None:
    """Given an application that grants by itself and then also says so, then there is one grant."""

    def pays(request: Request) -> str:
        admin.grant(market.settings, request.client_id, 450, key=request.key)
        return "granted"

    market.shop.answer = pays
    market.topping_up("acme")
    market.work()
    assert (market.requests(), market.available()) == ([("granted", "low")], 460)
    market.shop.answer = lambda _: "pending"
    market.topping_up("globex")
    market.work()
    admin.grant(market.settings, "globex", 7, key=market.shop.calls[-1].key)
    market.work()
    assert (market.requests("globex"), market.available("globex")) == ([("granted", "low")], 17)


def test_a_worker_that_is_killed_in_the_hook_has_the_request_asked_again_and_granted_once(
    market: Market, tmp_path: Path
) -> None:
    """Given SIGKILL after the hook was called, when the claim has run out, then it is the same request once more."""
    market.topping_up("acme")
    settings = {name: getattr(market.settings, name) for name in ("database_url", "redis_url", "top_up_hook")}
    command = [sys.executable, "-m", "tests.integration.triggering", json.dumps(settings)]
    died = subprocess.run(
        [*command, market.clock.at.isoformat(), "acme", "1", "1"],
        cwd=ROOT,
        env={**os.environ, CALLS_FILE: str(tmp_path / "calls"), DEADLY: "1"},
        input="go\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    market.work()
    assert (market.requests(), market.shop.calls) == ([("asked", "low")], [])
    market.later(market.settings.top_up_timeout_seconds + 6)
    market.work()
    assert (tmp_path / "calls").read_text() == "1\n"
    assert [(call.request_id, call.attempts) for call in market.shop.calls] == [(1, 2)]
    assert (market.requests(), market.available()) == ([("granted", "low")], 510)


def test_what_was_paid_for_and_is_refused_stays_open_until_it_is_granted(market: Market) -> None:
    """Given a client with 64 usable grants, when its top-up is paid for, then it is granted once there is room."""
    market.topping_up("acme", left=100, below_credits=10_000, below_percent=None)
    for number in range(USABLE_GRANTS_MAX - 1):
        row, _ = admin.grant(market.settings, "acme", 1, key=f"k-{number}")
    market.work()
    (waits,) = admin.top_up(market.settings, "acme").requests
    assert (waits.state, waits.answer) == ("asked", "granted")
    assert "64 grants with credits left" in waits.reason
    market.later(30 * 86_400)
    market.work()
    assert market.requests() == [("asked", "low")]
    admin.void(market.settings, row.grant_id)
    market.later(6 * HOUR)
    market.work()
    assert market.requests() == [("granted", "low")]
    assert len(market.shop.calls) == 1


def test_grants_that_repaid_debt_leave_room_for_what_was_paid_for(market: Market) -> None:
    """Given 64 grants of which nothing is left, since they repaid debt, when more was paid for, then it is granted."""
    market.topping_up("acme", left=100, below_credits=500, below_percent=None)
    admin.adjust_credits(market.settings, "acme", -100 - USABLE_GRANTS_MAX, key="debt", reason="a chargeback")
    for number in range(USABLE_GRANTS_MAX):
        admin.grant(market.settings, "acme", 1, key=f"k-{number}")
    assert (admin.balance(market.settings, "acme").owed, market.available()) == (0, 0)
    market.work()
    assert (market.requests(), market.available()) == ([("granted", "low")], 500)


def test_nothing_is_asked_for_a_client_that_may_not_work(market: Market) -> None:
    market.topping_up("acme")
    admin.set_client_state(market.settings, "acme", "suspended")
    market.work()
    assert market.requests() == []
    admin.set_client_state(market.settings, "acme", "active")
    market.later(SWEEP.total_seconds())
    market.work()
    assert market.requests() == [("granted", "low")]


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


def test_without_a_hook_a_request_waits_and_can_be_answered(market: Market) -> None:
    for name in ("", "tests.integration.topping_up:missing"):
        admin.close(market.settings)
        market.settings = dataclasses.replace(market.settings, top_up_hook=name)
        market.runtime.settings = market.settings
        client_id = f"client{len(name)}"
        market.topping_up(client_id)
        market.work()
        assert market.requests(client_id) == [("wanted", "low")]
        row = admin.top_up(market.settings, client_id).requests[0]
        assert admin.answer_top_up(market.settings, row.request_id, "granted").state == "granted"
        assert market.available(client_id) == 510


def test_turned_off_it_asks_nothing_more_and_what_was_asked_may_be_granted(market: Market) -> None:
    market.shop.answer = lambda _: "pending"
    market.topping_up("acme")
    market.work()
    market.topping_up("globex")
    assert look(market.runtime) == 1
    for client_id in ("acme", "globex"):
        assert admin.remove_top_up(market.settings, client_id)
        assert not admin.remove_top_up(market.settings, client_id)
    market.later(HOUR)
    market.work()
    assert (market.requests("acme"), market.requests("globex")) == ([("asked", "low")], [("lapsed", "low")])
    assert admin.answer_top_up(market.settings, 1, "granted").state == "granted"


def test_setting_a_rule_again_does_not_shorten_its_rest(market: Market) -> None:
    market.shop.answer = lambda _: "declined"
    market.topping_up("acme")
    market.work()
    for _ in range(3):
        admin.set_top_up(market.settings, "acme", 500, below_percent=20)
        market.work()
    assert len(market.shop.calls) == 1


def test_beats_pass_does_all_of_it(market: Market) -> None:
    market.topping_up("acme")
    run_top_ups(market.runtime)
    assert market.requests() == [("granted", "low")]


def test_l9_hooks_that_hang_everywhere_are_no_more_than_their_bound(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given room for two calls, when every call hangs, then two are begun, and the third once one has ended."""
    for name in ("billing.top_ups.hook.CALLS_MAX", "billing.top_ups.asking.CALLS_MAX"):
        monkeypatch.setattr(name, 2)
    released = threading.Event()
    market.shop.answer = lambda _: "granted" if released.wait(600) else "declined"
    names = ("acme", "globex", "initech")
    try:
        for client_id in names:
            market.topping_up(client_id)
        for _ in range(3):
            market.top_ups.step()
        wait_until(lambda: len(market.shop.calls) == 2, "two calls", timeout_seconds=60)
    finally:
        released.set()
    for client_id in names:
        market.step_until_granted(client_id)
    assert len(market.shop.calls) == 3


def test_what_is_wrong_is_refused(market: Market) -> None:
    market.client("acme")
    bad: list[tuple[str, dict[str, Any]]] = [
        ("below", {}),
        ("below", {"below_percent": 5, "below_credits": 5}),
        ("below_percent", {"below_percent": 0}),
        ("below_percent", {"below_percent": 100}),
        ("below_credits", {"below_credits": 0}),
        ("cool_off_seconds", {"below_percent": 5, "cool_off_seconds": 59}),
        ("back_off_seconds", {"below_percent": 5, "back_off_seconds": 10**9}),
        ("back_off_max_seconds", {"below_percent": 5, "back_off_seconds": 120, "back_off_max_seconds": 119}),
    ]
    for field, rule in bad:
        with pytest.raises(InvalidValue, match=rf"^{field}: .*: must be"):
            admin.set_top_up(market.settings, "acme", 5, **rule)
    with pytest.raises(InvalidValue, match=r"^credits: 0: must be"):
        admin.set_top_up(market.settings, "acme", 0, below_percent=5)
    with pytest.raises(UnknownClient):
        admin.set_top_up(market.settings, "nobody", 5, below_percent=5)
    with pytest.raises(InvalidValue, match=r"^answer: 'maybe': must be granted or declined$"):
        admin.answer_top_up(market.settings, 1, "maybe")  # type: ignore[arg-type]
