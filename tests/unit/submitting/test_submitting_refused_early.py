"""`refuse_early`: who could not start is refused at submit; no server that is away keeps a caller (L9). On a twin."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import celery
import pytest

import billing
from billing import ClientInactive, InsufficientCredits, InvalidValue, UnknownClient, UnknownSku
from billing.core.errors import Unreachable
from billing.credits.terms import ClientState
from billing.task.attachment import attachment_of
from billing.testing import BillingTwin
from tests.unit.submitting.declaring import sold


def test_what_could_not_start_is_refused_when_it_is_submitted(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given `refuse_early`, then who cannot pay, is unknown or suspended gets the reason at submit; nothing is held."""
    task = sold(app, refuse_early=True, quantity=lambda client_id, pages, *, used: pages)
    twin.client("poor", 9)
    twin.client("off", 100)
    twin.terms("off", state=ClientState.SUSPENDED)

    with pytest.raises(InsufficientCredits) as refused:
        task.delay("poor", 2)
    assert refused.value.args == ("poor", "page", 10, 9)
    with pytest.raises(InsufficientCredits):
        task.apply_async(("poor",), billing_quantity=2)
    with pytest.raises(UnknownClient):
        task.delay("nobody")
    with pytest.raises(ClientInactive):
        task.delay("off")
    with pytest.raises(InsufficientCredits):
        celery.group(task.s("poor", 1), task.s("poor", 2)).apply_async()
    with pytest.raises(UnknownSku):
        sold(
            billing.setup(celery.Celery("b", broker="memory://", set_as_current=False)), sku="x", refuse_early=True
        ).delay("acme")
    del published[:]
    task.delay("poor", 1)
    assert (len(published), twin.holds("poor")) == (1, [])


def test_a_task_that_does_not_ask_early_is_submitted(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given the default, then the bucket is not asked at submit: the reservation is the gate."""
    sold(app).delay("nobody")

    assert len(published) == 1


def test_with_a_countdown_an_eta_or_a_retry_the_bucket_is_not_asked(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]]
) -> None:
    """Given what starts later, or has started before, then it is submitted: credits may come, or are held already."""
    task = sold(app, refuse_early=True)
    twin.client("poor", 1)

    task.apply_async(("poor",), countdown=5)
    task.apply_async(("poor",), eta=datetime.now(UTC))
    task.apply_async(("poor",), retries=1)
    task.apply_async(("poor",), headers={"billing_at": 1})
    # A link of a canvas, which Celery publishes when its parent has ended.
    task.apply_async(("poor",), parent_id="parent")

    @app.task(shared=False, name="puts_off", bind=True)
    def puts_off(self: Any) -> None:
        # As `replace()` does, and whoever puts off a delivery whose sender has minted nothing.
        task.apply_async(("poor",), task_id=self.request.id)
        with pytest.raises(InsufficientCredits):
            task.apply_async(("poor",))

    puts_off.apply().get()

    assert len(published) == 6


def test_l9_a_server_that_is_away_does_not_keep_callers(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a Redis that does not answer, then tasks are submitted, and it is asked anew after some seconds only."""
    task = sold(app, refuse_early=True)
    asked: list[str] = []

    def away(client_id: str) -> None:
        asked.append(client_id)
        message = "away"
        raise Unreachable(message)

    with monkeypatch.context() as patch:
        patch.setattr(twin.runtime.twin, "balance", away)
        for _ in range(3):
            task.delay("nobody")
        twin.advance(seconds=6)
        task.delay("nobody")
    assert (asked, len(published)) == (["nobody"] * 2, 4)
    twin.advance(seconds=6)
    with pytest.raises(UnknownClient):
        task.delay("nobody")


def test_an_app_that_is_not_set_up_is_told_so_where_the_bucket_is_asked(twin: BillingTwin) -> None:
    """Given an app without `billing.setup`, then a submit that asks fails, and says what to call."""
    task = sold(celery.Celery("bare", broker="memory://", set_as_current=False), refuse_early=True)

    with pytest.raises(billing.BillingError, match=r"call billing\.setup"):
        task.delay("acme")


@pytest.mark.parametrize("bad", [1, "yes", None])
def test_refuse_early_is_true_or_false(app: celery.Celery, bad: Any) -> None:
    """Given another value, then it is refused when the app finalizes."""
    with pytest.raises(InvalidValue, match=r"task sold: refuse_early: .*must be True or False"):
        sold(app, refuse_early=bad)


@pytest.mark.parametrize("option", ["sku", "quantity", "reserve"])
def test_a_function_that_raises_is_one_error_and_holds_nothing(
    app: celery.Celery, twin: BillingTwin, published: list[dict[str, Any]], option: str
) -> None:
    """Given a cost function that raises, then the call is refused in one line, when submitted or before it runs."""

    def broken(client_id: str, pages: int, *, used: int | None) -> int:
        raise KeyError("tariff\nof two lines")

    task = sold(app, refuse_early=True, **{option: broken})

    calls: list[Callable[[], Any]] = [lambda: task.delay("acme"), lambda: task.apply(("acme",)).get()]
    for call in calls:
        with pytest.raises(InvalidValue) as refused:
            call()
        assert str(refused.value).startswith(f"task sold: {option}: 'broken': must not raise: KeyError: ")
        assert "\n" not in str(refused.value)
    assert (published, twin.holds("acme"), twin.events()) == ([], [], [])
    assert attachment_of(app).lifecycle.renewal._runs == {}


def test_servers_that_refuse_connections_keep_no_caller(app: celery.Celery, published: list[dict[str, Any]]) -> None:
    """Given neither Redis nor PostgreSQL, as a web process sees it, then what asks early is submitted all the same."""
    app.conf.update(
        billing_redis_url="redis://127.0.0.1:1/0", billing_database_url="postgresql://billing@127.0.0.1:1/billing"
    )
    task = sold(app, refuse_early=True)

    task.delay("acme")
    task.delay("acme")

    assert len(published) == 2
    attachment_of(app).runtime.close()
