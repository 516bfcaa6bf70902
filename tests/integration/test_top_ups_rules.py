"""Top-up rules: how long one rests, what turns it off, what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from billing import admin
from billing.core.errors import InvalidValue, UnknownClient
from billing.top_ups.looking import SWEEP, look
from tests.integration.market import HOUR, Market

pytestmark = pytest.mark.integration


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


def test_nothing_is_asked_for_a_client_that_may_not_work(market: Market) -> None:
    market.topping_up("acme")
    admin.set_client_state(market.settings, "acme", "suspended")
    market.work()
    assert market.requests() == []
    admin.set_client_state(market.settings, "acme", "active")
    market.later(SWEEP.total_seconds())
    market.work()
    assert market.requests() == [("granted", "low")]


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
