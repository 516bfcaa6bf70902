"""One delivery of one billed run, from its reservation to its end, and what is charged for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import celery
import msgspec

from billing.catalog.price_book import PriceBook
from billing.catalog.rating import rate
from billing.core.credits import check_amount
from billing.core.ids import new_settlement_id, new_token
from billing.credits.values import Hold
from billing.events.usage_event import Draft, EventHead, Mode, UsageLine, encode_draft, encode_head
from billing.task.definition import Definition
from billing.task.headers import Identity, Request
from billing.task.outcome import Outcome
from billing.task.usage import Recorder


@dataclasses.dataclass(kw_only=True)
class Run:
    """What a worker knows of the run that it executes. Lives on the task's request, never on the task."""

    definition: Definition
    identity: Identity
    head: EventHead
    hold: Hold
    default_quantity: int
    #: The instant, in milliseconds since the epoch, whose prices this run is charged at (the first reserve).
    priced_at: int
    #: What its own SKU costs whatever the price book says, as declared at the first reserve; None: as the book says.
    fixed_credits: int | None = None
    recorder: Recorder
    #: The one act of settling this run: the same on every try, so that an answer that was lost does no harm.
    settlement_id: str = dataclasses.field(default_factory=new_settlement_id)
    #: Why it is outside the ceiling (L1), and has no hold; None: it is not.
    mode: Mode | None = None
    #: The event that charges it where no bucket can, once it was needed: the same on every try.
    direct: bytes | None = None
    #: Billing has taken it over from the task: it is charged, or its settle is kept until it is (L4).
    settled: bool = False
    #: The monotonic instant until which its lease is renewed; a task's is for as long as it runs (L5).
    renewed_until: float = math.inf
    #: The monotonic instant until which its hold is surely there: its lease as this process had it confirmed last.
    held_until: float = -math.inf
    #: What monitors are told: how it stands, and the credits that it was charged, once that is known here.
    outcome: Outcome = Outcome.HELD
    credits_charged: int | None = None
    #: The monotonic instant at which its work was done, where somebody counts.
    succeeded_at: float | None = None

    def price_as_of(self, price_version: int, at: int, fixed_credits: int | None) -> None:
        """Charge at the prices of an earlier attempt of this run, which held first; so does a hold asserted anew."""
        self.priced_at, self.fixed_credits = at, fixed_credits
        self.head = msgspec.structs.replace(self.head, price_version=price_version)
        self.hold = msgspec.structs.replace(self.hold, price_version=price_version, head=encode_head(self.head))

    def quantities(self) -> dict[str, int]:
        """Return what is charged if the run succeeds now: what was recorded, else the declared default."""
        recorded = self.recorder.quantities
        own = self.hold.sku
        return recorded if own in recorded else {own: self.default_quantity, **recorded}

    def lines(self, book: PriceBook) -> tuple[UsageLine, ...]:
        """Return the usage lines of what is charged now, at the prices that the first reserve fixed."""
        return rated(book, self.quantities(), self.priced_at, self.head.price_version, self.fixed)

    def draft(self, book: PriceBook) -> bytes:
        """Return what is stored with the hold, for the reaper."""
        return encode_draft(Draft(priced_at=self.priced_at, lines=self.lines(book), fixed=self.fixed_credits))

    @property
    def fixed(self) -> dict[str, int]:
        """What its own SKU costs whatever the price book says, by SKU; nothing where the book prices it."""
        return {} if self.fixed_credits is None else {self.hold.sku: self.fixed_credits}


#: The arguments of a call of a task, without `self`.
Call = tuple[Sequence[Any], Mapping[str, Any]]
#: No credits that are fixed.
NOTHING: Final[Mapping[str, int]] = {}
#: Where a delivery's run hangs on its request.
_ATTRIBUTE: Final = "billing_run"


def attach_run(task: celery.Task[Any, Any], run: Run) -> None:
    """Hang the run on the request that `task` is executing here."""
    setattr(task.request, _ATTRIBUTE, run)


def run_of(task: celery.Task[Any, Any]) -> Run | None:
    """Return the run that `task` is executing in this thread or greenlet, or None."""
    run: Run | None = getattr(task.request, _ATTRIBUTE, None)
    return run


def rated(
    book: PriceBook, quantities: Mapping[str, int], at: int, version: int, fixed: Mapping[str, int] = NOTHING
) -> tuple[UsageLine, ...]:
    """Return one usage line per SKU, at the prices in effect at the instant `at` as the book's `version` knew them.

    A SKU that `fixed` has costs those credits, and needs no price. Raises `UnknownSku`, and `InvalidValue` for a line
    or a sum that is too large to be counted.
    """
    lines = tuple(
        UsageLine(
            sku=sku,
            quantity=quantity,
            credits=fixed[sku] if sku in fixed else rate(book.lookup(sku, at, version=version), quantity),
        )
        for sku, quantity in quantities.items()
    )
    check_amount("credits of all lines", sum(line.credits for line in lines), minimum=0)
    return lines


def prepare(
    definition: Definition,
    identity: Identity,
    request: Request,
    book: PriceBook,
    at: int,
    call: Call,
) -> tuple[Hold, EventHead, int]:
    """Return what to reserve for a delivery, the head of its usage event, and its default quantity.

    The same for a worker that starts the run and for one that re-asserts the hold of a run that is going on.
    """
    args, kwargs = call
    default = definition.charged_by_default(args, kwargs)
    quantities = definition.held_at_most(args, kwargs)
    # Asked once, so that hold, draft and charge name the same.
    sku = next(iter(quantities))
    fixed = definition.fixed(sku)
    most = rated(book, quantities, at, book.version, fixed)
    credits_ = check_amount(f"credits of {definition.task}", sum(line.credits for line in most), minimum=0)
    head = head_of(definition, identity, request, book.version)
    # Most runs hold just what is charged by default: rated once.
    lines = most if quantities == {sku: default} else rated(book, {sku: default}, at, book.version, fixed)
    draft = Draft(priced_at=at, lines=lines, fixed=definition.credits)
    hold = Hold(
        run_id=identity.run_id,
        client_id=identity.client_id,
        sku=sku,
        credits=credits_,
        token=new_token(),
        price_version=head.price_version,
        attempt=head.attempt,
        head=encode_head(head),
        lines=encode_draft(draft),
    )
    return hold, head, default


def head_of(definition: Definition, identity: Identity, request: Request, price_version: int) -> EventHead:
    """Return what the worker knows of a delivery's usage event before the work is done."""
    return EventHead(
        run_id=identity.run_id,
        client_id=identity.client_id,
        correlation_id=request.id or "",
        root_id=request.root_id or request.id or "",
        task=definition.task,
        attempt=(request.retries or 0) + 1,
        submitted_at=identity.submitted_at,
        price_version=price_version,
    )
