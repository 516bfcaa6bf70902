"""What a call would cost, and whether it would be admitted now. Reads only: nothing is held, asked for or promised."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from billing.catalog.price_book import PriceBook
from billing.core.clock import to_milliseconds
from billing.core.errors import Recovering, UnknownSku
from billing.core.identifiers import check_client_id
from billing.core.shards import shard_of
from billing.credits.terms import ClientState
from billing.credits.values import Balance, ReserveOutcome
from billing.task.definition import Definition
from billing.task.outside import Order
from billing.task.run import NOTHING, Call, rated

if TYPE_CHECKING:
    from billing.task.runtime import Runtime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """The cost of a call in `credits`, at the prices of `price_version`, beside what the client has `available`.

    `required` is what would be held first: the most that the call may use. `outcome` says what `reserve` would
    answer now; `admitted` is whether that is `HELD`.
    """

    client_id: str
    sku: str
    quantity: int
    credits: int
    required: int
    price_version: int
    available: int
    owed: int
    outcome: ReserveOutcome
    admitted: bool


def quote(runtime: Runtime, order: Order) -> Quote:
    """Return the quote of a block of `billing.reserve`. Raises what it would, but for what `outcome` says."""
    most = order.definition.held_at_most((), {})
    return quote_run(runtime, order.client_id, {order.sku: order.quantity}, most)


def quote_call(runtime: Runtime, definition: Definition, client_id: str, call: Call) -> Quote:
    """Return the quote of a call of a task."""
    most = definition.held_at_most(*call)
    sku = next(iter(most))
    return quote_run(runtime, client_id, {sku: definition.charged_by_default(*call)}, most, definition.fixed(sku))


def quote_run(
    runtime: Runtime,
    client_id: str,
    quantities: Mapping[str, int],
    most: Mapping[str, int],
    fixed: Mapping[str, int] = NOTHING,
) -> Quote:
    """Return the quote of a run that uses `quantities`, and may use `most`; the first SKU is the run's own.

    A SKU that `fixed` has costs those credits, whatever the price book says.
    """
    check_client_id(client_id)
    at = to_milliseconds(runtime.clock.now())

    def costs(book: PriceBook) -> tuple[int, int, int]:
        usual, largest = (rated(book, part, at, book.version, fixed) for part in (quantities, most))
        return sum(line.credits for line in usual), sum(line.credits for line in largest), book.version

    credits_, required, version = _with_prices(runtime, costs)
    balance = balance_of(runtime, client_id)
    sku, quantity = next(iter(quantities.items()))
    available = balance.usable(sku)
    outcome = _outcome(runtime, balance, required, available)
    return Quote(
        client_id=client_id,
        sku=sku,
        quantity=quantity,
        credits=credits_,
        required=required,
        price_version=version,
        available=available,
        owed=balance.owed,
        outcome=outcome,
        admitted=outcome is ReserveOutcome.HELD,
    )


def _with_prices(runtime: Runtime, rate: Callable[[PriceBook], tuple[int, int, int]]) -> tuple[int, int, int]:
    try:
        return rate(runtime.prices.get())
    except UnknownSku:
        # Its price may have been set a moment ago.
        return rate(runtime.prices.renewed())


def balance_of(runtime: Runtime, client_id: str) -> Balance:
    """Return the client's bucket. Raises `UnknownClient`; a known client without a bucket waits for a rebuild."""
    reason = Recovering(f"client_id: {client_id!r}: its bucket is missing and is being rebuilt; try again")
    try:
        found = runtime.buckets.balance(client_id)
        if found is not None:
            return found
    except Recovering as recovering:
        # So is a shard that has no clients at all: only the catalog knows whether there is this one.
        reason = recovering
    runtime.records.check_client(client_id)
    raise reason


def _outcome(runtime: Runtime, balance: Balance, required: int, available: int) -> ReserveOutcome:
    """Return what `reserve` would answer, in the order in which it looks."""
    shard = shard_of(balance.client_id, runtime.settings.shards)
    if runtime.buckets.outbox_depth(shard) >= runtime.settings.outbox_entries_max:
        return ReserveOutcome.OUTBOX_FULL
    if balance.terms.state is not ClientState.ACTIVE:
        return ReserveOutcome[balance.terms.state.name]
    if balance.owed > balance.terms.overdraft_limit or available < required:
        return ReserveOutcome.INSUFFICIENT
    return ReserveOutcome.HELD
