"""Who pays for a call is named once, when it is submitted and again before it runs. Billed by a twin."""

from __future__ import annotations

from typing import Any

import celery
import pytest

from billing import InvalidValue
from billing.testing import BillingTwin
from tests.unit.submitting.declaring import sold

BAD_CLIENTS: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((7,), {}, "client_id: 7: "),
    (("two words",), {}, "client_id: 'two words': "),
    ((), {}, "client_id: None: task sold (SKU 'page') has no client"),
    ((), {"billing_client": 7}, "billing_client: 7: "),
    ((), {"headers": {"billing_client": ""}}, "billing_client: '': "),
    (("acme",), {"billing_client": "brook"}, "billing_client: 'brook': names another client than the argument"),
    (("acme",), {"headers": {"billing_client": "brook"}}, "billing_client: 'brook': names another client"),
    ((), {"billing_client": "acme", "headers": {"billing_client": "brook"}}, "billing_client: 'acme': names another"),
]


@pytest.mark.parametrize(("args", "options", "refusal"), BAD_CLIENTS)
def test_a_call_that_names_no_one_payer_is_refused_when_it_is_submitted(
    app: celery.Celery,
    twin: BillingTwin,
    published: list[dict[str, Any]],
    args: tuple[Any, ...],
    options: dict[str, Any],
    refusal: str,
) -> None:
    """Given a client that is missing, no text, or named twice differently, then one line says so; nothing is sent."""
    task = sold(app)

    for submit in (task.apply_async, task.s(*args).set(**options).apply_async):
        with pytest.raises(InvalidValue) as refused:
            submit(args, **options) if submit == task.apply_async else submit()
        assert str(refused.value).startswith(refusal)
        assert "\n" not in str(refused.value)
    assert published == []


def test_the_same_call_is_refused_before_it_runs(app: celery.Celery, twin: BillingTwin) -> None:
    """Given a sender that checks nothing, when its message is run, then it is refused, and nothing is held."""
    task = sold(app)

    for args, options, refusal in BAD_CLIENTS[:-1]:
        headers = options.get("headers") or {name: value for name, value in options.items() if name != "headers"}
        with pytest.raises(InvalidValue) as refused:
            task.apply(args=args, headers=headers).get()
        assert str(refused.value).startswith(refusal)
    assert (twin.events(), twin.holds("acme")) == ([], [])


def test_delay_is_checked_and_a_call_that_celery_refuses_is_left_to_it(app: celery.Celery, twin: BillingTwin) -> None:
    """Given arguments that do not fit, then Celery's own message is what the caller sees."""
    task = sold(app)

    with pytest.raises(InvalidValue):
        task.delay("two words")
    with pytest.raises(TypeError, match="positional"):
        task.delay("acme", 1, 2)
    with pytest.raises(TypeError, match="other"):
        task.delay("acme", other=2)


def test_a_client_by_keyword_is_a_header(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given `billing_client=`, then the header names who pays, as it does where the argument says the same."""
    task = sold(app)

    task.apply_async(billing_client="acme")
    task.apply_async(("acme",), billing_client="acme")
    task.s().set(billing_client="acme").delay()

    assert [headers["billing_client"] for headers in published] == ["acme"] * 3
    task.apply(billing_client="acme").get()
    assert twin.charged("acme") == 5
