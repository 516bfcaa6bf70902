"""Stripe's total is explained by what was sent to the unit: each open increment is there whole or not at all (L8)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billing.reconciliation.facts import PeriodFacts
from billing.reconciliation.laws.stripe import differences


def period(*, fresh: int = 0, doubtful: int = 0, open_units: tuple[int, ...] | None = ()) -> PeriodFacts:
    """Return a period with 100 units that Stripe must show, and some that it may."""
    return PeriodFacts(
        client_id="acme",
        customer_id="cus_acme",
        event_name="credits",
        period_start=datetime(2026, 3, 1, tzinfo=UTC),
        period_end=datetime(2026, 4, 1, tzinfo=UTC),
        known=100 + fresh,
        fresh=fresh,
        doubtful=doubtful,
        open_units=open_units,
    )


@pytest.mark.parametrize("total", [100, 107, 120, 127])
def test_any_of_the_open_increments_may_be_there(total: int) -> None:
    assert not list(differences(period(fresh=7, doubtful=20, open_units=(7, 20)), total))


@pytest.mark.parametrize("total", [99, 101, 106, 108, 119, 121, 126, 128])
def test_a_part_of_one_is_a_discrepancy(total: int) -> None:
    assert len(list(differences(period(fresh=7, doubtful=20, open_units=(7, 20)), total))) == 1


@pytest.mark.parametrize(("total", "found"), [(99, 1), (100, 0), (101, 0), (127, 0), (128, 1)])
def test_where_they_cannot_be_named_the_range_remains(total: int, found: int) -> None:
    assert len(list(differences(period(fresh=7, doubtful=20, open_units=None), total))) == found
