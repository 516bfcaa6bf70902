"""The twin in users' own tests: what is billed in memory is billed as on servers, and no thread stays behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import celery
import pytest

import billing
from billing.core.errors import Fatal, InvalidValue, UnknownClient
from billing.core.settings import Settings
from billing.credits.terms import ClientState
from billing.task.attachment import attachment_of
from billing.testing import BillingTwin
from tests.documents import blocks
from tests.unit.selling import an_app, selling_pages


@pytest.fixture
def twin() -> Iterator[BillingTwin]:
    """Bill by a twin, as the fixture of the plugin does."""
    with selling_pages(Settings(alert_percents=(50,))) as twin:
        yield twin


def test_a_retried_task_is_charged_once_for_its_last_attempt(twin: BillingTwin) -> None:
    app = an_app()

    @app.task(name="shop.flaky", bind=True, base=billing.BillableTask, sku="page", max_retries=2)
    def flaky(self: billing.BillableTask, client_id: str) -> None:
        if self.request.retries < 2:
            raise self.retry(countdown=0)

    twin.client("acme", 100)
    flaky.apply(args=("acme",)).get()
    (event,) = twin.events("acme")
    assert (event.attempt, twin.charged("acme"), twin.holds("acme")) == (3, 5, [])


def test_a_task_that_fails_is_not_charged(twin: BillingTwin) -> None:
    app = an_app()

    @app.task(name="shop.broken", base=billing.BillableTask, sku="page")
    def broken(client_id: str) -> None:
        raise RuntimeError(client_id)

    twin.client("acme", 100)
    with pytest.raises(RuntimeError):
        broken.apply(args=("acme",)).get()
    assert (twin.balance("acme").available, twin.events()) == (100, [])


def test_a_low_balance_is_alerted(twin: BillingTwin) -> None:
    twin.client("acme", 20)
    with billing.reserve("acme", "page", 3):
        assert [alert.percent for alert in twin.alerts("acme")] == [50]


def test_l5_the_lease_of_a_block_that_goes_on_is_renewed_when_time_passes(twin: BillingTwin) -> None:
    twin.client("acme", 20)
    with billing.reserve("acme", "page"):
        twin.advance(days=1 / 24)
        (hold,) = twin.holds("acme")
        assert hold.deadline_ms > twin.runtime.twin.time_ms()
    assert twin.charged("acme") == 5


def test_states_limits_and_corrections_are_those_of_the_commands(twin: BillingTwin) -> None:
    twin.client("acme", overdraft_limit=10)
    with billing.reserve("acme", "page", 2):
        assert twin.balance("acme").room == 10
    grant = twin.grant("acme", 100)
    twin.adjust("acme", 40)
    twin.void("acme", grant)
    assert (twin.balance("acme").available, twin.balance("acme").voided) == (0, 90)
    twin.terms("acme", state=ClientState.CLOSED)
    with pytest.raises(billing.ClientInactive), billing.reserve("acme", "page"):
        pass
    with pytest.raises(InvalidValue, match="closed"):
        twin.grant("acme", 1)


def test_what_is_not_known_is_refused_as_on_servers(twin: BillingTwin) -> None:
    with pytest.raises(billing.UnknownSku), billing.reserve("acme", "image"):
        pass
    with pytest.raises(UnknownClient), billing.reserve("acme", "page"):
        pass
    with pytest.raises(UnknownClient):
        billing.quote("acme", "page")
    twin.client("acme")
    with pytest.raises(InvalidValue, match="added before"):
        twin.client("acme")
    with pytest.raises(Fatal, match="no PostgreSQL"):
        _ = twin.runtime.engine


def test_after_the_test_the_app_is_billed_by_its_own_settings_again() -> None:
    app = an_app()
    own = attachment_of(app)
    twin = BillingTwin()
    with twin.billing():
        assert attachment_of(app).runtime is twin.runtime
    assert attachment_of(app) is own


def test_an_app_that_is_not_set_up_is_not_billed_by_the_twin_either(twin: BillingTwin) -> None:
    with pytest.raises(Fatal, match="bills nothing yet"):
        attachment_of(celery.Celery("other", set_as_current=False))


def test_l9_no_thread_is_started(twin: BillingTwin) -> None:
    before = set(threading.enumerate())
    twin.client("acme", 100)
    with billing.reserve("acme", "page"):
        assert set(threading.enumerate()) == before
    assert set(threading.enumerate()) == before


def test_the_page_about_testing_has_an_app_and_a_test_of_it() -> None:
    assert list(blocks("testing.md")) == ["shop.py", "test_shop.py"]
