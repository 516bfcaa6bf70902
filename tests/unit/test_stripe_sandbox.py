"""The stand-in's pure parts: the form of a request, values, pages, faults in their order."""

from __future__ import annotations

from typing import Any

import pytest

from billing.sinks.stripe.sandbox import faults, idempotency, pages
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.form import decode
from billing.sinks.stripe.sandbox.params import Param, check
from billing.sinks.stripe.sandbox.records import Meter
from billing.sinks.stripe.sandbox.resources import meter_events as events


def meter(formula: str = "sum") -> Meter:
    """Make a meter with Stripe's default keys."""
    details = {
        "default_aggregation": {"formula": formula},
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "value_settings": {"event_payload_key": "value"},
    }
    return Meter(id="mtr_1", event_name="credits", created=0, updated=0, details=details)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        ("a=1&b=", {"a": "1", "b": ""}),
        ("payload[value]=5&payload[who]=x", {"payload": {"value": "5", "who": "x"}}),
        ("payload%5Bvalue%5D=a%26b%3D%C3%A9+c", {"payload": {"value": "a&b=é c"}}),
        ("expand[0]=a&expand[1]=b", {"expand": {"0": "a", "1": "b"}}),
        ("a=1&a=2", {"a": "2"}),
    ],
)
def test_a_form_is_decoded_as_the_sdk_encodes_it(text: str, fields: dict[str, Any]) -> None:
    """Nested by brackets, percent-encoded."""
    assert decode(text) == fields


@pytest.mark.parametrize(
    "text", ["a=1&a[b]=2", "a[b]=2&a=1", "[a]=1", "a[b=1", "a[b][c][d][e][f]=1", "a=%ff", "a&" * 501]
)
def test_what_is_no_form_is_refused(text: str) -> None:
    """Nothing is guessed, and nothing is unbounded."""
    with pytest.raises(Refusal) as caught:
        decode(text)
    assert caught.value.status == 400


@pytest.mark.parametrize("value", ["0", "1", "-1", "+7", "999999999999999", "-999999999999999", "000000000000000001"])
def test_a_whole_value_of_15_digits_is_taken(value: str) -> None:
    """Leading zeros are not significant."""
    events.check_payload({"stripe_customer_id": "cus_1", "value": value}, meter(), decimals=False)


@pytest.mark.parametrize("value", ["1000000000000000", "1e3", "1.0", " 1", "1 ", "", "٣", "0x1", "--1", "nan"])
def test_what_is_no_whole_value_of_15_digits_is_refused(value: str) -> None:
    """Digits of other scripts, exponents and spaces too."""
    with pytest.raises(Refusal):
        events.check_payload({"stripe_customer_id": "cus_1", "value": value}, meter(), decimals=False)


def test_a_payload_names_its_customer_and_a_count_needs_no_value() -> None:
    """The keys are the meter's."""
    with pytest.raises(Refusal, match="payload\\[stripe_customer_id\\]"):
        events.check_payload({"value": "1"}, meter(), decimals=False)
    with pytest.raises(Refusal, match="payload\\[value\\]"):
        events.check_payload({"stripe_customer_id": "cus_1"}, meter(), decimals=False)
    events.check_payload({"stripe_customer_id": "cus_1"}, meter("count"), decimals=False)


@pytest.mark.parametrize("value", ["1.5", "0.000000000000001", "-1.50", "123456789012345"])
def test_decimals_are_taken_when_the_knob_says_so(value: str) -> None:
    """15 significant digits, wherever the point is."""
    events.check_payload({"stripe_customer_id": "cus_1", "value": value}, meter(), decimals=True)


def test_a_parameter_has_its_type() -> None:
    """The first refusal names the parameter as Stripe does."""
    spec = {"n": Param(kind="integer"), "o": Param(kind="object", fields={"f": Param(required=True)})}
    assert check({"n": "-7", "o": {"f": "x"}}, spec) == {"n": -7, "o": {"f": "x"}}
    for given, param in (({"n": "7.0"}, "n"), ({"n": {"a": "1"}}, "n"), ({"o": "x"}, "o"), ({"o": {"f": ""}}, "o[f]")):
        with pytest.raises(Refusal) as caught:
            check(given, spec)
        assert caught.value.param == param


def test_pages_cover_a_list_once() -> None:
    """Forward and backward, whatever the size of a page; `has_more` is true until the last."""
    objects = [{"id": f"o{number}"} for number in range(7)]
    for limit in range(1, 9):
        seen: list[str] = []
        params: dict[str, Any] = {"limit": limit}
        while True:
            page = pages.page(objects, params, url="/x")
            seen += [one["id"] for one in page["data"]]
            if not page["has_more"]:
                break
            params = {"limit": limit, "starting_after": seen[-1]}
        assert seen == [one["id"] for one in objects]
    before = pages.page(objects, {"limit": 3, "ending_before": "o5"}, url="/x")
    assert ([one["id"] for one in before["data"]], before["has_more"]) == (["o2", "o3", "o4"], True)
    for wrong in (
        {"limit": 0},
        {"limit": 101},
        {"starting_after": "o9"},
        {"starting_after": "o1", "ending_before": "o5"},
    ):
        with pytest.raises(Refusal):
            pages.page(objects, wrong, url="/x")


def test_faults_strike_in_their_order_and_their_number() -> None:
    """The first that matches; one that lets calls through counts them although another strikes."""
    script = faults.FaultScript()
    script.add(faults.parse({"kind": "slow", "after": 1}))
    script.add(faults.parse({"kind": "drop", "path": "/v1/a", "count": 2}))

    def taken(path: str) -> str | None:
        fault = script.take("POST", path, None)
        return None if fault is None else fault.kind

    assert [taken("/v1/a"), taken("/v1/b"), taken("/v1/b"), taken("/v1/a"), taken("/v1/a")] == [
        "drop",
        "slow",
        None,
        "drop",
        None,
    ]
    assert script.list() == []


def test_a_fingerprint_does_not_see_the_order_of_parameters() -> None:
    """Method, path and content count."""
    mark = idempotency.fingerprint("POST", "/v1/x", {"a": "1", "b": "2"})
    assert mark == idempotency.fingerprint("POST", "/v1/x", {"b": "2", "a": "1"})
    others = [
        ("GET", "/v1/x", {"a": "1", "b": "2"}),
        ("POST", "/v1/y", {"a": "1", "b": "2"}),
        ("POST", "/v1/x", {"a": "1"}),
    ]
    assert mark not in [idempotency.fingerprint(*other) for other in others]


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_at_most_255_characters(key: str) -> None:
    """Documented."""
    with pytest.raises(Refusal):
        idempotency.check_key(key)
    idempotency.check_key("k" * 255)
