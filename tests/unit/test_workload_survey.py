"""A recording is looked through before anything is submitted: its clients, its SKUs, and what is too dear to count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue
from billing.workload.rows import Entry, Malformed, Row
from billing.workload.survey import CLIENTS_MAX, priceable, survey

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_survey_counts_clients_skus_and_lines() -> None:
    rows: list[Entry] = [
        Row(line=2, client_id="b", sku="x", quantity=1),
        Malformed(line=3, reason="…"),
        Row(line=4, client_id="a", sku="y", quantity=1),
        Row(line=5, client_id="b", sku="y", quantity=1, at=NOW - timedelta(days=1)),
    ]
    found = survey(rows)
    assert (found.lines, found.malformed, found.clients, found.skus) == (4, 1, ("a", "b"), ("x", "y"))
    with pytest.raises(InvalidValue, match="has no lines"):
        survey([])
    with pytest.raises(InvalidValue, match=r"FILE: '2 lines': has no row: line 2: is empty"):
        survey([Malformed(line=2, reason="is empty"), Malformed(line=3, reason="…")])
    too_many = (Row(line=n, client_id=f"c{n}", sku="x", quantity=1) for n in range(CLIENTS_MAX + 1))
    with pytest.raises(InvalidValue, match="at most 100,000 clients"):
        survey(too_many)


def test_a_row_that_costs_more_than_can_be_counted_is_malformed() -> None:
    rows = [
        Row(line=n, client_id="a", sku="x", quantity=q) for n, q in ((2, CREDITS_MAX // 2), (3, CREDITS_MAX // 2 + 1))
    ]
    found = list(priceable(rows, {"x": 2}))
    assert found[0] == rows[0]
    assert isinstance(found[1], Malformed)
    assert "costs more than" in found[1].reason
