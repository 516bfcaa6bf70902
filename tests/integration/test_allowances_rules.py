"""What an allowance is when it is added and ended: idempotent by its key, by its terms, or refused."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from billing import admin
from billing.core.credits import CREDITS_MAX
from billing.core.errors import Conflict, InvalidValue, UnknownClient
from billing.core.settings import Settings
from billing.ledger.grant_terms import check_terms
from billing.ledger.schedules import OF_ONE_CLIENT_MAX
from billing.recovery.allowances import grant_allowances
from tests.integration.allowing import APRIL, FEBRUARY, MARCH, NOON, Office

pytestmark = pytest.mark.integration


def test_adding_is_idempotent_by_its_key(office: Office) -> None:
    """Given the same call again, also a month later, then it is the same allowance; other content is a conflict."""
    first, created = admin.add_allowance(office.settings, "acme", 100, key="plan")
    again, created_again = admin.add_allowance(office.settings, "acme", 100, key="plan")

    assert (created, created_again, again.schedule_id) == (True, False, first.schedule_id)
    assert len(office.grants()) == 1
    assert admin.balance(office.settings, "acme").available == 100
    for other in ({"every": "week"}, {"rollover": 1}, {"starts_at": NOON}, {"terms": check_terms(priority=7)}):
        with pytest.raises(Conflict, match=r"^key: 'plan': was used for an allowance"):
            admin.add_allowance(office.settings, "acme", 100, key="plan", **other)
    with pytest.raises(Conflict, match="with credits 100, so it cannot be one with 5"):
        admin.add_allowance(office.settings, "acme", 5, key="plan")


def test_an_allowance_grants_by_its_terms(office: Office) -> None:
    terms = admin.check_terms(kind="promo", priority=7, skus=["page"])
    admin.add_allowance(office.settings, "acme", 100, key="plan", rollover=None, terms=terms)
    found = office.rows("SELECT kind, priority, skus, expires_at, key FROM credit_grant")
    assert found[0][:4] == ("promo", 7, ["page"], None)
    assert found[0][4].startswith("allowance-1-")


def test_a_start_in_the_past_grants_nothing_of_periods_that_were_over(office: Office) -> None:
    """Given an anchor a year ago and a rollover for ever, when it is added, then the present period is the first."""
    office.add("acme", starts_at=NOON - timedelta(days=365), rollover=None)
    assert grant_allowances(office.runtime) == 1


def test_an_end_is_idempotent_and_leaves_what_was_granted(office: Office) -> None:
    made = office.add("acme")
    assert grant_allowances(office.runtime) == 1
    ended = admin.end_allowance(office.settings, made.schedule_id, key="bye")
    assert admin.end_allowance(office.settings, made.schedule_id, key="bye") == ended
    with pytest.raises(InvalidValue, match="has ended already"):
        admin.end_allowance(office.settings, made.schedule_id, key="other")
    office.clock.at = FEBRUARY
    assert grant_allowances(office.runtime) == 0
    assert office.grants() == [(100, FEBRUARY)]
    assert admin.allowances(office.settings) == []
    assert [row.schedule_id for row in admin.allowances(office.settings, ended=True)] == [made.schedule_id]


def test_the_last_period_before_the_end_ends_the_allowance(office: Office) -> None:
    made = office.add("acme", ends_at=MARCH)
    for instant in (NOON, FEBRUARY, MARCH, APRIL):
        office.clock.at = instant
        grant_allowances(office.runtime)
    assert office.grants() == [(100, FEBRUARY), (100, MARCH)]
    assert office.row(made.schedule_id).reason == "its last period has begun"


def test_what_is_wrong_is_refused(office: Office) -> None:
    for number in range(OF_ONE_CLIENT_MAX):
        office.add("acme", key=f"plan-{number}")
    with pytest.raises(InvalidValue, match="has 16 open allowances; at most 16"):
        office.add("acme", key="one too many")
    with pytest.raises(UnknownClient):
        admin.add_allowance(office.settings, "nobody", 5)
    office.client("over")
    admin.set_client_state(office.settings, "over", "closed")
    with pytest.raises(InvalidValue, match="'over': is closed"):
        admin.add_allowance(office.settings, "over", 5)
    with pytest.raises(InvalidValue, match=r"^expires_at: .*: use rollover"):
        admin.add_allowance(office.settings, "acme", 5, terms=admin.check_terms(expires_at=NOON))
    with pytest.raises(InvalidValue, match="is not a known allowance"):
        admin.end_allowance(office.settings, 9_999)


def test_an_allowance_that_could_never_be_granted_is_refused(database: Settings, redis_url: str) -> None:
    """Given what a client was granted, when the first grant of an allowance would pass the bound, then none is made."""
    settings = dataclasses.replace(database, redis_url=redis_url)
    admin.add_client(settings, "acme")
    admin.grant(settings, "acme", CREDITS_MAX - 10)
    with pytest.raises(InvalidValue, match=r"^credits: 11: must be at most 10: what a client was granted"):
        admin.add_allowance(settings, "acme", 11)
    assert admin.add_allowance(settings, "acme", 10)[1]
    assert [row.failures for row in admin.allowances(settings)] == [0]
    admin.close(settings)
