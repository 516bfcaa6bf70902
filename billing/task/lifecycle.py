"""The life of a billed delivery: begin (reserve), succeed (settle, publish), end (release or keep). One parent decides.

`begin` is the gate and may raise; nothing after success may: a settle that Redis did not take is kept and tried
again, a publish that failed is left to the relay. `end` releases only what this very attempt holds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from celery.exceptions import Ignore
from celery.states import REJECTED, RETRY
from sqlalchemy.exc import SQLAlchemyError

from billing.catalog.clients import get_client
from billing.connections import broker, postgres
from billing.core.clock import to_milliseconds
from billing.core.errors import (
    BillingError,
    Conflict,
    InsufficientCredits,
    InvalidValue,
    OutboxFull,
    Recovering,
    Retryable,
    UnknownClient,
    UnknownSku,
    Unreachable,
)
from billing.core.ids import new_settlement_id
from billing.core.shards import queue_of, shard_of
from billing.credits.values import Hold, ReserveOutcome, ReserveReply, Settlement, SettleOutcome, SettleReply
from billing.events.usage_event import decode_draft, encode_fragment, encode_head
from billing.ledger.rebuilds import request_rebuild
from billing.task.headers import CLIENT, identify
from billing.task.pending import Pending
from billing.task.run import Run, attach_run, prepare
from billing.task.usage import Recorder

if TYPE_CHECKING:
    from billing.task.billable import BillableTask
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: What a hold of a run that waits for a retry outlives the retry's eta by, in leases.
_RETRY_MARGIN_LEASES: Final = 1.0


class Lifecycle:
    """Bills the deliveries of one app in one process."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.pending = Pending(self._forget)

    def begin(self, task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Reserve for a delivery that is about to run; raise to refuse it, or to put it off."""
        try:
            run = self.prepare(task, args, kwargs)
            self._reserve(run)
        except Retryable as unavailable:
            self._put_off(task, args, kwargs, unavailable)
        attach_run(task, run)

    def prepare(self, task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any], request: Any = None) -> Run:
        """Return the run of a request, not yet reserved."""
        request = task.request if request is None else request
        definition = task.definition
        client_id = definition.client_of(args, kwargs, (request.headers or {}).get(CLIENT))
        identity = identify(request, client_id)
        at = to_milliseconds(self.runtime.clock.now())
        call = (args, kwargs)
        try:
            hold, head, default = prepare(definition, identity, request, self.runtime.prices.get(), at, call)
        except UnknownSku:
            # Its price may have been set a moment ago.
            hold, head, default = prepare(definition, identity, request, self.runtime.prices.renewed(), at, call)
        run = Run(
            definition=definition,
            identity=identity,
            head=head,
            hold=hold,
            default_quantity=default,
            priced_at=at,
            recorder=Recorder(definition.sku),
        )
        run.recorder.staged_by(lambda: self._stage(run))
        return run

    def succeed(self, run: Run) -> None:
        """Settle a run that succeeded, and publish its event. Never raises: the task has succeeded (L3)."""
        if run.settled:
            return
        try:
            settlement = self._settlement(run)
        except BillingError:
            # The hold and its draft stay: the reaper settles them from the task's stored result.
            logger.exception("billing: run %s cannot be rated; the reaper settles its draft", run.identity.run_id)
            run.settled = True
            return
        try:
            self._settle(settlement)
        except Retryable as error:
            logger.warning("billing: settle of run %s waits: %s", settlement.run_id, error)
            self.pending.settle_later(lambda: self._settle(settlement))
        except Exception:
            logger.exception("billing: settle of run %s failed; it is tried again", settlement.run_id)
            self.pending.settle_later(lambda: self._settle(settlement))
        run.settled = True

    def end(self, run: Run, state: str | None, outcome: object) -> None:
        """Release the hold of a run that did not settle, or keep it for the attempt that follows. Never raises."""
        if run.settled:
            return
        client_id, run_id, token = run.identity.client_id, run.identity.run_id, run.hold.token
        try:
            if state == RETRY:
                lease = self._seconds_until(outcome) + self.runtime.settings.lease_seconds * (1 + _RETRY_MARGIN_LEASES)
                self.runtime.buckets.renew([(client_id, run_id, lease)])
            elif state == REJECTED and getattr(outcome, "requeue", False):
                self.runtime.buckets.renew([(client_id, run_id, None)])
            else:
                self.runtime.buckets.release(client_id, run_id, token)
        except Retryable as error:
            logger.warning("billing: hold of run %s is left to its lease: %s", run_id, error)
        except Exception:
            logger.exception("billing: hold of run %s is left to its lease", run_id)

    def _reserve(self, run: Run) -> None:
        """Take the hold, or raise the reason why not."""
        hold = run.hold
        entries = self.pending.take_riders()
        try:
            reply = self.runtime.buckets.reserve(hold, forget=entries)
        except Retryable:
            for entry in entries:
                self.pending.confirmed(entry)
            raise
        outcome = reply.outcome
        if outcome is ReserveOutcome.TAKEN_OVER:
            # The first reserve fixed the prices, however long the run has been retried since; and the draft is now
            # this attempt's: what an earlier one recorded is not charged.
            run.price_as_of(reply.price_version, decode_draft(reply.lines).priced_at)
            self._stage(run)
        elif outcome is ReserveOutcome.SETTLED:
            run.settled = True
        elif outcome is not ReserveOutcome.HELD:
            raise self._refusal(hold, reply)

    def _refusal(self, hold: Hold, reply: ReserveReply) -> BillingError:
        outcome, client_id = reply.outcome, hold.client_id
        if outcome is ReserveOutcome.INSUFFICIENT:
            return InsufficientCredits(client_id, hold.sku, reply.required, reply.available)
        if outcome in (ReserveOutcome.UNKNOWN_CLIENT, ReserveOutcome.RECOVERING):
            return self._without_bucket(client_id, missing=outcome is ReserveOutcome.UNKNOWN_CLIENT)
        if outcome is ReserveOutcome.OUTBOX_FULL:
            return OutboxFull(f"client {client_id!r}: too many usage events of its shard wait for the broker")
        if outcome is ReserveOutcome.AHEAD:
            return InvalidValue("billing_at", str(hold.run_id), "is more than a day ahead of the server's time")
        return Conflict(f"run_id: {hold.run_id}: is already held for another client or SKU")

    def _without_bucket(self, client_id: str, *, missing: bool) -> BillingError:
        """Return why there is no bucket to take from: only the catalog knows whether the client exists.

        A known client whose bucket is missing has lost it: its shard is rebuilt, and the task waits (L6).
        """
        runtime = self.runtime
        try:
            with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
                shard = get_client(connection, client_id).shard
                if missing:
                    request_rebuild(connection, shard, "a bucket is missing")
        except UnknownClient as unknown:
            return unknown
        except (Unreachable, SQLAlchemyError) as error:
            return Recovering(f"client {client_id!r}: has no bucket, and the catalog does not answer: {error}")
        return Recovering(f"client {client_id!r}: its shard is being rebuilt; nothing is admitted until then")

    def _put_off(
        self, task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any], unavailable: Retryable
    ) -> None:
        """Follow `billing_on_redis_down`: raise, or publish the same delivery again for later and end this one."""
        settings = self.runtime.settings
        request = task.request
        if settings.on_redis_down == "fail" or request.is_eager:
            raise unavailable
        # The same retries: billing's own waiting must not use up the user's retry budget.
        again = task.signature_from_request(
            request, tuple(args), dict(kwargs), countdown=settings.unavailable_retry_seconds, retries=request.retries
        )
        again.apply_async()
        logger.warning("billing: task %s waits %g s: %s", request.id, settings.unavailable_retry_seconds, unavailable)
        raise Ignore(str(unavailable)) from unavailable

    def _settlement(self, run: Run) -> Settlement:
        lines = run.lines(self.runtime.prices.get())
        return Settlement(
            run_id=run.identity.run_id,
            client_id=run.identity.client_id,
            sku=run.definition.sku,
            settlement_id=new_settlement_id(),
            head=encode_head(run.head),
            fragments=tuple(encode_fragment(line) for line in lines),
            amounts=tuple(line.credits for line in lines),
        )

    def _settle(self, settlement: Settlement) -> None:
        reply = self.runtime.buckets.settle(settlement)
        if reply.outcome is SettleOutcome.RECOVERING:
            raise Recovering(f"client {settlement.client_id!r}: its shard is being rebuilt")
        if reply.outcome is SettleOutcome.UNKNOWN_CLIENT:
            raise self._without_bucket(settlement.client_id, missing=True)
        if reply.outcome is SettleOutcome.TOO_LARGE:
            raise InvalidValue(
                "credits", sum(settlement.amounts), "would lift the client's debt above what can be counted"
            )
        if reply.debt:
            logger.error("billing: client %s owes %d credits more", settlement.client_id, reply.debt)
        if self.runtime.settings.publish == "confirm":
            self.publish(settlement.client_id, reply)

    def publish(self, client_id: str, reply: SettleReply) -> None:
        """Publish a settled event; what is not confirmed stays in the outbox, for the relay."""
        if reply.event is None or reply.entry_id is None:
            return
        settings = self.runtime.settings
        shard = shard_of(client_id, settings.shards)
        queue = queue_of(shard, settings.usage_queues)
        try:
            self.runtime.publisher.publish(queue, reply.event, shard=shard, entry_id=reply.entry_id)
        except Retryable as error:
            logger.warning("billing: an event of client %s waits for the relay: %s", client_id, error)
            return
        if broker.confirms(settings):
            self.pending.confirmed((shard, reply.entry_id))

    def _stage(self, run: Run) -> None:
        """Keep what was recorded with the hold, for the reaper. An unknown SKU raises; Redis being away does not."""
        draft = run.draft(self.runtime.prices.get())
        identity = run.identity
        try:
            self.runtime.buckets.stage(
                identity.client_id, identity.run_id, run.hold.token, draft, head=encode_head(run.head)
            )
        except Retryable as error:
            logger.warning("billing: a usage line of run %s is not staged: %s", run.identity.run_id, error)

    def _forget(self, entries: list[tuple[int, str]]) -> None:
        self.runtime.buckets.forget(entries)

    def _seconds_until(self, outcome: object) -> float:
        """Return how long a retry waits, from the `Retry` that Celery raised."""
        when = getattr(outcome, "when", None)
        if isinstance(when, datetime):
            now = self.runtime.clock.now()
            return max(0.0, (when - now if when.tzinfo else when - now.replace(tzinfo=None)).total_seconds())
        return float(when) if isinstance(when, int | float) else 0.0
