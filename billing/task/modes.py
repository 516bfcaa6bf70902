"""Runs outside the ceiling (L1): a dry run, which is never refused or charged, and one that starts while Redis is away.

Neither has a hold, so that there is nothing to renew, stage, release or settle. A success publishes a direct event
that says its mode, once per run for the log (L3). A dry run asks what would be answered, logs and counts it, and
refuses nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from celery.exceptions import SoftTimeLimitExceeded
from celery.states import RETRY

from billing.core import ids
from billing.core.clock import to_milliseconds
from billing.core.errors import (
    BillingError,
    ClientInactive,
    InvalidValue,
    Retryable,
    UnknownClient,
    UnknownSku,
    Unreachable,
)
from billing.core.settings import Settings
from billing.credits.values import Hold
from billing.events.usage_event import DRY_RUN, METER_ONLY, UsageLine
from billing.task.counting import ADMITTED, CREDITS, Counting
from billing.task.definition import Definition
from billing.task.headers import Identity, Request
from billing.task.observer import tell_charge
from billing.task.outcome import Outcome
from billing.task.publishing import Events
from billing.task.quoting import balance_of, quote_run
from billing.task.run import Call, Run, head_of, rated
from billing.task.usage import Recorder

if TYPE_CHECKING:
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: As `reserve` refuses a run id by Redis' clock.
_AHEAD_MAX_MILLISECONDS: Final = 86_400_000


def is_dry(definition: Definition, settings: Settings) -> bool:
    """Whether what is declared so is neither refused nor charged."""
    return settings.dry_run if definition.dry_run is None else definition.dry_run


def is_metered(definition: Definition, settings: Settings) -> bool:
    """Whether what is declared so runs while Redis is away."""
    return (definition.on_redis_down or settings.on_redis_down) == "meter_only"


@dataclasses.dataclass(kw_only=True)
class DryRun(Run):
    """A run that is not billed."""

    #: The log takes its event: it has a client, which exists as far as is known, a SKU and a quantity.
    publishes: bool
    #: The version of the prices by which it would be charged; None: they are not known.
    rated_by: int | None


@dataclasses.dataclass(kw_only=True, slots=True)
class _Claim:
    """What a delivery is about, as far as it says so, and the answer that it would get."""

    at: int
    definition: Definition
    identity: Identity | None = None
    sku: str = ""
    quantity: int | None = None
    is_known: bool = True
    required: int | None = None
    available: int | None = None
    rated_by: int | None = None
    answer: str = ADMITTED


class Lenient(Recorder):
    """Records what can be recorded, and logs the rest."""

    def record(self, quantity: int, *, sku: str | None = None) -> None:
        """Add to what would be charged."""
        try:
            super().record(quantity, sku=sku)
        except BillingError as error:
            logger.warning("billing: dry run: this usage would have been refused: %s", error)


class Modes:
    """The runs outside the ceiling of one process."""

    def __init__(self, runtime: Runtime, events: Events, counting: Counting) -> None:
        self._runtime, self._events, self._counting = runtime, events, counting

    def dry_run(
        self, definition: Definition, request: Request, call: Call, read: Callable[[], tuple[Definition, Identity]]
    ) -> DryRun:
        """Return the run of a delivery that is not billed, whatever is wrong with it. Raises nothing of billing's own.

        `read` returns what this very delivery is charged by, and which run it is, or raises what is wrong with it.
        It waits for no more than one server that does not answer (L9). A retry is looked at, and not counted again.
        """
        claim = _Claim(at=to_milliseconds(self._runtime.clock.now()), definition=definition)
        try:
            self._look(claim, call, read)
        except BillingError as error:
            claim.answer = answer_of(error)
            claim.is_known = not isinstance(error, UnknownClient)
            reason = str(error)
        except SoftTimeLimitExceeded:
            # The task's own limit came upon billing: it is the task's to answer.
            raise
        except Exception as error:  # noqa: BLE001 - a callable of the task's declaration, or of ours: the task runs
            claim.answer, reason = "error", f"{type(error).__name__}: {error}"
        else:
            reason = claim.answer
        if not request.retries:
            self._counting.count(claim.answer, definition.task)
            if claim.answer != ADMITTED:
                _tell(definition.task, request, claim, reason)
        return _made(request, claim)

    def meter(self, run: Run) -> None:
        """Let a run go on without a hold, since Redis is away. Raises what says that its client may not run.

        What PostgreSQL does not answer is not known, and hinders nobody.
        """
        check_ahead(run.identity, to_milliseconds(self._runtime.clock.now()))
        run_id, client_id = run.identity.run_id, run.identity.client_id
        try:
            self._runtime.records.check_active(client_id)
        except Retryable as error:
            logger.warning("billing: run %s starts for a client that could not be looked up: %s", run_id, error)
        run.mode = METER_ONLY
        logger.warning("billing: run %s of client %s starts without a hold: Redis is away", run_id, client_id)

    def charge(self, run: Run, lines: Callable[[], tuple[UsageLine, ...]]) -> None:
        """Publish what such a run used; `lines` is what it costs. Raises `Retryable` for a metered one."""
        if isinstance(run, DryRun):
            self._finish(run)
            return
        try:
            charged = lines()
        except Unreachable as error:
            # The prices are missing, which says nothing of Redis: what is owed to its nodes is tried (L10).
            raise Retryable(str(error)) from error
        self._events.publish_outside(run, charged)
        # The outcome last, as for any direct event: an interruption before it is tried again.
        run.outcome, run.credits_charged = Outcome.METER_ONLY, sum(line.credits for line in charged)
        tell_charge(self._runtime, run)

    def end(self, run: Run, state: str | None) -> None:
        """Note how a run ended that did not succeed: there is no hold to give back, and nothing to charge."""
        if state != RETRY and run.mode is not None:
            run.outcome, run.credits_charged = Outcome(run.mode), 0

    def _look(self, claim: _Claim, call: Call, read: Callable[[], tuple[Definition, Identity]]) -> None:
        """Fill in a claim, as far as one gets. Raises what is wrong with it."""
        definition, identity = read()
        claim.definition = definition
        check_ahead(identity, claim.at)
        claim.identity = identity
        claim.sku = definition.sku_of(*call)
        claim.quantity = definition.charged_by_default(*call)
        most = definition.held_at_most(*call)
        try:
            quote = quote_run(
                self._runtime, identity.client_id, {claim.sku: claim.quantity}, most, definition.fixed(claim.sku)
            )
        except UnknownSku:
            # It says nothing of the client, without which the log takes no event.
            with contextlib.suppress(Retryable):
                balance_of(self._runtime, identity.client_id)
            raise
        claim.required, claim.available, claim.rated_by = quote.required, quote.available, quote.price_version
        if not quote.admitted:
            claim.answer = quote.outcome.name.lower()

    def _finish(self, run: DryRun) -> None:
        """Publish what a dry run used, and count what it would have cost."""
        quantities = run.quantities()
        if run.publishes:
            used = (UsageLine(sku=sku, quantity=quantity, credits=0) for sku, quantity in quantities.items())
            self._events.publish_outside(run, tuple(used))
        # From here on nothing is tried again: it would be counted twice.
        run.outcome, run.credits_charged = Outcome.DRY_RUN, 0
        if run.publishes:
            run.succeeded_at = None
            tell_charge(self._runtime, run)
        if run.rated_by is None:
            return
        try:
            book = self._runtime.prices.get()
            lines = rated(book, quantities, run.priced_at, book.version, run.fixed)
        except BillingError as error:
            logger.warning("billing: dry run: what run %s would have cost is not known: %s", run.identity.run_id, error)
        else:
            self._counting.count(CREDITS, run.definition.task, sum(line.credits for line in lines))


def answer_of(error: BillingError) -> str:
    """Return what is counted for an error: `InvalidValue` → `invalid_value`, for an inactive client its state."""
    if isinstance(error, ClientInactive):
        return error.state
    name = type(error).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("_")


def check_ahead(identity: Identity, now_milliseconds: int) -> None:
    """Refuse a run whose id the log would not take, as `reserve` does."""
    at = ids.milliseconds_of(identity.run_id)
    if at != ids.LEGACY_MILLISECONDS and at > now_milliseconds + _AHEAD_MAX_MILLISECONDS:
        raise InvalidValue("billing_at", str(identity.run_id), "is more than a day ahead of this worker's time")


def _made(request: Request, claim: _Claim) -> DryRun:
    """Return the run of a claim. One without a client has an id that nobody else gets to see."""
    definition = claim.definition
    identity = claim.identity or Identity(
        run_id=ids.run_id("", request.id or "", nesting=0, nonce="", at_milliseconds=None),
        client_id="",
        submitted_at=None,
    )
    head = head_of(definition, identity, request, claim.rated_by or 0)
    hold = Hold(
        run_id=identity.run_id,
        client_id=identity.client_id,
        sku=claim.sku,
        credits=0,
        token="",
        price_version=head.price_version,
        attempt=head.attempt,
        head=b"",
        lines=b"",
    )
    return DryRun(
        definition=definition,
        identity=identity,
        head=head,
        hold=hold,
        default_quantity=claim.quantity or 0,
        priced_at=claim.at,
        fixed_credits=definition.credits,
        recorder=Lenient(claim.sku, fixed=definition.credits is not None),
        mode=DRY_RUN,
        publishes=claim.identity is not None and claim.quantity is not None and claim.is_known,
        rated_by=claim.rated_by,
    )


def _tell(task: str, request: Request, claim: _Claim, reason: str) -> None:
    logger.warning(
        "billing: dry run: task %s (%s) would have been denied: client %s, SKU %s, required %s, available %s: %s",
        task,
        request.id,
        "?" if claim.identity is None else claim.identity.client_id,
        claim.sku or "?",
        "?" if claim.required is None else claim.required,
        "?" if claim.available is None else claim.available,
        reason,
    )
