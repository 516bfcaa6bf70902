"""What a run is prepared with: its hold covers the most that it may cost, its draft has what is charged by default."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from billing.catalog.price_book import Price, PriceBook
from billing.events.usage_event import decode_draft
from billing.task.definition import define
from billing.task.headers import Identity
from billing.task.run import prepare

AT = 1_800_000_000_000
BOOK = PriceBook(
    Price(sku=sku, version=number, credits_per_unit=number, unit="unit", effective_at=datetime(2020, 1, 1, tzinfo=UTC))
    for number, sku in enumerate(("page", "kib"), start=1)
)


@pytest.mark.parametrize(
    ("reserve", "held"),
    [
        pytest.param(None, 2, id="holds what is charged by default"),
        pytest.param(9, 9, id="holds more of its own SKU"),
        pytest.param({"kib": 3}, 8, id="holds another SKU as well"),
    ],
)
def test_given_what_is_reserved_when_prepared_then_the_draft_has_the_default_alone(reserve: Any, held: int) -> None:
    """The reaper charges a draft (L3): a draft of all that is held would charge what was not used."""
    options = {"sku": "page", "quantity": 2, "reserve": reserve, "client": "client_id"}
    definition = define(task="shop.capture", options=options, run=lambda client_id: None)
    identity = Identity(run_id=UUID(int=7), client_id="acme", submitted_at=AT)
    request: Any = SimpleNamespace(id="a", root_id="a", retries=0)
    hold, _, default = prepare(definition, identity, request, BOOK, AT, (("acme",), {}))
    draft = decode_draft(hold.lines)
    assert (hold.credits, default) == (held, 2)
    assert [(line.sku, line.quantity, line.credits) for line in draft.lines] == [("page", 2, 2)]
